"""Smooth model parameter randomisation test (Hedström et al. 2024, arXiv 2401.06465)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import Case, Score
from .forgetting import Forgetting, forgetful, smoothed
from .model_randomisation import compared
from .randomised import Reset


@metrics.register
@dataclass(frozen=True)
class SmoothModelRandomisation(Forgetting):
    """:class:`ModelRandomisation` of maps averaged over noisy pictures, so that grain alone counts for nothing.

    Args:
        n_steps: copies explained, of ever more reset layers.
        n_samples: noisy pictures a map.
        noise: standard deviation, in normalised units.
        reset: ``"initialise"`` or ``"shuffle"`` the weights.
        seed: of weights and noise.
    """

    name: ClassVar[str] = "smooth_model_randomisation"
    paper: ClassVar[str] = "Hedström et al. 2024, arXiv:2401.06465"
    cost: ClassVar[str] = "n_samples explanations per step, in torch"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    small: ClassVar = {"n_samples": 2, "n_steps": 2}

    n_steps: int = 5
    n_samples: int = 10
    noise: float = 0.1
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        before = smoothed(case, case.model, self.n_samples, self.noise, self.seed)
        copies = forgetful(case, self.n_steps, self.reset, self.seed)
        return compared(before, [smoothed(case, copy, self.n_samples, self.noise, self.seed) for copy in copies])
