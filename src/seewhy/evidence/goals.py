"""What is explained, and followed while a picture is changed: a class, a sentence, or what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder
from ..errors import InputError
from ..heads.head import Head, Projected, Target, TargetFunction

if TYPE_CHECKING:
    from ..classifiers.base import Classifier


@dataclass(frozen=True)
class Sentences:
    """Stands where a classifier stands: its logits are the cosines with one sentence, or with two."""

    encoder: Encoder
    head: Head
    classes: tuple[str, ...]

    @classmethod
    def of(cls, encoder: Encoder, text: str | None, against: str | None = None) -> Sentences | None:
        """From what the user wrote; ``None`` where no sentence was asked for."""
        texts = [t.strip() for t in (text, against) if t is not None]
        if not texts:
            return None
        if text is None or not all(texts):
            raise InputError(
                "A sentence to explain was left out or empty. One was expected, with another to explain it against if "
                "wanted. Give --set target_text, and --set contrast_text beside it."
            )
        head = Head(Projected(encoder.text), encoder.encode_text(texts))
        return cls(encoder, head, tuple(f'"{t}"' for t in texts))

    @property
    def contrast(self) -> int | None:
        """Position of the sentence explained against."""
        return 1 if len(self.classes) > 1 else None

    def goal(self, n_pictures: int) -> TargetFunction:
        """The cosine with the sentence, or the difference of both cosines."""
        if self.contrast is None:
            return lambda logits: logits[:, 0]
        first = torch.zeros(n_pictures, dtype=torch.long)
        return Target(first, first + 1)

    def probabilities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """What deletion and insertion follow, in the first column: a cosine or a difference, not a probability."""
        with torch.no_grad():
            cosines = self.head(self.encoder.pooled(pixels))
        return cosines if self.contrast is None else cosines - cosines[:, 1:]


@dataclass(frozen=True)
class Watched:
    """What is explained, as numbers that can be read off any changed copy of the picture."""

    subject: Classifier | Sentences
    target: int
    contrast: int | None = None
    rival: int | None = None
    against: bool = False

    @property
    def of_sentence(self) -> bool:
        """Whether a sentence is explained in place of a class."""
        return isinstance(self.subject, Sentences)

    @property
    def quantity(self) -> str:
        """What the curves show, in words."""
        if self.of_sentence:
            return "similarity"
        return "probability" if self.contrast is None else f"probability of {self.name}"

    @property
    def name(self) -> str:
        """What is explained, in words."""
        rather = "" if self.contrast is None else f" rather than {self.name_of(self.contrast)}"
        return f"{self.name_of(self.target)}{rather}"

    def name_of(self, index: int) -> str:
        """A class, or anything but it."""
        name = self.subject.classes[index]
        return f"anything but {name}" if self.against else name

    def read(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
        """For each picture: what the curves show, the logarithm of the odds, and the lead over the rival's logit.

        The odds go on moving where a probability is all but 1. With a contrast both are of the two alone: the
        logarithm is the lead of the target's logit over the contrast's. Of a sentence both are the cosine, or its
        lead over the other sentence's. Where there is no rival, the lead is 0.
        """
        sign = -1.0 if self.against else 1.0
        with torch.no_grad():
            if isinstance(self.subject, Sentences):
                cosine = self.subject.probabilities(pixels)[:, self.target]
                value = 1 - cosine if self.against else cosine
                return torch.stack([value, sign * cosine, torch.zeros_like(cosine)], 1)
            logits = self.subject.head(self.subject.encoder.pooled(pixels)).double()
        mine = logits[:, self.target]
        if self.contrast is None:
            others = logits.clone()
            others[:, self.target] = -torch.inf
            odds = mine - others.logsumexp(1)
        else:
            odds = mine - logits[:, self.contrast]
        lead = mine - logits[:, self.target if self.rival is None else self.rival]
        return torch.stack([(sign * odds).sigmoid(), sign * odds, sign * lead], 1).float()
