"""The settings of ``--set`` for each command, which ``settings.toml`` lists.

``make docs`` writes ``settings.json`` from this table, so that ``--help-all`` needs no imports.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from ..bounds import Count

KINDS: dict[str, Any] = {str(kind): kind for kind in (int | None, float | None, str | None, tuple[int, ...])}
KINDS |= {"Path | None": Path | None, "Count": Count}


class Own(NamedTuple):
    """A setting that is not a field of a class."""

    preset: Any
    help: str
    kind: Any


def _own(preset: Any, meaning: str, kind: str = "") -> Own:
    value = None if preset == "none" else tuple(preset) if isinstance(preset, list) else preset
    return Own(value, meaning, KINDS[kind] if kind else type(value))


def _read() -> dict[str, tuple[str | dict[str, Own], ...]]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    own = {verb: {n: _own(*row) for n, row in rows.items() if n != "of"} for verb, rows in table.items()}
    return {verb: (*rows.get("of", ()), *([own[verb]] if own[verb] else [])) for verb, rows in table.items()}


SETTINGS = _read()
"""Classes by their full names, and other settings, for each command. ``seewhy methods`` shows the settings of a
method."""
