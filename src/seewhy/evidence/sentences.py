"""The similarity between a picture and a sentence, or its lead over another sentence, as what is explained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder
from ..errors import InputError
from ..heads.head import Head, Projected, Target, TargetFunction


@dataclass(frozen=True)
class Sentences:
    """Stands where a classifier stands: its logits are the cosines with one sentence, or with two.

    Attributes:
        encoder: has a text half.
        head: one row a sentence.
        classes: the sentences, in quotation marks.
    """

    encoder: Encoder
    head: Head
    classes: tuple[str, ...]

    @classmethod
    def of(cls, encoder: Encoder, text: str | None, against: str | None = None) -> Sentences | None:
        """From what the user wrote; ``None`` where no sentence was asked for.

        Raises:
            InputError: there is only a sentence to explain against, or one is empty.
            ModelError: the encoder has no text half.
        """
        texts = [t.strip() for t in (text, against) if t is not None]
        if not texts:
            return None
        if text is None or not all(texts):
            raise InputError(
                "A sentence to explain was left out or empty. One was expected, with another to explain it against if "
                "wanted. Give --target-text, and --contrast-text beside it."
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
        """What deletion and insertion watch, in the first column: a cosine or a difference, not a probability."""
        with torch.no_grad():
            cosines = self.head(self.encoder.pooled(pixels))
        return cosines if self.contrast is None else cosines - cosines[:, 1:]
