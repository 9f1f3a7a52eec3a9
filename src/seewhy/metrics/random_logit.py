"""Random logit test (Sixt et al. 2020, arXiv 1912.09818)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from . import metrics
from .base import AveragedMetric, Case, Score, min_max, scores
from .similarity import ssim


@metrics.register
@dataclass(frozen=True)
class RandomLogit(AveragedMetric):
    """Structural similarity of the map with that of another class drawn at random; low is good.

    Args:
        n_classes: other classes drawn, of which the mean is taken; 1 in the paper.
        seed: of the draw.
    """

    name: ClassVar[str] = "random_logit"
    paper: ClassVar[str] = "Sixt et al. 2020, arXiv:1912.09818"
    family: ClassVar[str] = "randomisation"
    needs: ClassVar[str] = "the method"
    cost: ClassVar[str] = "one explanation"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "min-max to 0…1"
    requires: ClassVar[tuple[str, ...]] = ("model", "methods")

    n_classes: int = 1
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        assert case.model is not None
        others = [k for k in range(len(case.model.head.bias)) if k != case.target]
        if not others:
            raise InputError(f"{self.name} needs a second class, and the model has one. Leave this metric out.")
        drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(self.seed))[: self.n_classes]
        values = torch.zeros(len(maps))
        for k in drawn.tolist():
            changed = case.explain(case.pixels[None], target=others[k])[:, 0]
            values += ssim(min_max(maps), min_max(changed)) / len(drawn)
        return scores(values, [{"other": [others[k] for k in drawn.tolist()]}] * len(maps))
