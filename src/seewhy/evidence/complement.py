"""What a counterfactual map speaks for: anything but the class, whose probability is one less the class's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .sentences import Sentences


@dataclass(frozen=True)
class Complement:
    """Stands where a classifier stands, so that maps of what speaks *against* a class are measured and named as such.

    Attributes:
        of: what is spoken against.
    """

    of: Classifier | Sentences

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"anything but {name}" for name in self.of.classes)

    def probabilities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Of anything else than each class; for a sentence, one less its cosine."""
        return 1 - self.of.probabilities(pixels)
