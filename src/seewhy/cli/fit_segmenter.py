"""``seewhy fit-segmenter``: the user's masks become a segmenter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .method_options import Set
from .options import EncoderName, EngineName, Json, Names, Quiet, method, output
from .segment import label_names
from .terminal import Terminal, say

EXAMPLES = """
Examples:\n
  seewhy fit-segmenter streets/ -o seg\n
  seewhy fit-segmenter streets/ -o seg --method denseclip --set n_steps=800\n
  seewhy segment new/ -m seg -o found/
"""


def fit_segmenter(
    data: Annotated[
        Path, typer.Argument(help="Masks: images/ and labels/ with classes.txt, or COCO's JSON.", show_default=False)
    ],
    output: Annotated[Path, output("The segmenter's folder.")],
    method: Annotated[str, method("linear: a probe of each cell; denseclip: a decoder that reads words.")] = "linear",
    setting: Set = None,
    labels: Names = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help="A value of masks that counts for nothing. Left out, 255.", show_default=False),
    ] = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a segmenter on pictures with masks. Run again, it goes on where it was stopped."""
    from ..attributions.settings import configured
    from ..dense import segmenters
    from ..dense.saving import SEGMENTERS, save_segmenter
    from ..encoders.find import encoder as find
    from ..errors import InputError
    from ..pictures.pixel_classes import load_masks
    from ..storage.marks import CHECKPOINT
    from ..storage.output import make_folder, remove
    from .method_options import settings

    terminal = Terminal(quiet)
    SEGMENTERS.archive.check(output)
    found: Any = segmenters[method]
    if not hasattr(found, "fit"):
        able = ", ".join(n for n in segmenters if hasattr(segmenters[n], "fit"))
        raise InputError(f"{method} is not trained. One of {able} was expected. Use it with segment --labels.")
    how: Any = configured(cast(Any, found), cast(Any, settings(setting)))
    names = None if labels is None else [n for n in map(str.strip, label_names(labels)) if n]
    given = load_masks(data, classes=names, ignore=[255] if ignore is None else list(ignore))
    for note in given.notes:
        terminal.note(note)
    make_folder(output.parent)
    checkpoint = output.parent / f".{output.name}.checkpoint"
    keeps = {"checkpoint": checkpoint} if "checkpoint" in found.fit.__annotations__ else {}
    made = how.fit(find(encoder, engine=engine), given, progress=terminal, **keeps)
    save_segmenter(made, output)
    remove(checkpoint, CHECKPOINT)
    if as_json:
        about = {"model": str(output), "method": method, "classes": list(made.classes), "trained_on": made.trained_on}
        say(json.dumps({**about, "failures": [f.to_json() for f in terminal.failures]}, ensure_ascii=False))
    else:
        say(f"{output}: {len(made.classes)} classes, {made.trained_on}")
    raise typer.Exit(terminal.exit_code(len(given) - len(terminal.failures)))
