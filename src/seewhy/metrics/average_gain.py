"""Average Gain (Zhang et al. 2024, Opti-CAM, arXiv:2301.07002)."""

from dataclasses import dataclass

from . import metrics
from .masked_confidence import MaskedConfidence, Number, Numbers


@metrics.register
@dataclass(frozen=True)
class AverageGain(MaskedConfidence):
    """Per cent of the missing confidence that the picture times the map wins; high is good.

    ``AG = 100 · max(0, p(x · m) - p(x)) / (1 - p(x))``, m the map scaled to 0…1. The counterpart of average drop.
    """

    name = "average_gain"
    paper = "Zhang et al. 2024, Opti-CAM, arXiv:2301.07002"
    higher_is_better = True

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (masked - whole).clamp(min=0) / (1 - whole).clamp(min=1e-12)
