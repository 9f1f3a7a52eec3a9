"""Max-sensitivity (Yeh et al. 2019, arXiv 1901.09392)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import AveragedMetric, Case, Score, scores


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

    name: ClassVar[str] = "max_sensitivity"
    paper: ClassVar[str] = "Yeh et al. 2019, arXiv:1901.09392"
    family: ClassVar[str] = "robustness"
    needs: ClassVar[str] = "the method"
    cost: ClassVar[str] = "one explanation per sample"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "as it is"
    requires: ClassVar[tuple[str, ...]] = ("model", "methods")
    small: ClassVar = {"n_samples": 3}

    radius: float = 0.2
    n_samples: int = 10
    batch_size: int = 16
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        generator = torch.Generator().manual_seed(self.seed)
        largest = torch.zeros(len(maps))
        for part in torch.arange(self.n_samples).split(self.batch_size):
            grain = (2 * torch.rand(len(part), *case.pixels.shape, generator=generator) - 1) * self.radius
            moved = case.explain(case.pixels + grain) - maps[:, None]
            largest = torch.maximum(largest, moved.flatten(2).norm(dim=2).amax(1))
        norms = maps.flatten(1).norm(dim=1)
        return scores(torch.where(largest > 0, largest / norms.clamp(min=1e-12), 0.0))
