"""Which way of finding likenesses a classifier offers, and the bank it searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from . import prototypes
from .bank import Patches
from .base import Prototypes


def find_prototypes(
    model: Any, name: str | None = None, place: str | Path | None = None, *, of_place: bool = False
) -> tuple[Prototypes, Patches] | None:
    """The method and its bank; ``None`` where the classifier has neither."""
    if name is not None:
        return _named(prototypes[name], model, place)
    for method in by_priority(fitted=place is not None):
        if of_place and not method.of_places:
            continue
        bank = method.bank_for(model, place)
        if bank is not None:
            return method(), bank
    if place is not None:
        raise InputError(
            f"There are no prototypes at {place}. Make them with: seewhy fit --task prototypes DATA -o {place}"
        )
    return None


def by_priority(fitted: bool = False) -> list[type[Prototypes]]:
    """The methods that are taken without being named, those alone that are fitted where this is wanted."""
    taken = [m for m in map(prototypes.__getitem__, prototypes) if m.priority and (m.fitted_by or not fitted)]
    return sorted(taken, key=lambda method: -method.priority)


def _named(method: type[Prototypes], model: Any, place: str | Path | None) -> tuple[Prototypes, Patches] | None:
    name = method.name
    if place is not None and not method.fitted_by:
        able = " or ".join(f"--like {known}" for known in prototypes if prototypes[known].fitted_by)
        raise InputError(f"{name} needs no prototypes, and {str(place)!r} was given. Use {able}, or drop it.")
    bank = method.bank_for(model, place)
    if bank is not None:
        return method(), bank
    if method.fitted_by and place is not None:
        raise InputError(
            f"There are no prototypes at {place}. Make them with: seewhy fit --task prototypes DATA "
            f"{_by(method)}-o {place}"
        )
    if method.fitted_by:
        raise InputError(
            f"{method.spelt or name} needs prototypes, and this classifier has none. Make them with: "
            f"seewhy fit --task prototypes DATA {_by(method)}"
            f"{'' if model.folder is None else f'-m {model.folder}'}".rstrip()
        )
    if method.recipe not in ("", model.recipe):
        raise InputError(
            f"{name} shows {method.shows}, and this classifier has none. Make one with: seewhy fit DATA --method "
            f"{method.recipe}"
        )
    return None


def _by(method: type[Prototypes]) -> str:
    """What ``fit --task prototypes`` must be told to make them; nothing where it is what it makes by itself."""
    return "" if method is by_priority(fitted=True)[0] else f"--method {method.name} "


def files_of(model: Any, name: str | None = None, place: str | Path | None = None) -> list[Path]:
    """The files that what is shown is read from: of one method, or of all that might be taken."""
    asked = by_priority() if name is None else [prototypes[name]]
    found = (method.file_for(model, place) for method in asked if method.fitted_by)
    return [path for path in found if path is not None]
