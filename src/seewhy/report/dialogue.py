"""A talk of two perceivers as one page: what each saw in turn, and whether it came to rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .page import layer_uri, render


def render_dialogue(talk: dict[str, Any], pictures: Mapping[int, np.ndarray], sentence: str) -> str:
    """The talk as one self-contained page."""
    last = max(pictures)
    strip = [
        {"uri": layer_uri(picture), "turn": turn, "who": _who(turn), "is_last": turn >= last - 1}
        for turn, picture in sorted(pictures.items())
    ]
    top = max(talk["moves"], default=0.0) or 1.0
    width = 100 / max(len(talk["moves"]) - 1, 1)
    points = " ".join(f"{i * width:.2f},{60 - 60 * m / top:.2f}" for i, m in enumerate(talk["moves"]))
    name = Path(talk["image"]).name
    return render(
        "dialogue.html", None, **talk | {"name": name, "strip": strip, "points": points, "top": top, "said": sentence}
    )


def _who(turn: int) -> str:
    """Who saw it.

    >>> _who(0), _who(1), _who(2)
    ('said first', 'first', 'second')
    """
    return "said first" if turn == 0 else "first" if turn % 2 else "second"
