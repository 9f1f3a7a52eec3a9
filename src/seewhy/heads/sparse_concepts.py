"""Similarities with concepts, of which each picture keeps a few (IIS, Shen et al. 2025, arXiv:2510.24105)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from ..errors import InputError
from ..storage.parts import rebuilt, tensors_of
from .votes import WordDecision

SPARSITIES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
"""The grid of the authors' scripts."""

Mask = Literal["hard", "soft", "authors"]
"""How few are kept: ``hard`` keeps ``M - floor(sM)`` values as they are, ``soft`` makes them ``x · (|x| - tau)``, and
``authors`` keeps those strictly above the ``floor(sM)``-th smallest, one fewer: their code."""


def n_kept(n_concepts: int, sparsity: float, mask: Mask = "hard") -> int:
    if not 0 <= sparsity < 1:
        raise InputError(f"The sparsity is {sparsity}. Expected a number from 0 to below 1. Use 0.9, for example.")
    if mask not in ("hard", "soft", "authors"):
        raise InputError(f"There is no mask called {mask!r}. Expected hard, soft or authors. Use hard.")
    # 0.29 · 100 is 28.999…96 as a floating-point number.
    kept = n_concepts - math.floor(sparsity * n_concepts + 1e-9) - (mask == "authors")
    if kept < 1:
        raise InputError(
            f"A sparsity of {sparsity:g} leaves none of {n_concepts} concepts. Expected at least one. Use more "
            "concepts or a smaller sparsity."
        )
    return kept


def concept_scores(
    pooled: Float[Tensor, "b d"], concepts: Float[Tensor, "m d"], *, over_concepts: bool = True
) -> Float[Tensor, "b m"]:
    """``LayerNorm_M(z Cᵀ)`` over all concepts, so a value that is kept depends on those that are not."""
    products = pooled @ normalize(concepts, dim=1).T
    return layer_norm(products, products.shape[1:]) if over_concepts else products


def strongest(scores: Float[Tensor, "b m"], kept: int) -> Bool[Tensor, "b m"]:
    """The ``kept`` values of each row with the largest absolute value; of equal values, the first."""
    order = scores.detach().abs().argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :kept], True)


def sparsify(scores: Float[Tensor, "b m"], sparsity: float, mask: Mask = "hard") -> Float[Tensor, "b m"]:
    """The strongest values of each row, with 0 for all others; the gradient flows through those that are kept.

    With ``mask="authors"`` this is ``soft_threshold_with_ratio`` of their code, which keeps even fewer if values are
    equal. ``soft`` is the paper's equation 4 as reviews quote it; ``tau`` is the largest absolute value that is left
    out.

    Example:
        >>> sparsify(torch.tensor([[3.0, -2.0, 1.0, 0.5]]), 0.5).tolist()
        [[3.0, -2.0, 0.0, 0.0]]
        >>> sparsify(torch.tensor([[3.0, -2.0, 1.0, 0.5]]), 0.5, "soft").tolist()
        [[6.0, -2.0, 0.0, 0.0]]
    """
    kept = n_kept(scores.shape[1], sparsity, mask)
    size = scores.detach().abs()
    if mask == "authors":
        edge = size.sort(dim=1).values[:, -kept - 1, None]
        return scores * (size > edge)
    keep = strongest(scores, kept)
    if mask == "hard":
        return scores * keep
    edge = torch.where(keep, 0.0, size).amax(1, keepdim=True)
    return scores * (scores.abs() - edge).clamp(min=0) * keep


@dataclass(frozen=True)
class KeptConcepts(WordDecision):
    """``logits = W · a + b``. ``a`` are the cosines, standardised with ``mean`` and ``spread`` over the training
    pictures; only the ``kept`` values of largest size are not 0.
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
                f"kept={self.kept}, but there are {len(self.texts)} concepts. Expected a number from 1 to "
                f"{len(self.texts)}. Give more texts, or --set kept={max(1, len(self.texts) // 10)}."
            )

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        return len(self.layer)

    def which(self, scores: Float[Tensor, "b m"]) -> Bool[Tensor, "b m"]:
        """The concepts that are kept for each picture."""
        return strongest((scores - self.mean) / self.spread, self.kept)

    def values(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        """Cosines in standard units; 0 for concepts that are not kept."""
        return (scores - self.mean) / self.spread * self.which(scores)

    def __call__(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b k"]:
        return self.values(scores) @ self.layer.T + self.offset

    @property
    def n_out(self) -> int:
        """The number of concepts that are removed to test what they matter: a third of those kept."""
        return max(1, self.kept // 3)

    def without(
        self, scores: Float[Tensor, "b m"], *, at_random: bool = False
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """The logits, and the logits without the kept concepts that most raise the first class's lead over the
        second.
        """
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
