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

AUTO, BEST = "auto", ("denseclip", "linear")
"""The first of these that the encoder can: on street scenes the decoder was 8.5 points of mIoU above the probe."""
EXAMPLES = """
Examples:\n
  seewhy fit-segmenter streets/ -o seg\n
  seewhy fit-segmenter streets/ -o seg --method linear\n
  seewhy segment new/ -m seg -o found/
"""


def fit_segmenter(
    data: Annotated[
        Path, typer.Argument(help="Masks: images/ and labels/ with classes.txt, or COCO's JSON.", show_default=False)
    ],
    output: Annotated[Path, output("The segmenter's folder.")],
    method: Annotated[
        str, method("denseclip: a decoder; linear: a probe of each cell. auto: as the encoder can.")
    ] = AUTO,
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
    from ..dense import segmenters
    from ..dense.saving import SEGMENTERS, save_segmenter
    from ..encoders.find import encoder as find
    from ..errors import InputError
    from ..parameters import configured
    from ..pictures.pixel_classes import load_masks
    from ..storage.marks import CHECKPOINT
    from ..storage.output import make_folder, remove
    from .method_options import settings

    terminal = Terminal(quiet)
    SEGMENTERS.archive.check(output)
    looks = find(encoder, engine=engine)
    if method == AUTO:
        method = next(name for name in BEST if looks.has_text or not getattr(segmenters[name], "needs_words", False))
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
    made = how.fit(looks, given, progress=terminal, **keeps)
    save_segmenter(made, output)
    remove(checkpoint, CHECKPOINT)
    if as_json:
        about = {"model": str(output), "method": method, "classes": list(made.classes), "trained_on": made.trained_on}
        say(json.dumps({**about, "failures": [f.to_json() for f in terminal.failures]}, ensure_ascii=False))
    else:
        say(f"{output}: {len(made.classes)} classes, {made.trained_on}")
    raise typer.Exit(terminal.exit_code(len(given) - len(terminal.failures)))
