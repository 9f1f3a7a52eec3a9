"""Metrics that change pixels in the order of a map and watch the output."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count, NotNegative
from . import metrics
from .base import AveragedMetric, Case, Curve, Maps, Of, Score, ranks, read_in_batches, scores
from .fills import Fill, Picture, Transform, filled

N_FIRST = 8
"""Stretches of a curve to begin with, where not every step is looked at."""


@dataclass(frozen=True)
class PixelCurve(AveragedMetric):
    """Changes pixels by falling value of a map.

    Args:
        n_steps: how many times a further part of the picture is changed. RISE changes 224 pixels a time
            (``n_steps=224`` at 224 px); fewer steps give the same area to within the curve's roughness.
        tolerance: 0 looks at every step. Above 0, a step between two that were looked at is looked at only where the
            curve is not straight: stretches are halved while the probability in their middle is further than this
            from the straight line. Ours, not the authors'; its error is on the page of deletion.
        batch_size: pictures a forward pass sees; bounds memory.
        seed: how tied pixels are ordered.
    """

    cost = "one per step"

    n_steps: Count = 16
    tolerance: NotNegative = 0.0
    batch_size: Count = 16
    seed: int = 0

    @abstractmethod
    def ends(self, pixels: Picture, transform: Transform | None = None) -> tuple[Picture, Picture]:
        """The picture at step 0 and at the last step."""

    def score(self, case: Case, maps: Maps) -> list[Curve]:
        first, last = (end.contiguous() for end in self.ends(case.pixels, case.transform))
        places = ranks(maps, case.pixels.shape[1:], self.seed)
        steps = torch.linspace(0, 1, self.n_steps + 1)
        cuts = (steps * first[0].numel()).round().int()
        read = case.reader("probability")
        # The two ends are the same for every map and are looked at once.
        ends = read(torch.stack([first, last]))[[0, -1]]

        def look(which: Tensor, step: Tensor) -> Tensor:
            def make(index: Tensor) -> Tensor:
                changed = places[which[index]] < cuts[step[index]][:, None, None]
                return torch.where(changed[:, None], last, first)

            return read_in_batches(read, make, len(which), self.batch_size)

        table = self._table(look, ends, len(maps))
        return [Curve(tuple(steps.tolist()), tuple(row.tolist())) for row in table]

    def _table(
        self, look: Callable[[Tensor, Tensor], Tensor], ends: Float[Tensor, " 2"], n_maps: int
    ) -> Float[Tensor, "m n"]:
        """The probability at every step of every map; ``look`` gives that of maps at steps."""
        n = self.n_steps
        table = torch.full((n_maps, n + 1), torch.nan)
        table[:, 0], table[:, -1] = ends[0], ends[1]
        nodes = torch.arange(n + 1) if not self.tolerance else torch.linspace(0, n, min(n, N_FIRST) + 1).round().long()
        if len(nodes) > 2:
            which, step = torch.cartesian_prod(torch.arange(n_maps), nodes[1:-1]).T
            table[which, step] = look(which, step)
        # Stretches between two steps looked at: map, from, to.
        starts = torch.cartesian_prod(torch.arange(n_maps), nodes[:-1])
        open_ = torch.cat([starts, nodes[1:].repeat(n_maps)[:, None]], 1)
        while len(open_ := open_[open_[:, 2] - open_[:, 1] > 1]):
            which, low, high = open_.T
            middle = (low + high) // 2
            part = (middle - low) / (high - low)
            straight = table[which, low] + part * (table[which, high] - table[which, low])
            table[which, middle] = look(which, middle)
            bent = (table[which, middle] - straight).abs() > self.tolerance
            halves = [torch.stack([which, low, middle], 1), torch.stack([which, middle, high], 1)]
            open_ = torch.cat([half[bent] for half in halves])
        return _joined(table) if self.tolerance else table


def _joined(table: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Steps that were not looked at, on the straight line between those that were."""
    every = np.arange(table.shape[1])
    rows = [row.double().numpy() for row in table]
    joined = [np.interp(every, every[~np.isnan(row)], row[~np.isnan(row)]) for row in rows]
    return torch.from_numpy(np.stack(joined)).to(table)


@metrics.register
@dataclass(frozen=True)
class Deletion(PixelCurve):
    """Area under the target's probability as the hottest pixels are replaced by the mean colour; low is good.

    The mean colour is 0 in the network's normalised space, as in the authors' code.

    Args:
        fill: what takes their place: ``"mean"``, ``"black"``, ``"blur"`` or ``"blur_reflected"``.
    """

    name = "deletion"
    paper = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better = False

    fill: Fill = "mean"

    def ends(self, pixels: Picture, transform: Transform | None = None) -> tuple[Picture, Picture]:
        return pixels, filled(pixels, self.fill, transform)


@metrics.register
@dataclass(frozen=True)
class Insertion(PixelCurve):
    """Area under the target's probability as the hottest pixels return to a blurred picture; high is good.

    The blur is the authors': an 11 px kernel from σ = 5 px, zeros beyond the border.

    Args:
        fill: what the picture starts as: ``"blur"``, ``"blur_reflected"``, whose border is not darker, ``"mean"`` or
            ``"black"``.
    """

    name = "insertion"
    paper = "Petsiuk et al. 2018, arXiv:1806.07421"
    higher_is_better = True

    fill: Fill = "blur"

    def ends(self, pixels: Picture, transform: Transform | None = None) -> tuple[Picture, Picture]:
        return filled(pixels, self.fill, transform), pixels


@metrics.register
@dataclass(frozen=True)
class PixelFlipping(AveragedMetric):
    """Mean fall of the target's output as the hottest pixels are flipped, one part after another; high is good.

    ``AOPC = 1 / (L + 1) · Σ_{k=0…L} (f(x_0) - f(x_k))``, ``x_k`` with the hottest ``k/L`` of the pixels replaced.

    Args:
        n_steps: ``L``.
        fill: what takes a pixel's place.
        of: output read; the papers' is the logit, probabilities compare better between pictures.
        batch_size: pictures a forward pass sees.
        seed: how tied pixels are ordered.
    """

    name = "pixel_flipping"
    paper = "Bach et al. 2015; Samek et al. 2017, arXiv:1509.06321"
    cost = "one per step"
    higher_is_better = True
    bounds = (-float("inf"), float("inf"))

    n_steps: Count = 16
    fill: Fill = "black"
    of: Of = "probability"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        first, last = case.pixels, filled(case.pixels, self.fill, case.transform)
        places = ranks(maps, first.shape[1:], self.seed)
        n = self.n_steps
        cuts = (torch.linspace(0, 1, n + 1) * first[0].numel()).round().int()
        read = case.reader(self.of)

        def make(index: Tensor) -> Tensor:
            return torch.where((places[index // n] < cuts[index % n + 1][:, None, None])[:, None], last, first)

        whole = read(first[None])
        flipped = read_in_batches(read, make, len(maps) * n, self.batch_size).reshape(len(maps), n)
        curves = torch.cat([whole.repeat(len(maps), 1), flipped], 1)
        return scores((whole - curves).mean(1), values=curves)
