"""Integrated gradients (Sundararajan, Taly & Yan 2017, arXiv 1703.01365), through Captum."""

from dataclasses import dataclass
from typing import Any

from ..bounds import Count, Finite
from . import attributions
from .captum_base import CaptumGradients, Encoder, Forward, Pixels


@attributions.register
@dataclass(frozen=True)
class IntegratedGradients(CaptumGradients):
    """Gradient integrated along the straight path from a baseline to the picture.

        S = (x − x′) ⊙ ∫ ∂y/∂x (x′ + a (x − x′)) da        (paper, equation 1)

    ``S`` is the map, ``x`` the picture, ``x′`` the baseline, ``y`` the target's logit, and ``a`` runs from 0 to 1. The
    integral is computed by Gauss–Legendre quadrature. The values of the map add up to ``y(x) − y(x′)``, up to the error
    of the quadrature (completeness; paper, proposition 1).

    Args:
        n_steps: number of points on the path (paper: 20 to 300, Captum: 50).
        baseline: value of the baseline's pixels after normalisation; 0 is the mean colour (paper: black).
    """

    name = "integrated_gradients"
    paper = "Sundararajan et al. 2017, arXiv:1703.01365"
    cost = "50 forward and 50 backward"
    small = {"n_steps": 6}

    n_steps: Count = 50
    baseline: Finite = 0.0

    def run(self, captum: Any, forward: Forward, picture: Pixels, encoder: Encoder) -> Pixels:
        method = captum.IntegratedGradients(forward)
        return method.attribute(picture, self.baseline, n_steps=self.n_steps, internal_batch_size=self.batch_size)
