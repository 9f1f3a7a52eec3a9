"""Average Drop (Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063)."""

from dataclasses import dataclass

from . import metrics
from .masked_confidence import MaskedConfidence, Number, Numbers


@metrics.register
@dataclass(frozen=True)
class AverageDrop(MaskedConfidence):
    """Per cent of its confidence the model loses on the picture times the map; low is good.

    ``AD = 100 · max(0, p(x) - p(x · m)) / p(x)``, m the map scaled to 0…1. A map that keeps
    everything has 0, so read ``mean_map`` beside it.
    """

    name = "average_drop"
    paper = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better = False

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (whole - masked).clamp(min=0) / whole.clamp(min=1e-12)
