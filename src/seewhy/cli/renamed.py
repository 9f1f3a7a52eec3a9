"""Options that were called otherwise: the old name still works, with a line on standard error that says the new one."""

from __future__ import annotations

import sys

from .terminal import say

GOES = "0.4"
"""The version without them: two minor versions after the one that renamed them."""
RENAMED = {
    "explain": {"--held-out": "--validation"},
    "predict": {"--held-out": "--validation"},
    "search": {"--like": "--image"},
    "index": {"--remove": "--forget", "--remove-missing": "--forget-missing"},
    "app": {"--group": "--by"},
    "faithfulness": {"--n": "--n-pictures"},
    "classes": {"--n": "--n-texts"},
    "pairs": {"--n": "--n-texts"},
    "match": {"--top": "--n-texts"},
}
"""Verb → old name → new name."""


def with_new_names(verb: str, arguments: list[str]) -> list[str]:
    """What was typed, in today's names; what follows ``--`` are names of files.

    >>> with_new_names("search", ["library", "--image", "a.jpg"])
    ['library', '--image', 'a.jpg']
    """
    names = RENAMED.get(verb, {})
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = []
    for argument in arguments[:end]:
        old, equals, value = argument.partition("=")
        if old in names:
            say(f"seewhy: {old} is now {names[old]}; the old name goes in version {GOES}", file=sys.stderr)
        found.append(names.get(old, old) + equals + value)
    return found + arguments[end:]
