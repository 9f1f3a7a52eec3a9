"""Deletion (Petsiuk et al. 2018, RISE, arXiv 1806.07421)."""

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
class Deletion(PixelCurve):
    """Area under the target's probability as the hottest pixels are replaced by the mean colour; low is good.

    The mean colour is 0 in the network's normalised space, as in the authors' code.

    Args:
        fill: what takes their place: ``"mean"``, ``"black"``, ``"blur"`` or ``"blur_reflected"``.
    """

    name: ClassVar[str] = "deletion"
    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better: ClassVar[bool] = False

    fill: Fill = "mean"

    def ends(
        self, pixels: Float[Tensor, "3 h w"], transform: Transform | None = None
    ) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        return pixels, filled(pixels, self.fill, transform)
