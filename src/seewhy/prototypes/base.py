"""What every way of finding likenesses answers: patches of the bank for regions of a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from .bank import PatchBank


@dataclass(frozen=True)
class Match:
    """A patch of the bank and its likeness to a region, -1…1."""

    patch: int
    similarity: float


class Prototypes(ABC):
    """A frozen dataclass whose fields are the method's parameters.

    Class attributes:
        name: registered name, the file's stem.
        paper: where it is from.
        needs: what it asks of the classifier.
        cost: in forward passes, beside the one that predicts.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str]
    stochastic: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self,
        bank: PatchBank,
        grid: Float[Tensor, "c h w"],
        pooled: Float[Tensor, " d"],
        cells: Sequence[tuple[int, int]],
        digest: str = "",
    ) -> list[list[Match]]:
        """Matches for each cell, nearest first.

        Args:
            bank: where to search.
            grid: the query's feature map.
            pooled: the query's pooled vector.
            cells: the regions, as (row, column).
            digest: the query's digest, so that its own copy in the bank is never shown.
        """
