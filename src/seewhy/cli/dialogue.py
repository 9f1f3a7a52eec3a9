"""``seewhy dialogue``: two perceivers talk about a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import EncoderName, EngineName, Force, Json, Quiet, encoder_given, output
from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy dialogue mine yours digit.png -o dialogue.html\n
  seewhy dialogue mine yours digit.png --turns 100 --json
"""


def dialogue(
    first: Annotated[
        Path, typer.Argument(help="A saved perceiver: seewhy fit DATA --method perceptual.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    picture: Annotated[str, typer.Argument(help="What they talk about.", show_default=False)],
    output: Annotated[Path | None, output("A page (.html) or .json.")] = None,
    encoder: EncoderName = "lite0",
    engine: EngineName = "auto",
    turns: Annotated[int, typer.Option(min=2, help="Turns of each.")] = 50,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let two perceivers observe, in turn, what the other has just seen."""
    from ..classifiers.saving import load
    from ..report.paging import check_ending
    from ..studies.dialogue import talk

    if output is not None:
        check_ending(output, force=force)
    one, other = (load(path, engine=engine, encoder=encoder_given(encoder)) for path in (first, second))
    found = talk(one, other, picture, turns)
    if output is not None:
        found.save(output, force=force)
    if as_json:
        say(json.dumps(found.data, ensure_ascii=False))
        return
    say(found.sentence)
    if quiet:
        return
    for name in ("first", "second"):
        near = found.data[name]["nearest"]
        say(f"the {name} sees {found.data[name]['label']}; nearest memorised: {near['image']} ({near['label']})")
    if output is not None:
        say(f"page: {output}")
