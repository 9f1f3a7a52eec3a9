"""Average Increase (Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .masked_confidence import MaskedConfidence

EQUAL = 1e-6  # two passes of one picture may differ in the last bit, which is no rise


@metrics.register
@dataclass(frozen=True)
class AverageIncrease(MaskedConfidence):
    """Per cent of pictures whose confidence rises on the picture times the map; high is good.

    ``IC = 100 · [p(x · m) > p(x)]``, m the map scaled to 0…1. Also called increase in confidence.
    """

    name: ClassVar[str] = "average_increase"
    paper: ClassVar[str] = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better: ClassVar[bool] = True

    def compare(self, whole: Float[Tensor, ""], masked: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        return 100 * (masked > whole + EQUAL).to(masked)
