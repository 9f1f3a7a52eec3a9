"""Selection of the prototype method and the bank of a classifier."""

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
    """Return the prototype method and its patch bank, or ``None`` if the classifier has no bank."""
    fitted = by_priority(fitted=True)
    methods = [prototypes[name]] if name is not None else by_priority() if place is None else fitted
    method = methods[0]
    if name is not None and place is not None and not method.fitted_by:
        able = " or ".join(f"--like {known}" for known in prototypes if prototypes[known].fitted_by)
        raise InputError(f"{name} takes no file of prototypes, got {str(place)!r}. Use {able}, or leave it out.")
    for one in methods:
        if (name is not None or one.of_places or not of_place) and (bank := one.bank_for(model, place)) is not None:
            return one(), bank
    make = "Make them with: seewhy fit --task prototypes DATA "
    make += "" if name is None or method is fitted[0] else f"--method {name} "
    if place is not None:
        raise InputError(f"There are no prototypes at {place}. {make}-o {place}")
    if name is not None and method.fitted_by:
        where = "" if model.folder is None else f"-m {model.folder}"
        needs = f"{method.spelt or name} needs prototypes, and this classifier has none."
        raise InputError(f"{needs} {make}{where}".rstrip())
    if name is not None and method.recipe not in ("", model.recipe):
        raise InputError(
            f"{name} needs {method.shows}, and this classifier has none. Train one with: seewhy fit DATA --method "
            f"{method.recipe}"
        )
    return None


def by_priority(fitted: bool = False) -> list[type[Prototypes]]:
    """Return the methods to try if the user names none, by priority; with ``fitted``, only those with a fitted bank."""
    taken = [m for m in map(prototypes.__getitem__, prototypes) if m.priority and (m.fitted_by or not fitted)]
    return sorted(taken, key=lambda method: -method.priority)


def files_of(model: Any, name: str | None = None, place: str | Path | None = None) -> list[Path]:
    """Return the files with fitted prototypes that the given method reads; default: those of all methods."""
    asked = by_priority() if name is None else [prototypes[name]]
    found = (method.file_for(model, place) for method in asked if method.fitted_by)
    return [path for path in found if path is not None]
