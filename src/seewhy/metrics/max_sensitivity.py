"""Max-sensitivity (Yeh et al. 2019, arXiv 1901.09392)."""

from dataclasses import dataclass

import torch

from ..bounds import Count, NotNegative
from . import metrics
from .base import AveragedMetric, Case, Maps, Score, scores


@metrics.register
@dataclass(frozen=True)
class MaxSensitivity(AveragedMetric):
    """Largest relative change of the map under small changes of the picture, the class held; low is good.

    ``max_{|d|_∞ ≤ r} |R(x + d) - R(x)| / |R(x)|`` over random ``d``, uniform in the cube.

    Args:
        radius: ``r``, in normalised units.
        n_samples: changes tried; more find larger values.
        batch_size: pictures explained at once.
        seed: of the changes.
    """

    name = "max_sensitivity"
    paper = "Yeh et al. 2019, arXiv:1901.09392"
    family = "robustness"
    needs = "the method"
    cost = "one explanation per sample"
    higher_is_better = False
    bounds = (0.0, float("inf"))
    reads = "map"
    sign = "as it is"
    requires = ("model", "methods")
    small = {"n_samples": 3}

    radius: NotNegative = 0.2
    n_samples: Count = 10
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        generator = torch.Generator().manual_seed(self.seed)
        largest = torch.zeros(len(maps))
        for part in torch.arange(self.n_samples).split(self.batch_size):
            grain = (2 * torch.rand(len(part), *case.pixels.shape, generator=generator) - 1) * self.radius
            moved = case.explain(case.pixels + grain) - maps[:, None]
            largest = torch.maximum(largest, moved.flatten(2).norm(dim=2).amax(1))
        norms = maps.flatten(1).norm(dim=1)
        return scores(torch.where(largest > 0, largest / norms.clamp(min=1e-12), 0.0))
