"""Smooth model parameter randomisation test (Hedström et al. 2024, arXiv 2401.06465)."""

from dataclasses import dataclass

from ..bounds import Count, NotNegative
from . import metrics
from .base import Case, Maps, Score
from .randomised import Forgetting, Reset, compared, forgetful, smoothed


@metrics.register
@dataclass(frozen=True)
class SmoothModelRandomisation(Forgetting):
    """Model randomisation of maps averaged over noisy pictures, so that grain alone counts for nothing.

    Args:
        n_steps: copies explained, of ever more reset layers.
        n_samples: noisy pictures a map.
        noise: standard deviation, in normalised units.
        reset: ``"initialise"`` or ``"shuffle"`` the weights.
        seed: of weights and noise.
    """

    name = "smooth_model_randomisation"
    paper = "Hedström et al. 2024, arXiv:2401.06465"
    cost = "n_samples explanations per step, in torch"
    higher_is_better = False
    bounds = (-1.0, 1.0)
    small = {"n_samples": 2, "n_steps": 2}

    n_steps: Count = 5
    n_samples: Count = 10
    noise: NotNegative = 0.1
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        noisy = (self.n_samples, self.noise, self.seed)
        models = forgetful(case, self.n_steps, self.reset, self.seed)
        return compared(smoothed(case, case.model, *noisy), [smoothed(case, model, *noisy) for model in models])
