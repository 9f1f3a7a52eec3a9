"""What stands between similarities with sentences and logits, where it is more than their mean, and can be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from jaxtyping import Float, Int
from torch import Tensor


class WordDecision(ABC):
    """Decides by sentences.

    Class attributes:
        name: of the recipe that makes it.

    Attributes:
        n_classes: how many there are.
    """

    name: ClassVar[str]
    n_classes: int

    @property
    def least_rows(self) -> int:
        """How many rows a head must have for it."""
        return 1

    @abstractmethod
    def __call__(self, scores: Float[Tensor, "b r"]) -> Float[Tensor, "b c"]:
        """Logits of the classes."""

    @abstractmethod
    def by_words(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, " b"]:
        """The class that the sentences choose without the classes' own."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What beside tensors is needed to build it again, as JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors beside the head's rows that are needed to build it again."""

    @classmethod
    @abstractmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Float[Tensor, "r d"]) -> Self:
        """Build it again."""
