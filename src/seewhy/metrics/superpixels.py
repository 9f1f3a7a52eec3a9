"""Superpixels by local k-means in colour and place (SLIC, Achanta et al. 2012), without enforcing connection."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def superpixels(
    pixels: Float[Tensor, "3 h w"], n_segments: int, compactness: float = 1.0, n_rounds: int = 5
) -> Int[Tensor, "h w"]:
    """Segment of every pixel, 0…, no number left out.

    Args:
        pixels: normalised; colours are compared in this space.
        n_segments: about how many.
        compactness: weight of place against colour.
        n_rounds: of assigning and averaging.
    """
    height, width = pixels.shape[1:]
    rows = max(1, round((n_segments * height / width) ** 0.5))
    columns = max(1, round(n_segments / rows))
    step = (height * width / (rows * columns)) ** 0.5
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    points = torch.cat([pixels, torch.stack([y, x]) * (compactness / step)]).flatten(1).T
    home = (y * rows / height).long() * columns + (x * columns / width).long()
    home, label = home.flatten(), home.flatten()
    shifts = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    for _ in range(n_rounds):
        sums = torch.zeros(rows * columns, 5).index_add_(0, label, points)
        counts = torch.bincount(label, minlength=rows * columns)[:, None]
        centres = sums / counts.clamp(min=1)
        centres[counts[:, 0] == 0] = torch.inf
        # A pixel may only join the centres that began in its own cell or next to it.
        near_row = (home // columns + shifts[:, :1]).clamp(0, rows - 1)
        near_column = (home % columns + shifts[:, 1:]).clamp(0, columns - 1)
        near = near_row * columns + near_column
        distance = torch.stack([(points - centres[c]).square().sum(1) for c in near])
        label = near.gather(0, distance.argmin(0)[None])[0]
    return label.unique(return_inverse=True)[1].reshape(height, width)
