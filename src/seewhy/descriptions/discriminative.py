"""Descriptions chosen because they tell classes apart on real pictures (Ma et al. 2024, arXiv 2412.11917)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bounds import Count, check_fields
from ..errors import DataError
from .base import Descriptions

WEIGHTS = tuple(w / 4 for w in range(160))
"""Of the class's own sentence: 0, 0.25, …, 39.75, as in the authors' code."""


@dataclass(frozen=True)
class Pool:
    """All texts, each once, whosever they are."""

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    assigned: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, descriptions: Descriptions) -> Pool:
        texts = sorted({t for lines in descriptions.texts.values() for t in lines})
        at = {text: i for i, text in enumerate(texts)}
        assigned = tuple(tuple(at[t] for t in lines) for lines in descriptions.texts.values())
        return cls(tuple(descriptions.texts), tuple(texts), assigned)

    def written_for(self, text: int, label: int) -> int | None:
        """The class a text was written for, where it is not this one; of several the first."""
        owners = [c for c, mine in enumerate(self.assigned) if text in mine]
        return None if label in owners or not owners else owners[0]


def selection_matrix(
    texts: Float[Tensor, "p d"], pictures: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, "p c"]:
    """``M``: mean cosine of each text with the pictures of each class.

    The authors take the same number of pictures of every class; here each class is averaged over those it has.

    Example:
        >>> selection_matrix(torch.eye(2), torch.tensor([[1., 0.], [0., 1.], [0., 1.]]), torch.tensor([0, 0, 1]), 2)
        tensor([[0.5000, 0.0000],
                [0.5000, 1.0000]])
    """
    counts = torch.bincount(labels, minlength=n_classes)
    if int(counts.min()) == 0:
        raise DataError(
            f"{int((counts == 0).sum())} of {n_classes} classes have no picture to choose words on. One a class was "
            "expected. Add pictures, or leave those classes out."
        )
    sums = torch.zeros(n_classes, pictures.shape[1], dtype=pictures.dtype).index_add_(0, labels, pictures)
    return texts @ (sums / counts[:, None]).T


@dataclass(frozen=True)
class Selection:
    """Texts chosen for each class in question."""

    texts: Int[Tensor, "b k m"]
    used: Bool[Tensor, "b k m"]
    fell_back: Bool[Tensor, "b k"]

    def mean_of(self, scores: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        """Mean score of the chosen texts, for each class in question."""
        picked = scores[:, None].expand(-1, self.texts.shape[1], -1).gather(2, self.texts)
        return (picked * self.used).sum(2) / self.used.sum(2).clamp(min=1)


@dataclass(frozen=True)
class Selector:
    """The training-free selector: for a class in question, texts that hold more for it than for each of its rivals.

    A text ``p`` is kept for class ``a`` when ``M_pa − M_pb ≥ margin`` for every rival ``b`` in question. The ``m`` of
    the largest ``mean over b of (M_pa − M_pb)``, the zero for ``b = a`` among them, are chosen; fewer where fewer are
    kept. Where none is, the first ``m`` texts written for the class stand in.

    Args:
        m: texts for a class (the authors' 5).
        margin: of the lead over every rival; the authors' 0 takes what is ahead at all, which on few pictures is noise.
    """

    m: Count = 5
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "The selector")

    def __call__(
        self, matrix: Float[Tensor, "p c"], ambiguous: Int[Tensor, "b k"], assigned: Sequence[Sequence[int]]
    ) -> Selection:
        """Choose."""
        at = matrix[:, ambiguous].permute(1, 2, 0)  # b k p
        rival = _best_rival(at)
        ahead = torch.where(at - rival >= self.margin, at - at.mean(1, keepdim=True), -torch.inf)
        # Sorting is stable where topk is not: equal texts are taken in the pool's order on every machine.
        lead, texts = ahead.sort(dim=2, descending=True, stable=True)
        lead, texts = lead[..., : self.m], texts[..., : self.m].clone()
        used = lead > -torch.inf
        fell_back = ~used.any(2)
        for picture, place in fell_back.nonzero().tolist():
            own = list(assigned[int(ambiguous[picture, place])])[: texts.shape[2]]
            texts[picture, place, : len(own)] = torch.tensor(own, dtype=torch.long)
            used[picture, place, : len(own)] = True
        return Selection(texts, used, fell_back)


def _best_rival(at: Float[Tensor, "b k p"]) -> Float[Tensor, "b k p"]:
    """The largest value among the other classes in question; without any, nothing to be behind of."""
    if at.shape[1] < 2:
        return torch.full_like(at, -torch.inf)
    top = at.topk(2, dim=1)
    first = torch.arange(at.shape[1])[None, :, None] == top.indices[:, :1]
    return torch.where(first, top.values[:, 1:], top.values[:, :1])


def best_weight(
    captions: Float[Tensor, "n k"],
    words: Float[Tensor, "n k"],
    right: Bool[Tensor, "n k"],
    weights: Sequence[float] = WEIGHTS,
) -> tuple[float, Float[Tensor, " w"]]:
    """The weight ``w`` of ``w · caption + words`` that is right most often, equals by the smallest; and every accuracy.

    Example:
        >>> captions, words = torch.tensor([[0.2, 0.1]]), torch.tensor([[0.0, 0.12]])
        >>> best_weight(captions, words, torch.tensor([[True, False]]))[0]
        1.25
    """
    found = torch.stack([hits(w * captions + words, right).float().mean() for w in weights])
    return weights[int(found.argmax())], found


def hits(scores: Float[Tensor, "n k"], right: Bool[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    """Whether the highest score is the right class's."""
    return right.gather(1, scores.argmax(1, keepdim=True))[:, 0]
