"""What ``seewhy evaluate`` does with pictures whose every pixel has a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from .options import encoder_given, open_store
from .outputs import deliver
from .segment import label_names
from .terminal import Terminal, say


def run_masks(
    data: Path,
    model: str | None,
    labels: str | None,
    encoder: str,
    engine: str,
    train: Path | None,
    ignore: Sequence[int] | None,
    path: Path | None,
    seed: int,
    force: bool,
    as_json: bool,
    store: str | None,
    quiet: bool,
) -> None:
    """Measure, write and say."""
    from ..dense.evaluation import evaluate_segmenter
    from ..dense.maskclip import MaskCLIP
    from ..dense.saving import load_segmenter
    from ..encoders.find import encoder as find
    from ..pictures.pixel_classes import load_masks

    terminal = Terminal(quiet)
    names = None if labels is None else [n for n in map(str.strip, label_names(labels)) if n]
    left_out = [255] if ignore is None else list(ignore)
    given = load_masks(data, classes=names, ignore=left_out)
    others = None if train is None else load_masks(train, classes=names, ignore=left_out)
    if model is not None:
        segmenter = load_segmenter(model, encoder=encoder_given(encoder), engine=engine)
    else:
        segmenter = MaskCLIP().build(find(encoder, engine=engine), given.classes, open_store(store))
    report = evaluate_segmenter(segmenter, given, train=others, seed=seed, progress=terminal)
    deliver(report, path, force, as_json, lambda: _print(report.data, path))
    raise typer.Exit(terminal.exit_code(report.data["n"]))


def _print(data: dict[str, Any], path: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..printable import printable

    console = Console(soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("masks by", "mean IoU", "95 % interval", ""):
        table.add_column(head)
    for row in data["rows"]:
        against = "" if row["real"] is None else "not apart from the model" if not row["real"] else ""
        table.add_row(row["name"], f"{100 * row['miou']:.1f}", _range(row["interval"]), against)
    console.print(table)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("class", "IoU", "95 % interval", "of the pixels"):
        table.add_column(head)
    for c in data["classes"]:
        label = escape(printable(c["label"]))
        if c["iou"] is None:
            table.add_row(label, "no pixel", "", "0.0%")
        else:
            table.add_row(label, f"{100 * c['iou']:.1f}", _range(c["interval"]), f"{c['share']:.1%}")
    console.print(table)
    for note in data["notes"]:
        say(f"note: {note}")
    if path is not None:
        say(f"report: {path}")


def _range(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
