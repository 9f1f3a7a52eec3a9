"""A second look at the classes in question: the first scores name a few, other sentences decide between those."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .word_decision import WordDecision


@dataclass(frozen=True)
class Reason:
    """A sentence that took part in the second look.

    Attributes:
        row: of the head.
        text: as it was written.
        attribute: what it is about, where that is known.
        against: index of the rival it was written against, if it was.
        written_for: index of the class it was written for, where that is another than the one it speaks for.
    """

    row: int
    text: str
    attribute: str | None = None
    against: int | None = None
    written_for: int | None = None


class Reranking(WordDecision):
    """Decides between the ``k`` classes that the first scores put on top.

    The head's first ``n_classes`` rows are the classes' own sentences, the others are what the second look uses. A row
    gives ``s_r = scale · cosine``. With ``A`` the ``k`` classes of the largest ``s_c`` and ``t_a = Σ_r mix_ar s_r``,

    ``logit_a = t_a − log Σ_A exp(t) + log Σ_A exp(s)`` for ``a`` in ``A``, ``logit_c = s_c`` for the others.

    So the probabilities of the classes outside ``A`` stay as they were, those inside share what the first look gave
    them together, and the decision is that of the largest ``t_a``: the best of ``k`` has at least their mean, which no
    class outside exceeds. It is differentiable wherever the ``k`` classes stay the same.

    Attributes:
        k: classes in question, at most; all of them where there are fewer.
        gate: where the first look's two largest probabilities are at least so far apart, its decision stands;
            ``None`` always looks again.
    """

    k: int
    gate: float | None

    @abstractmethod
    def mix(self, ambiguous: Int[Tensor, "b k"], *, words_only: bool = False) -> Float[Tensor, "b k r"]:
        """What each row counts for each class in question."""

    @abstractmethod
    def reasons(self, ambiguous: Int[Tensor, " k"], label: int) -> tuple[Reason, ...]:
        """The sentences used for one of the classes in question."""

    @property
    def least_rows(self) -> int:
        return self.n_classes

    def ambiguous(self, scores: Float[Tensor, "b r"]) -> Int[Tensor, "b k"]:
        """The classes in question, the likeliest first."""
        return scores[:, : self.n_classes].topk(min(self.k, self.n_classes), dim=1).indices

    def second(self, scores: Float[Tensor, "b r"], *, words_only: bool = False) -> Float[Tensor, "b k"]:
        """``t``, of the classes of :meth:`ambiguous`."""
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
