"""Deletion (Petsiuk et al. 2018, RISE, arXiv 1806.07421)."""

from dataclasses import dataclass

from . import metrics
from .fills import Fill, Picture, Transform, filled
from .pixel_curve import PixelCurve


@metrics.register
@dataclass(frozen=True)
class Deletion(PixelCurve):
    """Area under the target's probability as the hottest pixels are replaced by the mean colour; low is good.

    The mean colour is 0 in the network's normalised space, as in the authors' code.

    Args:
        fill: what takes their place: ``"mean"``, ``"black"``, ``"blur"`` or ``"blur_reflected"``.
    """

    name = "deletion"
    paper = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better = False

    fill: Fill = "mean"

    def ends(self, pixels: Picture, transform: Transform | None = None) -> tuple[Picture, Picture]:
        return pixels, filled(pixels, self.fill, transform)
