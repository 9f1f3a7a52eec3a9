"""Prototypes: patches of the user's pictures that are similar to a region of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import Registry
from .base import Prototypes

if TYPE_CHECKING:
    from .characteristics import Characteristics

prototypes: Registry[Prototypes] = Registry(
    "prototype", __name__, ("seewhy.prototypes.epic.method", "nearest", "voters")
)
reasons: Registry[Characteristics] = Registry("reason", __name__, ("characteristics",))

__all__ = ["Prototypes", "prototypes", "reasons"]
