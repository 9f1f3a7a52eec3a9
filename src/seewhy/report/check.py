"""Pictures that are wrong, as one page: each with its reason and with the pictures that it is like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from .page import photo_uri, render

SHOWN = 200
"""Findings of a kind that are on the page; the others are in the JSON and the table."""
SIDE = 128


def render_check(check: dict[str, Any], kinds: Mapping[str, str], read: Callable[[str], np.ndarray | None]) -> str:
    """The check as one self-contained page; what is given is as for :func:`check_context`."""
    return render("check.html", None, **check_context(check, kinds, read))


def check_context(
    check: dict[str, Any], kinds: Mapping[str, str], read: Callable[[str], np.ndarray | None]
) -> dict[str, Any]:
    """What the page shows."""

    @cache
    def uri(name: str) -> str | None:
        pixels = read(name)
        if pixels is None:
            return None
        small = Image.fromarray(pixels)
        small.thumbnail((SIDE, SIDE))
        return photo_uri(np.asarray(small), 75)

    parts = []
    for kind, name in kinds.items():
        found = [f for f in check["findings"] if f["kind"] == kind]
        if found:
            parts.append({"kind": kind, "name": name, "n": len(found), "findings": found[:SHOWN]})
    return {**check, "parts": parts, "uri": uri}
