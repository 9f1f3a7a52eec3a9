"""Pixel flipping (Bach et al. 2015) with its area over the curve (Samek et al. 2017, arXiv 1509.06321)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..bounds import Count
from . import metrics
from .base import AveragedMetric, Case, Maps, Of, Score, ranks, read_in_batches, scores
from .fills import Fill, filled


@metrics.register
@dataclass(frozen=True)
class PixelFlipping(AveragedMetric):
    """Mean fall of the target's output as the hottest pixels are flipped, one part after another; high is good.

    ``AOPC = 1 / (L + 1) · Σ_{k=0…L} (f(x_0) - f(x_k))``, ``x_k`` with the hottest ``k/L`` of the pixels replaced.

    Args:
        n_steps: ``L``.
        fill: what takes a pixel's place.
        of: output read; the papers' is the logit, probabilities compare better between pictures.
        batch_size: pictures a forward pass sees.
        seed: how tied pixels are ordered.
    """

    name = "pixel_flipping"
    paper = "Bach et al. 2015; Samek et al. 2017, arXiv:1509.06321"
    cost = "one per step"
    higher_is_better = True
    bounds = (-float("inf"), float("inf"))

    n_steps: Count = 16
    fill: Fill = "black"
    of: Of = "probability"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        first, last = case.pixels, filled(case.pixels, self.fill, case.transform)
        places = ranks(maps, first.shape[1:], self.seed)
        n = self.n_steps
        cuts = (torch.linspace(0, 1, n + 1) * first[0].numel()).round().int()
        read = case.reader(self.of)

        def make(index: Tensor) -> Tensor:
            return torch.where((places[index // n] < cuts[index % n + 1][:, None, None])[:, None], last, first)

        whole = read(first[None])
        flipped = read_in_batches(read, make, len(maps) * n, self.batch_size).reshape(len(maps), n)
        curves = torch.cat([whole.repeat(len(maps), 1), flipped], 1)
        return scores((whole - curves).mean(1), values=curves)
