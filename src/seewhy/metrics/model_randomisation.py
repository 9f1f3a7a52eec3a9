"""Model parameter randomisation test (Adebayo et al. 2018, arXiv 1810.03292)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Case, Score
from .forgetting import Forgetting, forgetful, smoothed
from .randomised import Reset
from .similarity import spearman


@metrics.register
@dataclass(frozen=True)
class ModelRandomisation(Forgetting):
    """Rank correlation of a map with those of the model as it forgets layer by layer; low is good.

    Layers are reset cumulatively from the output downwards; the value is the mean Spearman correlation over the
    steps. An edge filter stays near 1, which is how it is found out. ``parts`` has the curve, and the same of absolute
    values, which for signed maps is another number.

    Args:
        n_steps: copies explained, of ever more reset layers.
        reset: ``"initialise"`` (the paper's) or ``"shuffle"`` the weights.
        seed: of the new weights.
    """

    name: ClassVar[str] = "model_randomisation"
    paper: ClassVar[str] = "Adebayo et al. 2018, arXiv:1810.03292"
    cost: ClassVar[str] = "one explanation per step, in torch"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    small: ClassVar = {"n_steps": 2}

    n_steps: int = 5
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        copies = forgetful(case, self.n_steps, self.reset, self.seed)
        changed = [smoothed(case, copy, 1, 0.0, self.seed) for copy in copies]
        return compared(maps, changed)


def compared(maps: Float[Tensor, "m h w"], changed: Sequence[Float[Tensor, "m h w"]]) -> list[Score]:
    """Correlations of each map with its own map at every step."""
    found = []
    for i, one in enumerate(maps):
        later = torch.stack([step[i] for step in changed]).flatten(1)
        before = one.flatten().expand_as(later)
        # Two constant maps have no correlation, and yet nothing has changed.
        same = (before == before[:, :1]).all(1) & (later == later[:, :1]).all(1)
        signed = spearman(before, later).masked_fill(same, 1.0)
        absolute = spearman(before.abs(), later.abs()).masked_fill(same, 1.0)
        value = float(signed.mean())
        parts = {"curve": signed.tolist(), "absolute": float(absolute.mean()), "absolute_curve": absolute.tolist()}
        found.append(Score(value, parts, (value,)))
    return found
