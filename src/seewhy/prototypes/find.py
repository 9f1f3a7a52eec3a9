"""Which way of finding likenesses a classifier offers, and the bank it searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..heads.votes import Votes
from . import prototypes
from .bank import Patches
from .base import Prototypes
from .epic.bank import bank_of

STRANGE = {
    "protopnet": "protopnet shows the prototypes of a ProtoPNet, and this classifier is none. Make one with: "
    "seewhy fit DATA --method protopnet",
    "voters": "voters shows the pictures that voted, and in this classifier none do. Make one with: "
    "seewhy fit DATA --method neighbours",
}
"""Why a method cannot be had of any other classifier than its own."""


def own_method(model: Any) -> str:
    """The way of finding likenesses that a classifier brings with it."""
    if model.network is not None and model.network.where == "protopnet":
        return "protopnet"
    return "voters" if isinstance(model.head.votes, Votes) else "nearest"


def find_prototypes(
    model: Any, name: str | None = None, place: str | Path | None = None
) -> tuple[Prototypes, Patches] | None:
    """The method and its bank; ``None`` where the classifier has neither.

    Args:
        model: a classifier.
        name: registered; left out, EPIC where prototypes were fitted for this classifier, else the prototypes of a
            ProtoPNet, else the pictures that voted, else nearest patches.
        place: where EPIC's prototypes lie; left out, the classifier's own folder.

    Raises:
        UnknownNameError: there is no such method.
        InputError: the method asked for has nothing to search, or its prototypes were made for another classifier.
    """
    if name is not None:
        prototypes[name]
    if name not in (None, "epic") and place is not None:
        raise InputError(f"{name} needs no prototypes, and {str(place)!r} was given. Use --like epic, or drop it.")
    own = own_method(model)
    if name in STRANGE and own != name:
        raise InputError(STRANGE[name])
    bank: Patches | None = bank_of(model, place) if name in (None, "epic") else None
    if bank is not None:
        return prototypes["epic"](), bank
    if name == "epic":
        raise InputError(
            "EPIC needs prototypes, and this classifier has none. Make them with: seewhy fit-prototypes DATA"
            + ("" if model.folder is None else f" -m {model.folder}")
        )
    return None if model.bank is None else (prototypes[own if name is None else name](), model.bank)
