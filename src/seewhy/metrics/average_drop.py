"""Average Drop (Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .masked_confidence import MaskedConfidence


@metrics.register
@dataclass(frozen=True)
class AverageDrop(MaskedConfidence):
    """Per cent of its confidence the model loses on the picture times the map; low is good.

    ``AD = 100 · max(0, p(x) - p(x · m)) / p(x)``, m the map scaled to 0…1. A map that keeps
    everything has 0, so read ``mean_map`` beside it.
    """

    name: ClassVar[str] = "average_drop"
    paper: ClassVar[str] = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better: ClassVar[bool] = False

    def compare(self, whole: Float[Tensor, ""], masked: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        return 100 * (whole - masked).clamp(min=0) / whole.clamp(min=1e-12)
