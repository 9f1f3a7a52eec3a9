"""Efficient model parameter randomisation test (Hedström et al. 2024, arXiv 2401.06465)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count
from . import metrics
from .base import Case, Maps, Score
from .randomised import Forgetting, Reset, forgetful, smoothed


@metrics.register
@dataclass(frozen=True)
class EfficientModelRandomisation(Forgetting):
    """How much more disordered the map becomes when the whole model has forgotten; high is good.

    ``(H(R') - H(R)) / H(R)``, ``H`` the entropy of the histogram of a map's values.

    Args:
        n_bins: of the histogram.
        reset: ``"initialise"`` or ``"shuffle"`` the weights.
        seed: of the new weights.
    """

    name = "efficient_model_randomisation"
    paper = "Hedström et al. 2024, arXiv:2401.06465"
    cost = "one explanation, in torch"
    higher_is_better = True
    bounds = (-1.0, float("inf"))
    sign = "as it is"

    n_bins: Count = 100
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        (model,) = forgetful(case, 1, self.reset, self.seed)
        found = []
        for one, after in zip(maps, smoothed(case, model), strict=True):
            old, new = histogram_entropy(one, self.n_bins), histogram_entropy(after, self.n_bins)
            value = (new - old) / max(old, 1e-9) if new != old else 0.0
            found.append(Score(value, {"before": old, "after": new}, (value,)))
        return found


def histogram_entropy(heat: Float[Tensor, "h w"], n_bins: int) -> float:
    """Entropy in nats of a map's values in equal-width bins between their extremes."""
    counts = torch.histc(heat.flatten().double(), n_bins)
    q = counts / counts.sum()
    return float(-torch.xlogy(q, q).sum())
