"""Model parameter randomisation test (Adebayo et al. 2018, arXiv 1810.03292)."""

from dataclasses import dataclass

from ..bounds import Count
from . import metrics
from .base import Case, Maps, Score
from .randomised import Forgetting, Reset, compared, forgetful, smoothed


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

    name = "model_randomisation"
    paper = "Adebayo et al. 2018, arXiv:1810.03292"
    cost = "one explanation per step, in torch"
    higher_is_better = False
    bounds = (-1.0, 1.0)
    small = {"n_steps": 2}

    n_steps: Count = 5
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        return compared(maps, [smoothed(case, model) for model in forgetful(case, self.n_steps, self.reset, self.seed)])
