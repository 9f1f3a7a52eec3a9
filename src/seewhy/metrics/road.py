"""ROAD (Rong et al. 2022, arXiv 2202.00449)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..bounds import Count, NotNegative
from . import metrics
from .base import AveragedMetric, Case, Maps, Score, ranks, read_in_batches, scores
from .imputation import impute


@metrics.register
@dataclass(frozen=True)
class ROAD(AveragedMetric):
    """Half the gap in probability between removing the least and the most relevant pixels; high is good.

    ``ROAD = mean_q (p(x without the lowest q) - p(x without the highest q)) / 2``, removed pixels filled in linearly
    from their neighbours plus noise. ``parts`` has both curves: ``morf`` should be low, ``lerf`` high.

    Args:
        fractions: parts of the pixels removed.
        noise: standard deviation of the noise, in normalised units.
        batch_size: pictures a forward pass sees.
        seed: of the noise and of tied pixels.
    """

    name = "road"
    paper = "Rong et al. 2022, arXiv:2202.00449"
    cost = "two per fraction"
    higher_is_better = True
    bounds = (-0.5, 0.5)

    fractions: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    noise: NotNegative = 0.01
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        places = ranks(maps, case.pixels.shape[1:], self.seed)
        n_pixels, n = case.pixels[0].numel(), len(self.fractions)
        cuts = [round(f * n_pixels) for f in self.fractions]
        first = torch.tensor([0] * n + [n_pixels - c for c in cuts])  # most relevant first, then least
        last = torch.tensor([*cuts, *[n_pixels] * n])
        grain = torch.randn(case.pixels.shape, generator=torch.Generator().manual_seed(self.seed)) * self.noise

        def make(index: Tensor) -> Tensor:
            rank, i = places[index // (2 * n)], index % (2 * n)
            missing = (rank >= first[i][:, None, None]) & (rank < last[i][:, None, None])
            return impute(case.pixels, missing) + grain * missing[:, None]

        read = case.reader("probability")
        table = read_in_batches(read, make, len(maps) * 2 * n, self.batch_size).reshape(len(maps), 2, n)
        morf, lerf = table.unbind(1)
        values = (lerf - morf).mean(1) / 2
        return scores(values, morf=morf.mean(1), lerf=lerf.mean(1), morf_curve=morf, lerf_curve=lerf)
