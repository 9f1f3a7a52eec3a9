"""Sensitivity-n (Ancona et al. 2018, arXiv 1711.06104)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import AveragedMetric, Case, Score
from .fills import Fill, filled
from .random_sets import losses, random_sets
from .similarity import pearson


@metrics.register
@dataclass(frozen=True)
class SensitivityN(AveragedMetric):
    """Correlation of the evidence in random pixel sets with what the output loses without them; high is good.

    For each size ``n``: Pearson correlation over random sets ``S``, ``|S| = n``, of ``Σ_{i in S} R_i`` with
    ``y(x) - y(x without S)``; the value is the mean over sizes, ``parts`` has the curve. Made for maps in units of
    the output, of which it is 1 on a linear model; of others only the correlation's sign and size can be read.

    Args:
        fractions: set sizes as parts of the pixels; the paper goes from 1 to 80 %.
        n_sets: sets a size.
        fill: what takes their place.
        of: output read; the paper's is the logit.
        batch_size: pictures a forward pass sees.
        seed: of the sets.
    """

    name: ClassVar[str] = "sensitivity_n"
    paper: ClassVar[str] = "Ancona et al. 2018, arXiv:1711.06104"
    needs: ClassVar[str] = "a map and the model's logits"
    cost: ClassVar[str] = "one per set, shared by all maps"
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    sign: ClassVar[str] = "as it is"
    small: ClassVar = {"n_sets": 8}

    fractions: tuple[float, ...] = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8)
    n_sets: int = 50
    fill: Fill = "mean"
    of: Literal["logit", "probability"] = "logit"
    batch_size: int = 16
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        size = (case.pixels.shape[1], case.pixels.shape[2])
        blank = filled(case.pixels, self.fill, case.transform)
        curves = []
        for i, fraction in enumerate(self.fractions):
            n = max(1, round(fraction * size[0] * size[1]))
            sets = random_sets(self.n_sets, n, size, self.seed * len(self.fractions) + i)
            claims, lost = losses(case, maps, sets, self.n_sets, blank, of=self.of, batch_size=self.batch_size)
            curves.append(pearson(claims, lost.expand_as(claims)))
        table = torch.stack(curves, 1)
        return [Score(float(c.mean()), {"curve": c.tolist()}, (float(c.mean()),)) for c in table]
