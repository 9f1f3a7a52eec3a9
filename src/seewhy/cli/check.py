"""``seewhy check``: pictures that are wrong, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    EncoderName,
    EngineName,
    Force,
    Group,
    ImageColumn,
    Json,
    LabelColumn,
    Model,
    Quiet,
    Store,
    encoder_given,
    open_store,
    seed,
)
from .outputs import StudyFolder, check_both, csv_row, report_line, save_both
from .study_options import Labelled
from .terminal import Terminal, say

EXAMPLES = """
Examples:\n
  seewhy check photos/ -o check/\n
  seewhy check photos.csv -m birds --against test/ -o check/\n
  seewhy check photos/ --by cleanlab --json\n
"""


def check(
    data: Labelled,
    model: Model = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    by: Annotated[
        str, typer.Option(help="How labels are doubted: confident, cleanlab (its extra is needed) or neighbours.")
    ] = "confident",
    against: Annotated[
        Path | None,
        typer.Option(help="Pictures of another split: which are copies of those?", show_default=False),
    ] = None,
    output: StudyFolder = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    group: Group = None,
    seed: Annotated[int, seed("The parts held out.")] = 0,
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """What is wrong with labelled pictures: labels, copies, strangers, dark and blurred ones; each with its reason."""
    from ..inspection.check import Check
    from ..inspection.findings import COLUMNS, TABLE
    from ..pictures.samples import load_samples
    from ..pictures.unlabelled import load_pictures
    from ..storage.output import check_file, write

    terminal = Terminal(quiet)
    how = Check(by=by, seed=seed)
    check_both(output, "check", force)
    table = None if output is None else output / "findings.csv"
    if table is not None and table.parent.is_dir():
        check_file(table, TABLE, force=force)
    kept = open_store(store)
    samples = load_samples(data, image=image_column, label=label_column, group=group).labelled()
    others = None if against is None else load_pictures(against, image=image_column, label=label_column)
    looks, classes = _encoder(model, encoder, engine)
    found = how.run(looks, samples, known=classes, against=others, store=kept, progress=terminal)
    page = save_both(found, output, "check", force)
    if table is not None:
        rows = [list(COLUMNS), *found.rows()]
        write(table, "".join(csv_row(row) for row in rows), TABLE, force=force)
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
    from ..inspection.findings import KINDS

    for kind, n in data["counts"].items():
        if not n:
            continue
        say(f"{KINDS[kind]}: {n}")
        for one in [f for f in data["findings"] if f["kind"] == kind][:most]:
            say(f"  {one['image']}: {one['why']}")
        if n > most:
            say(f"  and {n - most} more")
