"""Noisy linear imputation (Rong et al. 2022, ROAD, arXiv 2202.00449): a missing pixel is the mean of its neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad


def impute(
    pixels: Float[Tensor, "c h w"],
    missing: Bool[Tensor, "b h w"],
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> Float[Tensor, "b c h w"]:
    """Solve ``x_i = Σ_j w_ij x_j / Σ_j w_ij`` for every missing pixel, known pixels held.

    ``w`` is 1/6 for the four direct neighbours, 1/12 for the diagonal ones, 0 outside the picture. The system is
    symmetric and positive definite, so conjugate gradients solve it, begun from the solution on a grid of half the
    size (cascadic multigrid, Bornemann & Deuflhard 1996): the work grows with the pixels, not with their square.

    Args:
        pixels: the picture.
        missing: one mask a result.
        tolerance: largest residual, in units of the pixels.
        max_iterations: of conjugate gradients at full size.
    """
    # One mask at a time stays in the processor's cache, which is several times as fast as all together.
    known = [(~one)[None, None].to(pixels) for one in missing]
    return torch.cat([_solve(pixels[None] * one, one, tolerance, max_iterations) for one in known])


def _solve(values: Tensor, known: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    height, width = known.shape[2:]
    start = values
    if min(height, width) > 4 and bool((known == 0).any()):
        even = (0, width % 2, 0, height % 2)
        weight = avg_pool2d(pad(known, even), 2)
        coarse = avg_pool2d(pad(values, even), 2) / weight.clamp(min=1e-6)
        half = _solve(coarse, (weight > 0).to(known), tolerance, 2 * max_iterations)
        fine = interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)[..., :height, :width]
        start = torch.where(known > 0, values, fine)
    return _conjugate_gradients(start, known, tolerance, max_iterations)


def _conjugate_gradients(x: Tensor, known: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    free = 1 - known
    sums = _neighbours(torch.ones_like(known[:1]))
    residual = free * (_neighbours(x) - sums * x)
    direction = residual.clone()
    energy = (residual * residual).sum((2, 3), keepdim=True)
    for _ in range(max_iterations):
        if float(residual.abs().amax()) <= tolerance:
            break
        image = free * (sums * direction - _neighbours(direction))
        step = energy / (direction * image).sum((2, 3), keepdim=True).clamp(min=1e-30)
        x = x + step * direction
        residual = residual - step * image
        before, energy = energy, (residual * residual).sum((2, 3), keepdim=True)
        direction = residual + energy / before.clamp(min=1e-30) * direction
    return x


def _neighbours(x: Tensor) -> Tensor:
    """Weighted sum of the eight neighbours: ``[1 2 1]ᵀ[1 2 1] / 12`` less its centre."""
    rows = 2 * x
    rows[..., 1:, :] += x[..., :-1, :]
    rows[..., :-1, :] += x[..., 1:, :]
    both = 2 * rows
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    return (both - 4 * x) / 12
