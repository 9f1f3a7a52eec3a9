"""Sparse similarities with concepts (IIS, Shen et al. 2025, arXiv:2510.24105)."""

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
"""Values of ``sparsity`` in the authors' scripts."""

Mask = Literal["hard", "soft", "authors"]
"""Form of sparsity: ``hard`` keeps ``M - floor(sM)`` values, ``soft`` replaces them by ``x · (|x| - tau)``, and
``authors`` keeps one value fewer, as the authors' code does."""


def n_kept(n_concepts: int, sparsity: float, mask: Mask = "hard") -> int:
    if not 0 <= sparsity < 1:
        raise InputError(f"`sparsity` must be at least 0 and less than 1, got {sparsity}.")
    if mask not in ("hard", "soft", "authors"):
        raise InputError(f"`mask` must be 'hard', 'soft' or 'authors', got {mask!r}.")
    # 0.29 · 100 is 28.999…96 as a floating-point number.
    kept = n_concepts - math.floor(sparsity * n_concepts + 1e-9) - (mask == "authors")
    if kept < 1:
        raise InputError(
            f"sparsity={sparsity:g} removes all {n_concepts} concepts. Lower the sparsity, or use more concepts."
        )
    return kept


def concept_scores(
    pooled: Float[Tensor, "b d"], concepts: Float[Tensor, "m d"], *, over_concepts: bool = True
) -> Float[Tensor, "b m"]:
    """Return ``LayerNorm(z Cᵀ)``, where ``z`` are pooled features and ``C`` are concept vectors."""
    products = pooled @ normalize(concepts, dim=1).T
    return layer_norm(products, products.shape[1:]) if over_concepts else products


def strongest(scores: Float[Tensor, "b m"], kept: int) -> Bool[Tensor, "b m"]:
    """Return a mask of the ``kept`` values of largest magnitude in each row."""
    order = scores.detach().abs().argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :kept], True)


def sparsify(scores: Float[Tensor, "b m"], sparsity: float, mask: Mask = "hard") -> Float[Tensor, "b m"]:
    """Set all but the largest values of each row to 0.

    ``mask="authors"`` is ``soft_threshold_with_ratio`` of the authors' code, which keeps fewer values if some are
    equal. ``"soft"`` is the paper's equation 4 as reviews quote it: a soft threshold at the largest dropped magnitude.

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
    """Logits ``W · a + b`` from sparse concept values ``a``.

    ``a`` are the cosines with the concepts, standardised by ``mean`` and ``spread``; all but the ``kept`` values with
    the largest magnitude are set to 0.
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
                f"`kept` must be between 1 and {len(self.texts)}, the number of concepts, got {self.kept}. "
                f"Use --set kept={max(1, len(self.texts) // 10)}, for example."
            )

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        return len(self.layer)

    def which(self, scores: Float[Tensor, "b m"]) -> Bool[Tensor, "b m"]:
        return strongest((scores - self.mean) / self.spread, self.kept)

    def values(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        return (scores - self.mean) / self.spread * self.which(scores)

    def __call__(self, scores: Float[Tensor, "b m"]) -> Float[Tensor, "b k"]:
        return self.values(scores) @ self.layer.T + self.offset

    @property
    def n_out(self) -> int:
        """The number of concepts removed in the ablation test, a third of ``kept``."""
        return max(1, self.kept // 3)

    def without(
        self, scores: Float[Tensor, "b m"], *, at_random: bool = False
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Return the logits, and the logits without the concepts that most favour the first class over the second."""
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
            raise ValueError(f"it has {len(weight)} rows for {len(texts)} texts")
        if not bool((found.spread > 0).all()):
            raise ValueError("a concept has zero spread")
        return found
