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
  seewhy fit-detector boxes.json -o det --precision 0.9\n
  seewhy detect new/ -m det -o found/
"""


def fit_detector(
    data: Annotated[Path, typer.Argument(help="Boxes: COCO's JSON, YOLO, VOC or a table.", show_default=False)],
    output: Annotated[Path, output("The detector's folder.")],
    pictures: PicturesFolder = None,
    method: Annotated[str, method("linear: a probe of regions. dito: by words.")] = "linear",
    setting: Set = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    held_out: Annotated[float, typer.Option(help="Part held out to choose and to measure on.")] = 0.2,
    precision: Annotated[
        float | None,
        typer.Option(help="That boxes of each class are to have. Left out, F1 is largest.", show_default=False),
    ] = None,
    seed: Annotated[int, seed("The pictures held out.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector on pictures with boxes. Each class gets a threshold, from pictures held out."""
    from ..dense.detection.fit import fit_detector as fit
    from ..dense.detection.fit import method_for
    from ..dense.saving import DETECTORS, save_detector
    from ..encoders.find import encoder as find
    from ..storage.marks import CHECKPOINT
    from ..storage.output import make_folder, remove
    from .method_options import settings

    terminal = Terminal(quiet)
    DETECTORS.archive.check(output)
    given = settings(setting)
    method_for(method, given)
    make_folder(output.parent)
    checkpoint = output.parent / f".{output.name}.checkpoint"
    made = fit(
        data, find(encoder, engine=engine), method=method, pictures=pictures, held_out=held_out, precision=precision,
        seed=seed, progress=terminal, checkpoint=checkpoint, **given,
    )  # fmt: skip
    save_detector(made, output)
    remove(checkpoint, CHECKPOINT)
    if as_json:
        about: dict[str, Any] = {"model": str(output), "method": method, "classes": list(made.classes)}
        about |= {"trained_on": made.trained_on, "calibration": made.calibration}
        about["failures"] = [f.to_json() for f in terminal.failures]
        say(json.dumps(about, ensure_ascii=False))
    else:
        _print(output, made)
    raise typer.Exit(terminal.exit_code(1))


def _print(output: Path, made: TrainedDetector) -> None:
    say(f"{output}: {len(made.classes)} class(es), {made.trained_on}", made.measured)
    for row in made.calibration["classes"]:
        own = "" if row["own"] else ", from all classes together"
        say(
            f"{printable(row['label'])}\tfrom {row['threshold']:.2f}: precision {row['precision']:.0%}, recall "
            f"{row['recall']:.0%} on {row['n']} boxes held out{own}"
        )
