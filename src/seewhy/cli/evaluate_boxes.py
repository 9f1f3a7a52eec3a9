"""What ``seewhy evaluate`` does with boxes: average precision, beside boxes that know less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .options import encoder_given, open_store
from .outputs import deliver
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..dense import Detector
    from ..encoders.base import Encoder
    from ..pictures.boxes import BoxData

DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="word_regions; with a folder of weights owlv2:PATH, grounding_dino:PATH.",
        show_default=False,
    ),
]
Novel = Annotated[
    str | None,
    typer.Option(help="Classes, separated by commas, that a detector was not trained on.", show_default=False),
]
PicturesFolder = Annotated[
    Path | None,
    typer.Option("--pictures", help="Where the pictures of a file of boxes are.", show_default=False),
]


def is_of_boxes(model: str | None, detector: str | None) -> bool:
    """Whether boxes are to be judged: of a detector, saved or named, or those in a folder."""
    from ..dense.saving import is_detector
    from ..pictures.boxes import has_boxes

    if detector is not None or (model is not None and is_detector(model)):
        return True
    return model is not None and has_boxes(Path(model))


def run_boxes(
    data: Path,
    found: str | None,
    detector: str | None,
    labels: str | None,
    encoder: str,
    engine: str,
    pictures: Path | None,
    novel: str | None,
    path: Path | None,
    seed: int,
    force: bool,
    as_json: bool,
    store: str | None,
    quiet: bool,
) -> NoReturn:
    """Measure, write and say."""
    from ..dense import detectors
    from ..dense.by_words import detector_for
    from ..dense.evaluation import evaluate_boxes
    from ..dense.saving import is_detector, load_detector
    from ..encoders.find import encoder as find
    from ..pictures.boxes import load_boxes
    from .segment import label_names

    terminal = Terminal(quiet)
    there = load_boxes(data, pictures=pictures).present()
    looks: Encoder = find(encoder, engine=engine)
    if detector is not None:
        names = there.classes if labels is None else label_names(labels)
        ranked: dict[str, Any] = getattr(detectors[detector.partition(":")[0]], "ranked", dict)()
        built = detector_for(detector, names, looks, store=open_store(store), **ranked)
        boxes = _detected(there, built, terminal)
    elif is_detector(found or ""):
        saved = load_detector(found or "", encoder=encoder_given(encoder), engine=engine).keeping(least=0.0)
        looks = saved.base
        names = saved.classes if labels is None else label_names(labels)
        if labels is None and saved.reads_words:
            names = there.classes
        boxes = _detected(there, saved.for_classes(names), terminal)
        if known := saved.known([p.image for p in there.pictures]):
            note = (
                f"{len(known)} of {len(there)} pictures are ones that the detector was fitted on, byte for byte: the "
                f"figures say less of new pictures than they seem to; the first: {known[0]}"
            )
            there = replace(there, notes=(*there.notes, note))
    else:
        boxes = load_boxes(found or "", pictures=pictures)
    chosen = [] if novel is None else [n.strip() for n in novel.split(",")]
    report = evaluate_boxes(there, boxes, encoder=looks, novel=chosen, seed=seed)
    deliver(report, path, force, as_json, lambda: _print(report.data, path))
    raise typer.Exit(terminal.exit_code(len(there)))


def _detected(there: BoxData, built: Detector, terminal: Terminal) -> BoxData:
    """What a detector finds on the pictures of the data."""
    from ..pictures.boxes import BoxData

    stream = built.detect_all([p.image for p in there.pictures])
    found = terminal.results(there.pictures, stream, "Detecting")
    return BoxData(tuple(one.record() for _, one in found), built.classes)


def _print(d: dict[str, Any], path: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..printable import printable

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("", "AP", "AP50", "interval"):
        shown.add_column(column, justify="right" if column else "left")
    lines = [("all classes", d), ("whatever the name", d["any_name"])]
    lines += [(g["name"], g) for g in d["groups"]] + [(c["label"], c) for c in d["per_class"]]
    for name, row in lines:
        between = " to ".join(_hundred(v) for v in row["ap50_interval"] or ())
        shown.add_row(printable(name), _hundred(row["ap"]), _hundred(row["ap50"]), between)
    for c in d["controls"]:
        best = "" if c["n_draws"] == 1 else f", the best of {c['n_draws']} {_hundred(c['ap50_best'])}"
        shown.add_row(f"control: {c['name']}{best}", _hundred(c["ap"]), _hundred(c["ap50"]), "" if c["real"] else "*")
    Console(soft_wrap=True).print(shown)
    if any(not c["real"] for c in d["controls"]):
        say("* the detector is not shown to be better: the interval of the difference reaches 0")
    for note in d["notes"]:
        say(f"note: {printable(note)}")
    if path is not None:
        say(f"report: {path}")


def _hundred(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
