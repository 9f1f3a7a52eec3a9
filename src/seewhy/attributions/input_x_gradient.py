"""Input times gradient (Shrikumar et al. 2016, arXiv 1605.01713), through Captum."""

from dataclasses import dataclass
from typing import Any

from . import attributions
from .captum_base import CaptumGradients, Encoder, Forward, Pixels


@attributions.register
@dataclass(frozen=True)
class InputXGradient(CaptumGradients):
    """Product of pixels and the gradient of the class's score.

        S = x ⊙ ∂y/∂x

    ``S`` is the map, ``x`` are the normalised pixels, and ``y`` is the target's logit. A pixel of the mean colour has
    the value 0.
    """

    name = "input_x_gradient"
    paper = "Shrikumar et al. 2016, arXiv:1605.01713"
    cost = "1 forward and 1 backward"

    def run(self, captum: Any, forward: Forward, picture: Pixels, encoder: Encoder) -> Pixels:
        return captum.InputXGradient(forward).attribute(picture)
