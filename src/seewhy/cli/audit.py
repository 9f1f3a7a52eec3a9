"""``seewhy audit``: does a model keep a contract? A report for people, exit codes and JUnit XML for machines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .object_options import MasksFolder, ObjectWords, SegmenterFolder, loaded_segmenter, mask_source
from .options import (
    EncoderName,
    EngineName,
    Force,
    ImageColumn,
    Json,
    LabelColumn,
    Quiet,
    Store,
    open_store,
    resolve,
    seed,
)
from .outputs import StudyFolder, check_both, report_line, save_both
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..studies.auditing import Audit

TrainPictures = Annotated[
    Path | None,
    typer.Option(
        "--train",
        help="The pictures that it was fitted on, where the classifier does not know them itself.",
        show_default=False,
    ),
]
EXAMPLES = """
Examples:\n
  seewhy audit --write-contract audit.toml\n
  seewhy audit birds test/ --contract audit.toml -o report --junit audit.xml\n
  seewhy audit birds test.csv --group site --json\n
  seewhy audit birds test/ --train photos/ -o report\n
  seewhy audit birds test/ --masks masks/ -o report\n\n
Exit codes: 0 the contract is kept, 1 it is broken, 2 wrong use.
"""


def audit(
    model: Annotated[str | None, typer.Argument(help="A saved classifier.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Labelled pictures that it was not fitted on: a folder with one folder per class, or a table.",
            show_default=False,
        ),
    ] = None,
    contract: Annotated[
        Path | None,
        typer.Option(
            help="What it must keep, a TOML file; left out, what --write-contract writes.", show_default=False
        ),
    ] = None,
    output: StudyFolder = None,
    junit: Annotated[
        Path | None, typer.Option(help="A JUnit XML file with one test case per figure.", show_default=False)
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="A table's column that names a part of the pictures, such as site or camera; for class folders the "
            "word folder. Accuracy is compared between them.",
            show_default=False,
        ),
    ] = None,
    train: TrainPictures = None,
    masks: MasksFolder = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Boxes of the objects: COCO, YOLO, VOC or a table. In the place of masks.", show_default=False
        ),
    ] = None,
    segmenter: SegmenterFolder = None,
    object_words: ObjectWords = None,
    write_contract: Annotated[
        Path | None,
        typer.Option(help="Write a contract with a comment on every figure, and do nothing else.", show_default=False),
    ] = None,
    n_explained: Annotated[int, typer.Option(min=0, help="Pictures on which explanations are measured.")] = 32,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    seed: Annotated[int, seed("The pictures explained, and every other draw.")] = 0,
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Does it keep a contract? Figure by figure, each with its interval, its limit and what it means."""
    from ..pictures.boxes import load_boxes
    from ..pictures.samples import load_samples
    from ..storage.output import write
    from ..studies.auditing import audit as run
    from ..studies.auditing.contract import Contract

    if write_contract is not None:
        _alone(model, data)
        write(write_contract, Contract.preset().to_toml(), force=force)
        say(f"contract: {write_contract}")
        return
    if model is None or data is None:
        raise InputError(
            f"{'No model was' if model is None else 'No pictures were'} given. A saved classifier and labelled "
            "pictures were expected. Write: seewhy audit MODEL DATA."
        )
    for name, value in (("masks", masks), ("object-segmenter", segmenter), ("object", object_words)):
        if boxes is not None and value is not None:
            raise InputError(
                f"--boxes was given beside --{name}. One of them was expected, as one says where the object is. Drop "
                "one."
            )
    asked = None if contract is None else Contract.load(contract)
    check_both(output, "audit", force)
    if junit is not None:
        _check_junit(junit, output, force)
    terminal = Terminal(quiet)
    kept = open_store(store)
    samples = load_samples(data, image=image_column, label=label_column, group=group)
    known = None if train is None else load_samples(train, image=image_column, label=label_column)
    classifier = resolve(model, None, encoder, engine, None, kept)
    drawn = loaded_segmenter(segmenter, encoder, engine)
    known_boxes = None if boxes is None else load_boxes(boxes)
    names = [s.image for s in samples.items]
    source = mask_source(classifier, names, ("--masks", masks), drawn, object_words, boxes=known_boxes, store=kept)
    found = run(
        classifier, samples, contract=asked, group=group, train=known, masks=source, n_explained=n_explained,
        store=kept, seed=seed, progress=terminal,
    )  # fmt: skip
    page = save_both(found, output, "audit", force)
    if junit is not None:
        write(junit, found.to_junit(), force=force)
    if as_json:
        say(json.dumps({**found.data, "report": page}, ensure_ascii=False))
    else:
        _print(found)
        say(found.sentence, *report_line(page))
    raise typer.Exit(0 if found.passed else 1)


def _alone(model: Any, data: Any) -> None:
    if model is not None or data is not None:
        raise InputError(
            "--write-contract was given beside a model. It alone was expected, as nothing is audited. Drop one."
        )


def _check_junit(junit: Path, folder: Path | None, force: bool) -> None:
    """See that a JUnit file can be written, in the report's folder, too, which need not be there yet."""
    from ..report.paging import ENDINGS
    from ..storage.output import check_file

    place = Path(os.path.realpath(junit))
    report = None if folder is None else Path(os.path.realpath(folder))
    if report is not None and place in [report / f"audit{ending}" for ending in ENDINGS]:
        raise InputError(
            f"--junit {junit} is a file of the report itself. A name of its own was expected, such as "
            f"{junit.with_suffix('.xml')}. Choose another."
        )
    if place.parent != report or report.is_dir():
        check_file(junit, force=force)


def _print(found: Audit) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("figure", "state", "measured", "judged", "asked for"):
        shown.add_column(
            name, no_wrap=name != "asked for", justify="right" if name in ("measured", "judged") else "left"
        )
    for row in found.data["figures"]:
        between = "" if row["interval"] is None else f" ({row['interval'][0]:.3f} to {row['interval'][1]:.3f})"
        measured = "" if row["value"] is None else f"{row['value']:.3f}{between}"
        state = row["state"].upper() if row["broken"] else row["state"]
        state += "" if row["broken"] or row["state"] == "pass" else ", not required"
        shown.add_row(row["name"], state, measured, row["judged_by"].rpartition(" ")[2], row["asked"])
    Console(soft_wrap=True).print(shown)
    for row in found.data["figures"]:
        if row["state"] != "pass":
            say(f"{row['name']}: {row['meaning']}")
