"""Faithfulness correlation (Bhatt et al. 2020, arXiv 2005.00631); as µFidelity in xplique."""

from dataclasses import dataclass
from typing import Literal

from ..bounds import Count, Natural, Positive
from . import metrics
from .base import AveragedMetric, Case, InputError, Maps, Of, Score, scores
from .fills import Fill, filled
from .random_sets import losses, random_sets
from .similarity import pearson, spearman


@metrics.register
@dataclass(frozen=True)
class FaithfulnessCorrelation(AveragedMetric):
    """Correlation of the evidence in random sets of one size with what the output loses without them; high is good.

    ``corr_S(Σ_{i in S} R_i, f(x) - f(x without S))``. µFidelity is ``FaithfulnessCorrelation(size=0.2, grid=9,
    fill="mean", of="logit", correlation="spearman")``.

    Args:
        n_sets: sets drawn.
        size: pixels a set; below 1, the part of the cells.
        grid: sets are made of the cells of a ``grid`` × ``grid`` raster; 0 takes single pixels.
        fill: what takes their place.
        of: output read.
        correlation: of values or of ranks.
        batch_size: pictures a forward pass sees.
        seed: of the sets.
    """

    name = "faithfulness_correlation"
    paper = "Bhatt et al. 2020, arXiv:2005.00631"
    cost = "one per set, shared by all maps"
    higher_is_better = True
    bounds = (-1.0, 1.0)
    sign = "as it is"
    small = {"size": 0.1, "n_sets": 12}

    n_sets: Count = 100
    size: Positive = 224
    grid: Natural = 0
    fill: Fill = "black"
    of: Of = "probability"
    correlation: Literal["pearson", "spearman"] = "pearson"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        height, width = case.pixels.shape[1:]
        shape = (self.grid, self.grid) if self.grid else (height, width)
        cells = shape[0] * shape[1]
        n = max(1, round(self.size * cells)) if self.size < 1 else int(self.size)
        if n >= cells:
            raise InputError(f"Sets of {n} of {cells} cells were asked for. Make size smaller than the picture.")
        sets = random_sets(self.n_sets, n, shape, self.seed)
        blank = filled(case.pixels, self.fill, case.transform)
        claims, lost = losses(case, maps, sets, self.n_sets, blank, of=self.of, batch_size=self.batch_size)
        correlate = pearson if self.correlation == "pearson" else spearman
        return scores(correlate(claims, lost.expand_as(claims)))
