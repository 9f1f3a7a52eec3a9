"""What each number on a card or report means; the numbers lead here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Term(NamedTuple):
    """One definition; its anchor is ``#def-<key>``."""

    key: str
    name: str
    text: str


@cache
def terms() -> tuple[Term, ...]:
    """All of them."""
    text = files(__package__).joinpath("templates/glossary.toml").read_text("utf-8")
    return tuple(Term(key, term["name"], term["text"]) for key, term in tomllib.loads(text).items())


def terms_of(keys: Iterable[str]) -> tuple[Term, ...]:
    """Those of these keys, in the glossary's order."""
    wanted = set(keys)
    return tuple(term for term in terms() if term.key in wanted)
