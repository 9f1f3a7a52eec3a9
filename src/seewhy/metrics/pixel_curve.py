"""The base of metrics that change pixels in the order of a map and watch the probability."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count, NotNegative
from .base import AveragedMetric, Case, Curve, Maps, ranks, read_in_batches
from .fills import Picture, Transform

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
        which, step = torch.cartesian_prod(torch.arange(n_maps), nodes[1:-1]).T if len(nodes) > 2 else torch.empty(2, 0)
        which, step = which.long(), step.long()
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
