"""``seewhy detect``: what is in a picture, and where, by words or by a detector that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import printable
from . import options
from .segment import Presence, label_names, not_found
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..dense import Detections, Detector

EXAMPLES = """
Examples:\n
  seewhy detect photo.jpg --labels "stamp, platelet" -o det/\n
  seewhy detect photos/ --labels "wren, nest" --least-score 0.3 --json > found.jsonl\n
  seewhy detect aerial.tif --labels "car, boat" --tiles 4 -o det/ --format yolo\n
  seewhy detect new/ -m det -o found/

  seewhy detect photo.jpg --labels "cat, remote control" --detector owlv2:/models/owlv2 -o det/
"""


def detect(
    pictures: options.Pictures,
    model: Annotated[
        str | None, options.saved("A detector of fit-detector. Left out, what --labels names is looked for.")
    ] = None,
    labels: options.Names = None,
    encoder: options.EncoderName = "lite0",
    focus: options.Focus = None,
    engine: options.EngineName = "auto",
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
        typer.Option(
            "--least-score",
            min=0,
            max=1,
            help="Score below which a box is not kept. Left out, the detector's own.",
            show_default=False,
        ),
    ] = None,
    least_presence: Presence = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of two boxes of a class that overlap more, the surer is kept. Left out, 0.5.",
            show_default=False,
        ),
    ] = None,
    most_boxes: Annotated[
        int | None,
        typer.Option("--most-boxes", min=1, help="Boxes kept in one picture. Left out, 100.", show_default=False),
    ] = None,
    output: Annotated[Path | None, options.output("A folder for the boxes and a page.")] = None,
    format: Annotated[str, typer.Option("--format", help="Of the boxes: coco, yolo, voc or csv.")] = "coco",
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Find what the names say, or what a detector was trained on, and draw a box around each."""
    from ..dense.regions import BoxFolder

    terminal = Terminal(quiet)
    given: dict[str, Any] = {"least": least_score, "overlap": overlap, "most": most_boxes}
    given |= {"least_presence": least_presence}
    given = {name: value for name, value in given.items() if value is not None}
    if model is None:
        built = _by_words(detector, labels, options.focused(encoder, focus), engine, tiles, store, given)
    else:
        built = _saved(model, labels, encoder, engine, tiles, given)
    folder = None if output is None else BoxFolder(output, built.classes, format, force=force)
    done = 0
    stream = built.detect_all(options.picture_names(pictures, output))
    for found in terminal.readable(stream, "Detecting", as_json):
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


def _by_words(
    detector: str,
    labels: str | None,
    encoder: str,
    engine: str,
    tiles: int | None,
    store: str | None,
    given: dict[str, Any],
) -> Detector:
    from ..dense import detectors
    from ..dense.by_words import detector_for
    from ..errors import InputError

    if labels is None:
        raise InputError('No names were given. What to look for was expected. Add --labels "stamp, platelet".')
    if tiles is not None:
        given |= detectors[detector.partition(":")[0]].tiled(tiles)
    return detector_for(detector, label_names(labels), encoder, engine=engine, store=options.open_store(store), **given)


def _saved(
    model: str, labels: str | None, encoder: str, engine: str, tiles: int | None, given: dict[str, Any]
) -> Detector:
    from ..dense.saving import load_detector
    from ..errors import InputError

    if tiles is not None:
        raise InputError(
            "--model and --tiles were both given. A saved detector looks as it did when it was fitted: drop one, or "
            "fit it with another --set zoom=…."
        )
    if "least_presence" in given:
        raise InputError(
            "--model and --least-presence were both given. A saved detector has limits of its own: drop one, or use "
            "--least-score."
        )
    made = load_detector(model, encoder=options.encoder_given(encoder), engine=engine)
    return (made if labels is None else made.for_classes(label_names(labels))).keeping(**given)


def _print(found: Detections) -> None:
    from collections import Counter

    counts = Counter(d.label for d in found.found)
    said = ", ".join(f"{n} {label}" for label, n in counts.most_common())
    say(f"{printable(found.image)}\t{printable(said) or 'nothing found'}{not_found(found.not_found)}")
