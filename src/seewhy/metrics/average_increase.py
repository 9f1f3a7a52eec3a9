"""Average Increase (Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063)."""

from dataclasses import dataclass

from . import metrics
from .masked_confidence import MaskedConfidence, Number, Numbers

EQUAL = 1e-6  # two passes of one picture may differ in the last bit, which is no rise


@metrics.register
@dataclass(frozen=True)
class AverageIncrease(MaskedConfidence):
    """Per cent of pictures whose confidence rises on the picture times the map; high is good.

    ``IC = 100 · [p(x · m) > p(x)]``, m the map scaled to 0…1. Also called increase in confidence.
    """

    name = "average_increase"
    paper = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better = True

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (masked > whole + EQUAL).to(masked)
