"""``seewhy check``: pictures that are wrong, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    EncoderName,
    EngineName,
    Force,
    Group,
    Host,
    HostNames,
    ImageColumn,
    Json,
    LabelColumn,
    Port,
    Quiet,
    Store,
    encoder_given,
    open_store,
    saved,
    seed,
)
from .outputs import StudyFolder, check_both, csv_row, report_line, save_both
from .study_options import Labelled
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..language.annotation.labels import Corrections

EXAMPLES = """
Examples:\n
  seewhy check photos/ -o check/\n
  seewhy check photos.csv -m birds --against test/ -o check/\n
  seewhy check photos.csv --split-column split\n
  seewhy check photos/ --by cleanlab --json\n
  seewhy check photos/ --from check/ --serve\n
  seewhy check photos/ --from check/ --export corrected.csv\n
"""


def check(
    data: Labelled,
    model: Annotated[
        str | None, saved("A classifier: its encoder looks, its classes count. Left out, --encoder.")
    ] = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    by: Annotated[
        str, typer.Option(help="How labels are doubted: odds, confident, cleanlab (its extra is needed) or neighbours.")
    ] = "odds",
    against: Annotated[
        Path | None,
        typer.Option(help="Pictures of another split: which are copies of those?", show_default=False),
    ] = None,
    output: StudyFolder = None,
    checked: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="The folder of an earlier check, with what was decided: for --serve and --export.",
            show_default=False,
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on which labels are corrected, confirmed or put off.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the data with the decisions on their labels as .csv and stop.", show_default=False),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: HostNames = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    group: Group = None,
    split_column: Annotated[
        str | None,
        typer.Option(
            help="A table's column of splits (train, test): which pictures are copies of those of another?",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, seed("The parts held out.")] = 0,
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """What is wrong with labelled pictures: labels, copies, strangers, dark and blurred ones; each with its reason."""
    from ..pictures.samples import load_samples
    from ..pictures.unlabelled import load_pictures
    from ..storage.output import check_file, write
    from ..studies.inspection.check import COLUMNS, Check

    terminal = Terminal(quiet)
    if checked is not None or serve or export is not None:
        columns = (image_column, label_column, group)
        _go_on(data, checked, serve, export, columns, (host, port, tuple(name or ())), force, as_json)
        return
    how = Check(by=by, seed=seed)
    check_both(output, "check", force)
    table = None if output is None else output / "findings.csv"
    if table is not None and table.parent.is_dir():
        check_file(table, force=force)
    kept = open_store(store)
    samples = load_samples(data, image=image_column, label=label_column, group=group, split=split_column).labelled()
    others = None if against is None else load_pictures(against, image=image_column, label=label_column)
    looks, classes = _encoder(model, encoder, engine)
    found = how.run(looks, samples, known=classes, against=others, store=kept, progress=terminal)
    page = save_both(found, output, "check", force)
    if table is not None:
        rows = [list(COLUMNS), *found.rows()]
        write(table, "".join(csv_row(row) for row in rows), force=force)
    if as_json:
        say(json.dumps({**found.data, "report": page}, ensure_ascii=False))
    else:
        _print(found.data)
        say(found.data["sentence"], *report_line(page))
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _encoder(model: str | None, encoder: str, engine: str) -> tuple[Any, tuple[str, ...] | None]:
    """What looks, and the classes that there are, where a model says so."""
    from ..classifiers.saving import load
    from ..encoders.find import encoder as find

    if model is None:
        return find(encoder, engine=engine), None
    classifier = load(model, engine=engine, encoder=encoder_given(encoder))
    return classifier.encoder, classifier.classes


def _print(data: dict[str, Any], most: int = 5) -> None:
    from ..studies.inspection.check import KINDS

    for kind, n in data["counts"].items():
        if not n:
            continue
        say(f"{KINDS[kind]}: {n}")
        for one in [f for f in data["findings"] if f["kind"] == kind][:most]:
            say(f"  {one['image']}: {one['why']}")
        if n > most:
            say(f"  and {n - most} more")


def _go_on(
    data: Path,
    folder: Path | None,
    serve: bool,
    export: Path | None,
    columns: tuple[str, str, str | None],
    where: tuple[str, int, tuple[str, ...]],
    force: bool,
    as_json: bool,
) -> None:
    """From a check that was made: the corrected table, or the page on which people decide."""
    from ..errors import InputError
    from ..language.annotation.labels import Corrections, LabelledData, check_corrected, open_decisions
    from ..pictures.samples import load_samples
    from ..studies.inspection.check import read_check
    from .correcting import export_corrected

    if folder is None or serve == (export is not None):
        raise InputError(
            "--from goes with --serve or --export, one of them. The folder of a check and what to do with it were "
            "expected. Give --from check/ --serve, say."
        )
    image, label, group = columns
    if export is not None:
        check_corrected(export, data, force)
    samples = load_samples(data, image=image, label=label, group=group)
    check = read_check(folder, data, samples.items)
    corrections = Corrections(LabelledData(data, samples.items, image, label), open_decisions(folder, check["classes"]))
    if export is None:
        _serve(check, corrections, where)
    else:
        export_corrected(export, corrections.data, corrections.decisions, force, as_json)


def _serve(check: dict[str, Any], corrections: Corrections, where: tuple[str, int, tuple[str, ...]]) -> None:
    from ..errors import MissingExtraError
    from ..service.app import Settings
    from ..service.app import serve as run
    from ..studies.inspection.check import small_picture

    try:
        from ..service.app.check_page import make_check_app
    except ImportError as error:
        raise MissingExtraError("app", "The page") from error
    settings = Settings(host=where[0], port=where[1], names=where[2])
    served = make_check_app(check, corrections, small_picture, settings)

    def ready(address: str) -> None:
        say(f"{len(check['findings'])} findings at {address} (stop with Ctrl-C)", flush=True)
        if settings.is_open:
            say("seewhy: others on this network can read and decide here; there is no password", file=sys.stderr)

    run(served, settings, ready)
    corrections.decisions.store.close()
