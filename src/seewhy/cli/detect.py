"""``seewhy detect``: what is in a picture, and where, by words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import printable
from .options import (
    EncoderName,
    EngineName,
    Focus,
    Force,
    Json,
    Labels,
    Pictures,
    Quiet,
    Store,
    focused,
    open_store,
    output,
    picture_names,
)
from .segment import label_names
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..dense import Detections

EXAMPLES = """
Examples:\n
  seewhy detect photo.jpg --labels "stamp, platelet" -o det/\n
  seewhy detect photos/ --labels "wren, nest" --least-score 0.3 --json > found.jsonl\n
  seewhy detect aerial.tif --labels "car, boat" --tiles 4 -o det/ --format yolo\n
  seewhy detect photo.jpg --labels "cat, remote control" --detector owlv2:/models/owlv2 -o det/
"""


def detect(
    pictures: Pictures,
    labels: Labels = None,
    encoder: EncoderName = "lite0",
    focus: Focus = None,
    engine: EngineName = "auto",
    detector: Annotated[
        str,
        typer.Option("--detector", help="word_regions; with a folder of weights owlv2:PATH, grounding_dino:PATH."),
    ] = "word_regions",
    tiles: Annotated[
        int | None,
        typer.Option(min=1, max=32, help="Tiles on a picture's short side, for small things.", show_default=False),
    ] = None,
    least_score: Annotated[
        float | None,
        typer.Option("--least-score", min=0, max=1, help="Score below which a box is not kept.", show_default=False),
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Of two boxes of a class that overlap more, the surer is kept.")
    ] = 0.5,
    most_boxes: Annotated[int, typer.Option("--most-boxes", min=1, help="Boxes kept in one picture.")] = 100,
    output: Annotated[Path | None, output("A folder for the boxes and a page.")] = None,
    format: Annotated[str, typer.Option("--format", help="Of the boxes: coco, yolo, voc or csv.")] = "coco",
    force: Force = False,
    as_json: Json = False,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Find what the names say, and draw a box around each; nothing is trained."""
    from ..dense import detectors
    from ..dense.box_folder import BoxFolder
    from ..dense.boxes_by_words import detector_for
    from ..errors import InputError
    from ..types import Failure

    if labels is None:
        raise InputError('No names were given. What to look for was expected. Add --labels "stamp, platelet".')
    terminal = Terminal(quiet)
    given: dict[str, Any] = {"overlap": overlap, "most": most_boxes}
    given |= {} if least_score is None else {"least": least_score}
    if tiles is not None:
        given |= detectors[detector.partition(":")[0]].tiled(tiles)
    looks = focused(encoder, focus)
    built = detector_for(detector, label_names(labels), looks, engine=engine, store=open_store(store), **given)
    folder = None if output is None else BoxFolder(output, built.classes, format, force=force)
    done = 0
    for found in terminal.track(built.detect_all(picture_names(pictures, output)), "Detecting"):
        if isinstance(found, Failure):
            terminal.failed(found)
            if as_json:
                say(json.dumps(found.to_json(), ensure_ascii=False))
            continue
        done += 1
        if folder is not None:
            folder.add(found)
        if as_json:
            say(json.dumps(found.to_json(), ensure_ascii=False))
        else:
            _print(found)
    if folder is not None and done:
        boxes, page = folder.finish()
        if not as_json:
            say(f"boxes: {boxes}", f"page: {page}")
    raise typer.Exit(terminal.exit_code(done))


def _print(found: Detections) -> None:
    from collections import Counter

    counts = Counter(d.label for d in found.found)
    said = ", ".join(f"{n} {label}" for label, n in counts.most_common())
    say(f"{printable(found.image)}\t{printable(said) or 'nothing found'}")
