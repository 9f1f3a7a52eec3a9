"""What stands between similarities with pictures or sentences and logits, where it is more than their mean."""

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
    """``logit_c = log Σ_{i ∈ N_c} exp(s_i)``, ``N_c`` the nearest pictures of class ``c``.

    ``N_c`` are those of class ``c`` among the ``k`` nearest of all, and always the nearest one of class ``c``, so that
    no class gets ``-inf``. The softmax of these logits is the vote in which picture ``i`` has the weight ``exp(s_i)``;
    ``s_i`` is a cosine divided by the temperature. With ``k = 1`` the decision is that of the nearest picture.

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
            raise InputError(f"The number of neighbours is {self.k}. Expected 1 or more. Use 10, for example.")

    def __call__(self, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b k"]:
        return class_logits(*nearest_scores(scores, self.owner, self.n_classes, self.k), self.k)

    def within(self, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Each picture's share in its own class's logit: ``∂ logit_c / ∂ s_i``; the shares of a class add up to 1."""
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_()
            return torch.autograd.grad(self(leaf).sum(), leaf)[0]

    def share(self, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Each picture's share of the whole vote; the shares of all pictures add up to 1."""
        return self.within(scores) * self(scores).softmax(1)[:, self.owner]

    def ballot(self, scores: Float[Tensor, " n"]) -> list[tuple[int, float]]:
        """The row and the share of every picture that voted, the largest share first; of equal shares, the most similar
        first. Rows of one name are crops of one picture. They count together, and the most similar one represents them.
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
        """Logits after the pictures of these rows, with all their crops, have lost their vote."""
        left = scores.clone()
        left[:, self.rows_of(rows)] = -torch.inf
        return self(left)

    def rows_of(self, rows: Collection[int]) -> list[int]:
        """All rows of the pictures to which these rows belong."""
        if not self.names:
            return list(rows)
        names = {self.names[row] for row in rows}
        return [i for i, name in enumerate(self.names) if name in names]


def nearest_scores(
    scores: Float[Tensor, "b n"], owner: Int[Tensor, " n"], n_classes: int, k: int
) -> tuple[Float[Tensor, "b m"], Int[Tensor, "b m"], Float[Tensor, "b c"]]:
    """The ``k`` largest similarities in falling order, their rows, and the largest similarity of each class."""
    top, at = scores.topk(min(k, scores.shape[1]), dim=1)
    lowest = torch.full((scores.shape[0], n_classes), -torch.inf, dtype=scores.dtype)
    return top, owner[at], lowest.scatter_reduce(1, owner.expand_as(scores), scores, "amax")


def class_logits(
    top: Float[Tensor, "b m"], whose: Int[Tensor, "b m"], best: Float[Tensor, "b c"], k: int
) -> Float[Tensor, "b c"]:
    """Logits from the result of :func:`nearest_scores`, for this ``k`` or a smaller one."""
    k = min(k, top.shape[1])
    top, whose = top[:, :k], whose[:, :k]
    highest = best.detach()
    # A class without a picture is left at -inf; it must not make the others not a number.
    highest = torch.where(highest.isfinite(), highest, torch.zeros_like(highest))
    among = torch.zeros_like(best).scatter_add(1, whose, (top - highest.gather(1, whose)).exp())
    alone = among == 0  # none of its pictures is among the k
    return highest + torch.where(alone, (best - highest).exp(), among.clamp(min=1e-30)).log()


class WordDecision(ABC):
    """Decides by sentences, and can be saved; ``name`` is the name of the recipe that makes it."""

    name: ClassVar[str]
    n_classes: int
    least_rows: int = 1
    """How many rows a head must have for it."""

    @abstractmethod
    def __call__(self, scores: Float[Tensor, "b r"]) -> Float[Tensor, "b c"]:
        """Logits of the classes."""

    @abstractmethod
    def by_words(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, " b"]:
        """The class that the other sentences choose, without those that name the classes."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is needed besides the tensors to build it again, as JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors, besides the head's rows, that are needed to build it again."""

    @classmethod
    @abstractmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Float[Tensor, "r d"]) -> Self:
        """Build it again."""


@dataclass(frozen=True)
class Reason:
    """A sentence (``row`` of the head) of the second look, the rival that it is ``against``, and its other classes."""

    row: int
    text: str
    attribute: str | None = None
    against: int | None = None
    written_for: int | None = None


class Reranking(WordDecision):
    """A second look that decides between the ``k`` classes that the first scores put on top.

    The head's first ``n_classes`` rows are the classes' own sentences, the others are what the second look uses. A row
    gives ``s_r = scale · cosine``. With ``A`` the ``k`` classes of the largest ``s_c`` and ``t_a = Σ_r mix_ar s_r``,

    ``logit_a = t_a − log Σ_A exp(t) + log Σ_A exp(s)`` for ``a`` in ``A``, ``logit_c = s_c`` for the others.

    So the probabilities of the classes outside ``A`` do not change, and those inside share what the first look gave
    them together. The decision is the class of the largest ``t_a``: the best of ``k`` has at least their mean, which no
    class outside exceeds. It is differentiable while the ``k`` classes stay the same. If the first look's two largest
    probabilities differ by at least ``gate``, its decision is kept.
    """

    k: int
    gate: float | None

    @abstractmethod
    def mix(self, ambiguous: Int[Tensor, "b k"], *, words_only: bool = False) -> Float[Tensor, "b k r"]:
        """The weight of each row for each class in question."""

    @abstractmethod
    def reasons(self, ambiguous: Int[Tensor, " k"], label: int) -> tuple[Reason, ...]:
        """The sentences used for one of the classes in question."""

    @property
    def least_rows(self) -> int:  # type: ignore[override]
        return self.n_classes

    def ambiguous(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, "b k"]:
        """The classes in question, the most probable first."""
        return scores[:, : self.n_classes].topk(min(self.k, self.n_classes), dim=1).indices

    def second(self, scores: Float[Tensor, "b r"], *, words_only: bool = False) -> Float[Tensor, "b k"]:
        """``t`` for the classes of :meth:`ambiguous`."""
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
