"""A linear layer on the few sentences that stand out most on a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from ..storage.tensors import rebuilt, tensors_of
from .sparse_concepts import strongest
from .word_decision import WordDecision


@dataclass(frozen=True)
class KeptConcepts(WordDecision):
    """``logits = W · a + b``, ``a`` the cosines in standard units, 0 but for the ``kept`` largest in size.

    Attributes:
        texts: of each row of the head.
        mean: cosine of each on the pictures that were learnt from.
        spread: its standard deviation there.
        layer: ``W``.
        offset: ``b``.
        kept: concepts of each picture.
    """

    name = "sparse_concepts"

    texts: tuple[str, ...]
    mean: Float[Tensor, " m"]
    spread: Float[Tensor, " m"]
    layer: Float[Tensor, "k m"]
    offset: Float[Tensor, " k"]
    kept: int

    def __post_init__(self) -> None:
        if not 1 <= self.kept <= len(self.texts):
            raise InputError(
                f"{self.kept} concepts are to be kept of {len(self.texts)}. From 1 to all of them were expected. Give "
                f"more texts, or --set kept={max(1, len(self.texts) // 10)}."
            )

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        return len(self.layer)

    def which(self, scores: Float[Tensor, "b m"]) -> Bool[Tensor, "b m"]:
        """The concepts that each picture keeps."""
        return strongest(self._units(scores), self.kept)

    def values(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        """Cosines in standard units, 0 where they are not kept."""
        units = self._units(scores)
        return units * strongest(units, self.kept)

    def _units(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        return (scores - self.mean) / self.spread

    def __call__(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b k"]:
        return self.values(scores) @ self.layer.T + self.offset

    @property
    def n_out(self) -> int:
        """How many are taken out to see what they matter: a third of those kept."""
        return max(1, self.kept // 3)

    def without(
        self, scores: Float[Tensor, "b m"], *, at_random: bool = False
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Logits as they are, and without the kept concepts that add most to the first class's lead over the second."""
        values = self.values(scores)
        logits = values @ self.layer.T + self.offset
        first, second = logits.topk(2, dim=1).indices.T
        worth = values * (self.layer[first] - self.layer[second])
        if at_random:
            worth = torch.rand(worth.shape, generator=torch.Generator().manual_seed(0))
        out = torch.where(values != 0, worth, -torch.inf).topk(self.n_out, dim=1).indices
        return logits, values.scatter(1, out, 0.0) @ self.layer.T + self.offset

    def by_words(self, scores: Float[Tensor, "b m"]) -> Int[Tensor, " b"]:
        return self(scores).argmax(1)

    def facts(self) -> dict[str, Any]:
        return {"texts": list(self.texts), "kept": self.kept}

    def tensors(self) -> dict[str, Tensor]:
        return tensors_of(self)

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Float[Tensor, "r d"]) -> Self:
        texts = tuple(map(str, facts["texts"]))
        found = rebuilt(cls, tensors, sizes={"m": len(texts)}, texts=texts, kept=int(facts["kept"]))
        if len(weight) != len(texts):
            raise ValueError(f"{len(weight)} rows for {len(texts)} texts")
        if not bool((found.spread > 0).all()):
            raise ValueError("a concept that never changes")
        return found
