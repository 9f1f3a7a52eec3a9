"""``seewhy fit-detector``: the user's boxes become a detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import printable
from .evaluate_boxes import PicturesFolder
from .method_options import Set
from .options import EncoderName, EngineName, Json, Quiet, method, output, seed
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..dense.detection.trained import TrainedDetector

EXAMPLES = """
Examples:\n
  seewhy fit-detector boxes.json -o det\n
  seewhy fit-detector cells/annotations --pictures cells/images -o det --set zoom=4\n
  seewhy fit-detector boxes.json -o det --method linear --precision 0.9\n
  seewhy detect new/ -m det -o found/
"""


def fit_detector(
    data: Annotated[Path, typer.Argument(help="Boxes: COCO's JSON, YOLO, VOC or a table.", show_default=False)],
    output: Annotated[Path, output("The detector's folder.")],
    pictures: PicturesFolder = None,
    method: Annotated[
        str, method("auto: the better out of fold. linear: a probe of regions. dito: by words.")
    ] = "auto",
    setting: Set = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    folds: Annotated[int, typer.Option(help="Parts, each found by a detector of the others.", min=2)] = 5,
    precision: Annotated[
        float | None,
        typer.Option(
            help="That boxes of each class are to have on new pictures. Left out, F1 is largest.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, seed("The folds.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector on pictures with boxes; thresholds and figures are out of fold. Run again, it goes on."""
    from ..dense.detection.fit import beside, methods_for
    from ..dense.detection.fit import fit_detector as fit
    from ..dense.saving import DETECTORS, save_detector
    from ..encoders.find import encoder as find
    from ..storage.marks import CHECKPOINT
    from ..storage.output import make_folder, remove
    from .method_options import settings

    terminal = Terminal(quiet)
    DETECTORS.archive.check(output)
    given = settings(setting)
    methods_for(method, given)
    make_folder(output.parent)
    checkpoint = output.parent / f".{output.name}.checkpoint"
    made = fit(
        data, find(encoder, engine=engine), method=method, pictures=pictures, folds=folds, precision=precision,
        seed=seed, progress=terminal, checkpoint=checkpoint, **given,
    )  # fmt: skip
    save_detector(made, output)
    for kept in (checkpoint, beside(checkpoint)):
        remove(kept, CHECKPOINT)
    if as_json:
        about: dict[str, Any] = {"model": str(output), "method": made.method, "classes": list(made.classes)}
        about |= {"trained_on": made.trained_on, "calibration": made.calibration}
        about["failures"] = [f.to_json() for f in terminal.failures]
        say(json.dumps(about, ensure_ascii=False))
    else:
        _print(output, made)
    raise typer.Exit(terminal.exit_code(1))


def _print(output: Path, made: TrainedDetector) -> None:
    found = made.calibration
    say(f"{output}: {made.method}, {len(made.classes)} class(es), {made.trained_on}", made.measured)
    others = [f"{one['name']} {100 * one['ap50']:.1f}" for one in found["methods"] if one["name"] != made.method]
    if others:
        say(f"{made.method} was taken, as its AP50 out of fold is the largest; {', '.join(others)}")
    for row in found["classes"]:
        say(f"{printable(row['label'])}\tfrom {row['threshold']:.2f}: {_reached(row)}")


def _reached(row: dict[str, Any]) -> str:
    """What a threshold is to be expected to reach."""
    if row["precision"] is None:
        return f"{row['n']} box(es), too few to say anything of; the threshold of all classes together"
    precision, recall = (
        f"{name} {row[name]:.0%} ({row[f'{name}_interval'][0]:.0%} to {row[f'{name}_interval'][1]:.0%})"
        for name in ("precision", "recall")
    )
    short = ", less than was asked for" if row["promised"] is False else ""
    return f"{precision}{short}, {recall}, {row['n']} boxes"
