"""Iterative removal of features (IROF, Rieger & Hansen 2020, arXiv 2003.08747)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Count
from . import metrics
from .base import AveragedMetric, Case, Maps, Score, read_in_batches, scores
from .fills import Fill, filled


@metrics.register
@dataclass(frozen=True)
class IROF(AveragedMetric):
    """Area over the curve of the target's probability as superpixels go, by falling mean of the map; high is good.

    ``1 - mean_{l=0…L} p(x without the l hottest segments) / p(x)``.

    Args:
        n_segments: about how many superpixels.
        fill: what takes their place; the paper's is the mean colour.
        batch_size: pictures a forward pass sees.
        seed: how tied segments are ordered.
    """

    name = "irof"
    paper = "Rieger & Hansen 2020, arXiv:2003.08747"
    cost = "one per segment"
    higher_is_better = True
    bounds = (-float("inf"), 1.0)
    sign = "as it is, segments by falling mean"
    small = {"n_segments": 9}

    n_segments: Count = 64
    fill: Fill = "mean"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        segments = superpixels(case.pixels, self.n_segments)
        n = int(segments.max()) + 1
        blank = filled(case.pixels, self.fill, case.transform)
        places = torch.stack([_segment_ranks(one, segments, n, self.seed) for one in maps])
        read = case.reader("probability")
        whole = read(case.pixels[None])[0]

        def make(index: Tensor) -> Tensor:
            gone = places[index // n] <= (index % n)[:, None, None]
            return torch.where(gone[:, None], blank, case.pixels)

        left = read_in_batches(read, make, len(maps) * n, self.batch_size).reshape(len(maps), n)
        curves = torch.cat([torch.ones(len(maps), 1), left / whole.clamp(min=1e-12)], 1)
        return scores(1 - curves.mean(1), values=curves)


def _segment_ranks(heat: Float[Tensor, "h w"], segments: Tensor, n: int, seed: int) -> Tensor:
    """Every pixel's segment's place by falling mean."""
    flat = segments.flatten()
    means = torch.zeros(n, dtype=torch.double).index_add_(0, flat, heat.flatten().double()) / torch.bincount(flat)
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = shuffle[means[shuffle].argsort(descending=True, stable=True)]
    place = torch.empty(n, dtype=torch.long)
    place[order] = torch.arange(n)
    return place[segments]


def superpixels(
    pixels: Float[Tensor, "3 h w"], n_segments: int, compactness: float = 1.0, n_rounds: int = 5
) -> Int[Tensor, "h w"]:
    """Segment of every pixel, 0…, by local k-means in colour and place (SLIC, Achanta et al. 2012).

    Unlike SLIC's they may be in several pieces; ``compactness`` is the weight of place against colour.
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
