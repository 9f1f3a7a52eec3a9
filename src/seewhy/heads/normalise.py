"""Normalisation of features before a linear classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Checked, Positive

_FLOOR = 1e-6
"""Magnitude below which a root is replaced by a linear function, because its gradient at 0 is infinite."""


def signed_power(x: Float[Tensor, "*n d"], power: float) -> Float[Tensor, "*n d"]:
    """Return ``sign(x) |x|^p`` elementwise.

    ``p`` is ``power``. Razavian et al. (2014, arXiv 1403.6382) use p = 2; p = 1/2 is usual for counts and histograms.
    For p < 1, the function is linear where ``|x| < 1e-6``, so that the gradient at 0 is finite.

    Example:
        >>> signed_power(torch.tensor([-4.0, 0.0, 9.0]), 0.5).tolist()
        [-2.0, 0.0, 3.0]
    """
    if power == 1:
        return x
    size = x.abs()
    if power > 1:
        return x.sign() * size**power
    small = size < _FLOOR
    # The untaken branch must be finite too: torch.where passes 0 * inf = NaN back otherwise.
    return torch.where(small, x * _FLOOR ** (power - 1), x.sign() * size.clamp(min=_FLOOR) ** power)


@dataclass(frozen=True)
class Normalise(Checked):
    """Signed power ``sign(x) |x|^p``, then L2 normalisation; zero vectors stay zero.

    Example:
        >>> Normalise(power=0.5, l2=True)(torch.tensor([[9.0, 16.0]])).mul(100).round().tolist()
        [[60.0, 80.0]]
    """

    name = "Normalise"

    power: Positive = 1.0
    l2: bool = False

    def __call__(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        x = signed_power(x, self.power)
        return torch.nn.functional.normalize(x, dim=-1) if self.l2 else x

    def slope(self, pooled: Float[Tensor, "b d"], rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return ``v`` such that ``rows · self(x) = v · x`` at these features; the norm counts as a constant."""
        x = signed_power(pooled, self.power)
        chord = torch.where(pooled == 0, torch.zeros_like(x), x / torch.where(pooled == 0, 1.0, pooled))
        length = x.norm(dim=-1, keepdim=True).clamp(min=1e-12) if self.l2 else 1.0
        return rows * chord / length
