"""Insertion (Petsiuk et al. 2018, RISE, arXiv 1806.07421)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .fills import Fill, filled
from .pixel_curve import PixelCurve

if TYPE_CHECKING:
    from ..types import Transform


@metrics.register
@dataclass(frozen=True)
class Insertion(PixelCurve):
    """Area under the target's probability as the hottest pixels return to a blurred picture; high is good.

    The blur is the authors': an 11 px kernel from σ = 5 px, zeros beyond the border.

    Args:
        fill: what the picture starts as: ``"blur"``, ``"blur_reflected"``, whose border is not darker, ``"mean"`` or
            ``"black"``.
    """

    name: ClassVar[str] = "insertion"
    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better: ClassVar[bool] = True

    fill: Fill = "blur"

    def ends(
        self, pixels: Float[Tensor, "3 h w"], transform: Transform | None = None
    ) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        return filled(pixels, self.fill, transform), pixels
