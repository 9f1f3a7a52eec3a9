"""What is followed while a picture is changed: a class's probability and its odds, or a sentence's similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from .complement import Complement
from .sentences import Sentences

if TYPE_CHECKING:
    from ..classifiers.base import Classifier


@dataclass(frozen=True)
class Watched:
    """What is explained, as numbers that can be read off any changed copy of the picture.

    Attributes:
        subject: a classifier, sentences in its place, or either turned round.
        target: class explained.
        contrast: class it is explained against, or ``None``.
        rival: class that comes next, or ``None``.
    """

    subject: Classifier | Sentences | Complement
    target: int
    contrast: int | None = None
    rival: int | None = None

    @property
    def of_sentence(self) -> bool:
        """Whether a sentence is explained in place of a class."""
        return isinstance(self._inner, Sentences)

    @property
    def quantity(self) -> str:
        """What the curves show, in words."""
        if self.of_sentence:
            return "similarity"
        return "probability" if self.contrast is None else f"probability of {self.name}"

    @property
    def name(self) -> str:
        """What is explained, in words."""
        names = self.subject.classes
        return names[self.target] + ("" if self.contrast is None else f" rather than {names[self.contrast]}")

    @property
    def rival_name(self) -> str | None:
        """The class that comes next, in words."""
        return None if self.rival is None else self.subject.classes[self.rival]

    @property
    def _inner(self) -> Classifier | Sentences:
        return self.subject.of if isinstance(self.subject, Complement) else self.subject

    def read(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
        """For each picture: what the curves show, the logarithm of the odds, and the lead over the rival's logit.

        The odds go on moving where a probability is all but 1. With a contrast both are of the two alone: the
        logarithm is the lead of the target's logit over the contrast's. Of a sentence both are the cosine, or its
        lead over the other sentence's. Where there is no rival, the lead is 0.
        """
        inner, sign = self._inner, -1.0 if isinstance(self.subject, Complement) else 1.0
        with torch.no_grad():
            if isinstance(inner, Sentences):
                cosine = inner.probabilities(pixels)[:, self.target]
                value = 1 - cosine if sign < 0 else cosine
                return torch.stack([value, sign * cosine, torch.zeros_like(cosine)], 1)
            logits = inner.head(inner.encoder.pooled(pixels)).double()
        mine = logits[:, self.target]
        if self.contrast is None:
            others = logits.clone()
            others[:, self.target] = -torch.inf
            odds = mine - others.logsumexp(1)
        else:
            odds = mine - logits[:, self.contrast]
        lead = mine - logits[:, self.target if self.rival is None else self.rival]
        return torch.stack([(sign * odds).sigmoid(), sign * odds, sign * lead], 1).float()
