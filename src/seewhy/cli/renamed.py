"""Commands and options of earlier versions, which still work with a warning."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import InputError
from .terminal import say

GOES = "0.4"
"""Version in which they are removed."""
LONGEST = 60
"""Maximum characters of a word in a message."""
TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
OPTIONS: dict[str, str] = {"--" + name.replace("_", "-"): f"--set {name}=" for name in TABLE["settings"].split()}
OPTIONS |= TABLE["options"]


def todays(args: list[str]) -> list[str]:
    """Convert a command line of an earlier version to the current form; arguments after ``--`` are unchanged.

    >>> todays(["search", "library", "--image", "a.jpg"])
    ['search', 'library', '--image', 'a.jpg']
    """
    n = 2 if args[:1] and args[0] in ("study", "describe", "pairs") else 1
    verb, rest = " ".join(args[:n]), args[n:]
    if verb in entry_points(group="seewhy.verbs").names:
        return args
    if verb in TABLE["left"]:
        raise InputError(
            f"seewhy {verb} is no longer a command. Run reproductions/{TABLE['left'][verb]} from the repository."
        )
    old, end = TABLE["verbs"].get(verb, {}), rest.index("--") if "--" in rest else len(rest)
    words = _moved(old, rest[:end])
    add = [] if {*old.get("unless", ())} & {*words} else old.get("add", "").split()
    renamed = _renamed({**OPTIONS, **old.get("options", {})}, words)
    new = [*old.get("to", verb).split(), *renamed, *add, *rest[end:]]
    if new != args and not {"-q", "--quiet"} & {*args}:
        shown = (word if len(word) <= LONGEST else f"{word[:LONGEST]}…" for word in new)
        say(
            f"seewhy: the new form of this command is: seewhy {shlex.join(shown)} (the old form will be removed in "
            f"{GOES})",
            file=sys.stderr,
        )
    return new


def _moved(old: Mapping[str, Any], words: list[str]) -> list[str]:
    """Insert the options that a renamed command requires before its positional arguments."""
    option, left = old.get("first") or old.get("each"), 1 if "first" in old else len(words)
    if option is None:
        return words
    moved, value = [], False
    for word in words:
        if word.startswith("-") and word != "-":
            value = word not in TABLE["flags"] and "=" not in word
        elif value:
            value = False
        elif left:
            left -= 1
            moved.append(option)
        moved.append(word)
    return moved


def _renamed(options: Mapping[str, str], words: Sequence[str]) -> Iterator[str]:
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if word in TABLE["turned"]:
            yield from TABLE["turned"][word].split()
        elif name in options:
            *before, last = options[name].split() or [""]
            given = value if equals else next(left, "")
            yield from before
            yield from [f"{last}{given}"] if last.endswith("=") else [*([last] if last else []), given]
        else:
            yield word
