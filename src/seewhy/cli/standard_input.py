"""Standard input is read by SeeWhy alone: file names come from it, and no library may take one for an answer."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_own: list[TextIO] = []


def take_standard_input() -> None:
    """Keep a copy for :func:`standard_input`; whatever else asks there, in Python or below it, finds nothing."""
    try:
        number = sys.stdin.fileno()
        copy = os.dup(number)
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return
    _own[:] = [os.fdopen(copy, encoding=sys.stdin.encoding, errors="surrogateescape")]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, number)
    os.close(nothing)


def standard_input() -> TextIO:
    """What the person's lines are read from."""
    return _own[0] if _own else sys.stdin
