"""``seewhy segment``: what is where, by words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..printable import printable
from . import options
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..dense import Segmentation

EXAMPLES = """
Examples:\n
  seewhy segment street.jpg --labels "road, car, tree" -o seg/\n
  seewhy segment photos/ --labels "leaf, lesion, background" --json > segments.jsonl\n
  seewhy segment new/ -m seg -o found/\n
  seewhy segment aerial.tif --labels "roof, road, water" --zoom 8 -o seg/\n
  seewhy segment photo.jpg --labels "cat, grass" --denoise 0.5 --smooth 0.9 -o seg/\n
  seewhy segment photo.jpg --labels "cat, grass" --segmenter clipseg:/models/clipseg -o seg/
"""
Presence = Annotated[
    float | None,
    typer.Option(
        "--least-presence",
        min=0,
        help="How far a name must stand out among others in a picture to be found. Left out, 3.3; 0 finds every name.",
        show_default=False,
    ),
]
MOST_SAID = 10
"""Names not found that are said of one picture."""


def segment(
    pictures: options.Pictures,
    model: Annotated[str | None, options.saved("A segmenter of fit-segmenter, in the place of --labels.")] = None,
    labels: options.Names = None,
    segmenter: Annotated[
        str, typer.Option("--segmenter", help="maskclip; with a folder of weights clipseg:PATH.")
    ] = "maskclip",
    encoder: options.EncoderName = "lite0",
    focus: options.Focus = None,
    engine: options.EngineName = "auto",
    zoom: Annotated[
        float | None,
        typer.Option(
            help="The short side of a picture, in inputs of the encoder; above 2 it is cut into tiles. Left out, 2.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="A sentence with {} for the class's name; again for more.", show_default=False),
    ] = None,
    centred: Annotated[
        float, typer.Option("--centre", help="Part of a class's mean over the picture that is taken off its scores.")
    ] = 0.5,
    denoise: Annotated[
        float, typer.Option(help="Least probability that some place must give a class; below, it is not there.")
    ] = 0.0,
    smooth: Annotated[
        float, typer.Option(help="Places less sure than this take the answers of places like them.")
    ] = 0.0,
    normalised: Annotated[
        str, typer.Option(help="What likeness of places is: channels (cosines, the paper) or positions (its code).")
    ] = "channels",
    least: Annotated[float, typer.Option(help="Probability below which a pixel is given no name.")] = 0.0,
    least_presence: Presence = None,
    output: Annotated[
        Path | None, options.output("A folder for masks (.png), segments.json (COCO) and a page.")
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """Say of every pixel which of the names it shows, or none; by words, or as a segmenter was trained."""
    from ..dense.by_words import segmenter_for
    from ..dense.regions import SegmentFolder
    from ..dense.saving import load_segmenter
    from ..errors import InputError

    terminal = Terminal(quiet)
    if model is not None:
        if labels is not None:
            raise InputError("--model and --labels were both given. A saved segmenter has its own classes: drop one.")
        built: Any = load_segmenter(model, encoder=options.encoder_given(encoder), engine=engine)
    elif labels is None:
        raise InputError(
            'No names were given. What may be in the pictures was expected. Add --labels "road, car, tree".'
        )
    else:
        said: dict[str, Any] = {"zoom": zoom, "templates": tuple(template or ()) or None, "least": least or None}
        said |= {"centred": None if centred == 0.5 else centred, "denoised": denoise or None}
        said |= {"smoothed": smooth or None, "normalised": None if normalised == "channels" else normalised}
        said |= {"least_presence": least_presence}
        given = {name: value for name, value in said.items() if value is not None}
        looks = options.focused(encoder, focus)
        names = label_names(labels)
        built = segmenter_for(segmenter, names, looks, engine=engine, store=options.open_store(store), **given)
    folder = None if output is None else SegmentFolder(output, built.classes, force=force)
    done = 0
    stream = built.segment_all(options.picture_names(pictures, output))
    for found in terminal.readable(stream, "Segmenting", as_json):
        done += 1
        mask = None if folder is None else folder.add(found)
        if as_json:
            say(json.dumps({**found.to_json(), "mask": None if mask is None else str(mask)}, ensure_ascii=False))
        else:
            _print(found)
    if folder is not None and done:
        page = folder.finish()
        if not as_json:
            say(f"page: {page}")
    raise typer.Exit(terminal.exit_code(done))


def label_names(labels: str) -> list[str]:
    """Names separated by commas, or one per line of a .txt."""
    return options.lines_of(Path(labels), "class") if labels.lower().endswith(".txt") else labels.split(",")


def _print(found: Segmentation) -> None:
    shares = [f"{s.label} {s.share:.0%}" for s in found.segments]
    if found.unnamed and shares:
        shares.append(f"none of these {found.unnamed:.0%}")
    said = printable(", ".join(shares)) or "nothing found"
    say(f"{printable(found.image)}\t{said}{not_found(found.not_found)}")


def not_found(names: Sequence[str]) -> str:
    """What is said after what was found.

    Example:
        >>> not_found(["sports car", "bus"]), not_found([])
        ('; not found: sports car, bus', '')
    """
    from ..pictures.samples import some

    return f"; not found: {printable(some(names, MOST_SAID))}" if names else ""
