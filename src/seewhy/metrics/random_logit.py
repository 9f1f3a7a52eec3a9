"""Random logit test (Sixt et al. 2020, arXiv 1912.09818)."""

from dataclasses import dataclass

import torch

from ..bounds import Count
from . import metrics
from .base import AveragedMetric, Case, InputError, Maps, Score, min_max, scores
from .similarity import ssim


@metrics.register
@dataclass(frozen=True)
class RandomLogit(AveragedMetric):
    """Structural similarity of the map with that of another class drawn at random; low is good.

    Args:
        n_classes: other classes drawn, of which the mean is taken; 1 in the paper.
        seed: of the draw.
    """

    name = "random_logit"
    paper = "Sixt et al. 2020, arXiv:1912.09818"
    family = "randomisation"
    needs = "the method"
    cost = "one explanation"
    higher_is_better = False
    bounds = (-1.0, 1.0)
    reads = "map"
    sign = "min-max to 0…1"
    requires = ("model", "methods")

    n_classes: Count = 1
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        assert case.model is not None  # the base has checked
        others = [k for k in range(len(case.model.head.bias)) if k != case.target]
        if not others:
            raise InputError(f"{self.name} needs a second class, and the model has one. Leave this metric out.")
        order = torch.randperm(len(others), generator=torch.Generator().manual_seed(self.seed)).tolist()
        drawn = [others[i] for i in order[: self.n_classes]]
        values = torch.zeros(len(maps))
        for k in drawn:
            changed = case.explain(case.pixels[None], target=k)[:, 0]
            values += ssim(min_max(maps), min_max(changed)) / len(drawn)
        return scores(values, other=drawn)
