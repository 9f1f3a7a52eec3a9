"""Functions from similarities to logits that are not linear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Votes:
    """Logits of a nearest-neighbour classifier.

        logit_c = log Σ_{i ∈ N_c} exp(s_i)

    * ``s_i``: cosine with training picture ``i``, divided by the temperature.
    * ``N_c``: pictures of class ``c`` among the ``k`` nearest pictures, or else the nearest picture of class ``c``.

    The softmax of these logits is a vote with weights ``exp(s_i)``. With ``k = 1`` the nearest picture decides.

    Example:
        >>> votes = Votes(torch.tensor([0, 0, 1]), 2, 3)
        >>> votes(torch.tensor([[0.0, 0.0, 0.0]])).softmax(1).tolist()[0][0] > 0.66
        True
    """

    owner: Int[Tensor, " n"]
    n_classes: int
    k: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"`k` must be at least 1, got {self.k}.")

    def __call__(self, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b k"]:
        return class_logits(*nearest_scores(scores, self.owner, self.n_classes, self.k), self.k)

    def within(self, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Return ``∂ logit_c / ∂ s_i``, picture ``i``'s share in the logit of its class; shares of a class sum to 1."""
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_()
            return torch.autograd.grad(self(leaf).sum(), leaf)[0]

    def share(self, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Return the share of each picture in the whole vote; all shares sum to 1."""
        return self.within(scores) * self(scores).softmax(1)[:, self.owner]

    def ballot(self, scores: Float[Tensor, " n"]) -> list[tuple[int, float]]:
        """Return the voting pictures as pairs of a row and a share of the vote, largest share first.

        The shares of crops of the same picture are summed; the row is that of the most similar crop.
        """
        share = self.share(scores[None])[0]
        voted = (share > 0).nonzero()[:, 0]
        voted = voted[scores[voted].argsort(descending=True, stable=True)]
        best: dict[str | int, int] = {}
        parts: dict[str | int, float] = {}
        for row, part in zip(voted.tolist(), share[voted].tolist(), strict=True):
            picture = self.names[row] if self.names else row
            best.setdefault(picture, row)
            parts[picture] = parts.get(picture, 0.0) + part
        return sorted(((best[p], part) for p, part in parts.items()), key=lambda one: -one[1])

    def without(self, scores: Float[Tensor, "b n"], rows: Collection[int]) -> Float[Tensor, "b k"]:
        """Return the logits without the votes of some pictures and their crops."""
        left = scores.clone()
        left[:, self.rows_of(rows)] = -torch.inf
        return self(left)

    def rows_of(self, rows: Collection[int]) -> list[int]:
        if not self.names:
            return list(rows)
        names = {self.names[row] for row in rows}
        return [i for i, name in enumerate(self.names) if name in names]


def nearest_scores(
    scores: Float[Tensor, "b n"], owner: Int[Tensor, " n"], n_classes: int, k: int
) -> tuple[Float[Tensor, "b m"], Int[Tensor, "b m"], Float[Tensor, "b c"]]:
    """Return the ``k`` largest similarities, their classes, and the largest similarity of each class."""
    top, at = scores.topk(min(k, scores.shape[1]), dim=1)
    lowest = torch.full((scores.shape[0], n_classes), -torch.inf, dtype=scores.dtype)
    return top, owner[at], lowest.scatter_reduce(1, owner.expand_as(scores), scores, "amax")


def class_logits(
    top: Float[Tensor, "b m"], whose: Int[Tensor, "b m"], best: Float[Tensor, "b c"], k: int
) -> Float[Tensor, "b c"]:
    """Compute logits from the result of :func:`nearest_scores`, for the same or a smaller ``k``."""
    k = min(k, top.shape[1])
    top, whose = top[:, :k], whose[:, :k]
    highest = best.detach()
    # A class without a picture is left at -inf; it must not make the others not a number.
    highest = torch.where(highest.isfinite(), highest, torch.zeros_like(highest))
    among = torch.zeros_like(best).scatter_add(1, whose, (top - highest.gather(1, whose)).exp())
    alone = among == 0  # none of its pictures is among the k
    return highest + torch.where(alone, (best - highest).exp(), among.clamp(min=1e-30)).log()


class WordDecision(ABC):
    """Base class of decisions by sentences; ``name`` is the name of the recipe."""

    name: ClassVar[str]
    n_classes: int

    @abstractmethod
    def __call__(self, scores: Float[Tensor, "b r"]) -> Float[Tensor, "b c"]:
        """Return class logits."""

    @abstractmethod
    def by_words(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, " b"]:
        """Return the class that is predicted from descriptions without class names."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the fields for :meth:`restore`, as JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for :meth:`restore`, except the rows of the head."""

    @classmethod
    @abstractmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Float[Tensor, "r d"]) -> Self:
        """Rebuild the decision from the results of :meth:`facts` and :meth:`tensors`."""


@dataclass(frozen=True)
class Reason:
    """A sentence that distinguishes a class from the class ``against``; ``row`` is its row of the head."""

    row: int
    text: str
    attribute: str | None = None
    against: int | None = None
    written_for: int | None = None


class Reranking(WordDecision):
    """A second stage that decides between the ``k`` most probable classes of a first stage.

        s_r     = scale · cosine_r
        t_a     = Σ_r mix_ar s_r
        logit_a = t_a − log Σ_A exp(t) + log Σ_A exp(s)    for a in A
        logit_c = s_c                                      otherwise

    * ``r``: row of the head: a sentence of each class, then the sentences of the second stage.
    * ``cosine_r``: cosine of the picture with row ``r``, and ``s_r`` its score.
    * ``mix_ar``: weight of row ``r`` for class ``a``.
    * ``t_a``: score of class ``a`` in the second stage.
    * ``A``: the ``k`` classes with the largest ``s_c``.

    The classes of ``A`` keep their total probability, which the second stage redistributes among them; the
    probabilities of other classes do not change. The class with the largest ``t_a`` is predicted. If the two largest
    probabilities of the first stage differ by at least ``gate``, the first stage decides.
    """

    k: int
    gate: float | None

    @abstractmethod
    def mix(self, ambiguous: Int[Tensor, "b k"], *, words_only: bool = False) -> Float[Tensor, "b k r"]:
        """Return the weight of each row of the head for each candidate class."""

    @abstractmethod
    def reasons(self, ambiguous: Int[Tensor, " k"], label: int) -> tuple[Reason, ...]:
        """Return the sentences that a candidate class is scored by."""

    def ambiguous(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, "b k"]:
        return scores[:, : self.n_classes].topk(min(self.k, self.n_classes), dim=1).indices

    def second(self, scores: Float[Tensor, "b r"], *, words_only: bool = False) -> Float[Tensor, "b k"]:
        mix = self.mix(self.ambiguous(scores), words_only=words_only)
        return (mix.to(scores) * scores[:, None]).sum(2)

    def __call__(self, scores: Float[Tensor, "b r"]) -> Float[Tensor, "b c"]:
        first, at = scores[:, : self.n_classes], self.ambiguous(scores)
        again = self.second(scores)
        mass = first.gather(1, at).logsumexp(1, keepdim=True)
        logits = first.scatter(1, at, again.log_softmax(1) + mass)
        if self.gate is None or self.n_classes < 2:
            return logits
        top = first.softmax(1).topk(2, dim=1).values
        return torch.where((top[:, :1] - top[:, 1:]) < self.gate, logits, first)

    def by_words(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, " b"]:
        best = self.second(scores, words_only=True).argmax(1, keepdim=True)
        return self.ambiguous(scores).gather(1, best)[:, 0]
