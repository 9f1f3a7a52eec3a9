"""Average Gain (Zhang et al. 2024, Opti-CAM, arXiv:2301.07002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .masked_confidence import MaskedConfidence


@metrics.register
@dataclass(frozen=True)
class AverageGain(MaskedConfidence):
    """Per cent of the missing confidence that the picture times the map wins; high is good.

    ``AG = 100 · max(0, p(x · m) - p(x)) / (1 - p(x))``, m the map scaled to 0…1. The counterpart of average drop.
    """

    name: ClassVar[str] = "average_gain"
    paper: ClassVar[str] = "Zhang et al. 2024, Opti-CAM, arXiv:2301.07002"
    higher_is_better: ClassVar[bool] = True

    def compare(self, whole: Float[Tensor, ""], masked: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        return 100 * (masked - whole).clamp(min=0) / (1 - whole).clamp(min=1e-12)
