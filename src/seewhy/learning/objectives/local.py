"""The base of objectives that compare the words of texts with the regions of pictures."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...errors import InputError
from .base import Objective
from .contrastive import Contrastive


class Local(Objective):
    """Brings words near the regions that they name, without anybody having drawn a box.

    Class attributes:
        across: whether pictures are compared with the words of others too.
    """

    across: ClassVar[bool] = True

    @abstractmethod
    def state(self) -> nn.Module:
        """What is learnt of the objective itself, new."""

    def __call__(
        self,
        regions: Float[Tensor, "b r d"],
        words: Float[Tensor, "b t d"],
        said: Bool[Tensor, "b t"] | None = None,
        state: nn.Module | None = None,
    ) -> Float[Tensor, ""]:
        """The number to make small, checked.

        Args:
            regions: of each picture, its map's cells in a row.
            words: of each picture's text; sub-captions are words here too.
            said: which of them are words and not what fills up the length; left out, all.
            state: what :meth:`state` made; left out, as it is at first.

        Raises:
            InputError: there are no pairs, or as many of one kind and not of the other, other widths, or an empty text.
        """
        filled = words.new_ones(words.shape[:2]).bool() if said is None else said
        fits = len(regions) == len(words) and regions.shape[2] == words.shape[2] and filled.shape == words.shape[:2]
        if not fits or not regions.shape[1] or not len(words) or not filled.any(1).all():
            raise InputError(
                f"{self.name} was given regions, words and which of them are said of the shapes "
                f"{tuple(regions.shape)}, {tuple(words.shape)}, {tuple(filled.shape)}. Some regions and at least one "
                "word for each picture, as wide as one another, were expected. Give a batch of pairs, none of them "
                "empty."
            )
        new = self.state().to(words.device).requires_grad_(False) if state is None else state
        return self.loss(regions, words, filled, new)

    @abstractmethod
    def loss(
        self,
        regions: Float[Tensor, "b r d"],
        words: Float[Tensor, "b t d"],
        said: Bool[Tensor, "b t"],
        state: nn.Module,
    ) -> Float[Tensor, ""]:
        """The number to make small."""


class Regional(Contrastive):
    """Compares whole pictures with whole texts, and besides parts of the one with parts of the other.

    Called, it gives the number of the whole; :meth:`local` gives the objective of the parts, which is called with the
    same state and counts ``local_weight`` times. Who has no regions can use the first alone.

    Class attributes:
        parts: of texts: their ``"words"``, or the ``"texts"`` themselves where a picture has several.
        local_weight: of the objective of the parts.
    """

    parts: ClassVar[Literal["words", "texts"]]
    local_weight: float

    @abstractmethod
    def local(self) -> Local:
        """The objective of the parts."""
