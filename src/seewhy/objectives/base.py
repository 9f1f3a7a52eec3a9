"""The base of every objective: it checks what it is given; the method writes the mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError


class Objective(ABC):
    """A frozen dataclass whose fields are the paper's parameters.

    Class attributes:
        name: registered name, the file's stem.
        paper: where it is from.
        needs: what a batch must hold.
        cost: in forward passes a sample, beside those of the network that is trained.
        small: settings with which it takes a moment, for tests and trials: ``cls(**cls.small)``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str] = "0"
    small: ClassVar[Mapping[str, Any]] = {}


class Alignment(Objective):
    """Brings each picture's vector near that of its own text."""

    def __call__(
        self,
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """The number to make small, checked.

        Args:
            image: one row a pair; of any length, only directions count.
            text: one row a pair; of any length, only directions count.
            labels: class of each pair, for forms that treat pairs of one class apart.

        Raises:
            InputError: there are no pairs, or not as many rows of one kind as of the other, or of other widths.
        """
        if image.shape != text.shape or not len(image) or (labels is not None and len(labels) != len(image)):
            given = f"{tuple(image.shape)}, {tuple(text.shape)}" + (f", {len(labels)}" if labels is not None else "")
            raise InputError(
                f"{self.name} was given pictures, texts and labels of the shapes {given}. One row of each a pair, as "
                "wide as one another, was expected. Give a batch of pairs."
            )
        return self.loss(image, text, labels)

    @abstractmethod
    def loss(
        self,
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"] | None,
    ) -> Float[Tensor, ""]:
        """The number to make small."""
