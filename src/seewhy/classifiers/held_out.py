"""Pictures kept out of training, as a classifier remembers them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class HeldOut:
    """Pictures kept out of training, as features: what evidence is measured on.

    Of a linear classifier fitted on pictures these are (up to 5,000 of) *all* pictures it was fitted on that can be
    measured: each was held out once, with all others of its group, from one of several fits (out-of-fold). Of
    classifiers that are fitted once, and where the user gave validation pictures, they are the part that was held out.

    Attributes:
        pooled: one row a picture.
        labels: index of each one's class.
        logits: what a classifier that saw no picture of its group says of each, divided by the final temperature:
            ``softmax`` of them is calibrated as predictions are. ``None`` in archives of earlier versions, and where no
            classifier was fitted.
        groups: pictures with the same number show the same thing, as far as is known. ``None`` where it was not asked.
        before: the same pictures as the encoder saw them before it was adapted, where it sees them otherwise now; not
            saved.
    """

    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n k"] | None = None
    groups: Int[Tensor, " n"] | None = None
    before: Float[Tensor, "n e"] | None = None
