"""From an objective's name to the way in which it teaches: from pairs, columns or pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .adapt import Adapt
from .from_columns import FromColumns
from .instructed import ByInstructions
from .prefixed import ByClassesAndCaptions
from .pretrain import Pretrain, is_of_pictures
from .way import Way, refuse

FROM_COLUMNS: tuple[type[FromColumns], ...] = (ByInstructions, ByClassesAndCaptions)


def way_of(
    objective: str,
    settings: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    all_of_it: bool = False,
    spelt: Callable[[str], str] = str,
) -> Way[Any, Any]:
    """How an encoder is taught by an objective, with as much as can be trained and kept where ``all_of_it``.

    Example:
        >>> way_of("siglip", {"keep": 0.3}, {}).keep, type(way_of("prefix", {}, {"label": "kind"})).__name__
        (0.3, 'ByClassesAndCaptions')
    """
    usual: type[Way[Any, Any]] = Pretrain if all_of_it and is_of_pictures(objective) else Adapt
    found = {one.objective.name: one for one in FROM_COLUMNS}.get(objective, usual)
    refuse(objective, [name for name in settings if name not in found.takes()], spelt)
    refuse(objective, [name for name in columns if name not in found.columns], spelt)
    return found.of(objective, {**(found.all_of_it if all_of_it else {}), **settings}, columns)
