"""Insertion (Petsiuk et al. 2018, RISE, arXiv 1806.07421)."""

from dataclasses import dataclass

from . import metrics
from .fills import Fill, Picture, Transform, filled
from .pixel_curve import PixelCurve


@metrics.register
@dataclass(frozen=True)
class Insertion(PixelCurve):
    """Area under the target's probability as the hottest pixels return to a blurred picture; high is good.

    The blur is the authors': an 11 px kernel from σ = 5 px, zeros beyond the border.

    Args:
        fill: what the picture starts as: ``"blur"``, ``"blur_reflected"``, whose border is not darker, ``"mean"`` or
            ``"black"``.
    """

    name = "insertion"
    paper = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better = True

    fill: Fill = "blur"

    def ends(self, pixels: Picture, transform: Transform | None = None) -> tuple[Picture, Picture]:
        return filled(pixels, self.fill, transform), pixels
