"""The base of objectives that learn from classes by comparing pictures with one another."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from .base import Objective


class Supervised(Objective):
    """Brings pictures of a class together, as vectors, without a layer of scores."""

    def __call__(self, vectors: Float[Tensor, "b v d"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The number to make small, checked.

        Args:
            vectors: of each picture's views; of any length, only directions count.
            labels: class of each picture.

        Raises:
            InputError: there is nothing to compare with, or not a label for each picture.
        """
        if len(labels) != len(vectors) or vectors.shape[0] * vectors.shape[1] < 2:
            raise InputError(
                f"{self.name} was given vectors of the shape {tuple(vectors.shape)} and {len(labels)} labels. At least "
                "two views in all, and a label for each picture, were expected. Give a larger batch."
            )
        return self.loss(vectors, labels)

    @abstractmethod
    def loss(self, vectors: Float[Tensor, "b v d"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The number to make small."""
