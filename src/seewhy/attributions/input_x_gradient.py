"""Input times gradient (Shrikumar et al. 2016, arXiv 1605.01713), through Captum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from . import attributions
from .captum_base import CaptumGradients, Forward

if TYPE_CHECKING:
    from ..encoders.base import Encoder


@attributions.register
@dataclass(frozen=True)
class InputXGradient(CaptumGradients):
    """Multiplies each pixel by the gradient of the target at it.

    ``S = x ⊙ ∂y/∂x`` with ``x`` in normalised pixels, so that the mean colour gets nothing.
    """

    name: ClassVar[str] = "input_x_gradient"
    paper: ClassVar[str] = "Shrikumar et al. 2016, arXiv:1605.01713"
    cost: ClassVar[str] = "1 forward and 1 backward"

    def run(
        self, captum: Any, forward: Forward, picture: Float[Tensor, "1 3 h w"], encoder: Encoder
    ) -> Float[Tensor, "1 3 h w"]:
        return captum.InputXGradient(forward).attribute(picture)
