"""The base of metrics that change pixels in the order of a map and watch the probability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

Probability = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b k"]]
"""Normalised pixels → class probabilities."""


@dataclass(frozen=True)
class Curve:
    """Probability of the target as more and more of the picture is changed.

    Attributes:
        steps: fraction changed, 0…1, first 0, last 1.
        values: probability at each step.
    """

    steps: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def area(self) -> float:
        """Trapezoid area under the curve, 0…1."""
        return float(torch.trapezoid(torch.tensor(self.values), torch.tensor(self.steps)))


@dataclass(frozen=True)
class Metric(ABC):
    """Changes pixels by falling value of a map.

    Args:
        n_steps: how many times a further part of the picture is changed. RISE changes 224 pixels a time
            (``n_steps=224`` at 224 px); fewer steps give the same area to within the curve's roughness.
        batch_size: pictures a forward pass sees; bounds memory.
        seed: how tied pixels are ordered.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    higher_is_better: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    n_steps: int = 16
    batch_size: int = 64
    seed: int = 0

    @abstractmethod
    def ends(self, pixels: Float[Tensor, "3 h w"]) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        """The picture at step 0 and at the last step."""

    def __call__(
        self,
        probability: Probability,
        pixels: Float[Tensor, "3 h w"],
        maps: Float[Tensor, "m gh gw"],
        target: int,
    ) -> list[Curve]:
        """One curve a map; all maps share the forward passes.

        Args:
            probability: the model, on normalised pixels.
            pixels: one picture.
            maps: signed maps of any resolution, upsampled bilinearly; never made absolute.
            target: the class whose probability is watched.
        """
        first, last = self.ends(pixels)
        ranks = torch.stack([_ranks(m, pixels.shape[1:], self.seed) for m in maps])
        steps = torch.linspace(0, 1, self.n_steps + 1)
        cuts = (steps * ranks[0].numel()).round().long()
        # The two ends are the same for every map and are looked at once.
        jobs = [(m, s) for m in range(len(maps)) for s in range(1, self.n_steps)]
        edges = probability(torch.stack([first, last]))[:, target]
        values = torch.empty(len(maps), self.n_steps + 1)
        values[:, 0], values[:, -1] = edges[0], edges[1]
        for start in range(0, len(jobs), self.batch_size):
            part = jobs[start : start + self.batch_size]
            batch = torch.stack([torch.where(ranks[m] < cuts[s], last, first) for m, s in part])
            found = probability(batch)[:, target]
            for (m, s), value in zip(part, found, strict=True):
                values[m, s] = value
        return [Curve(tuple(steps.tolist()), tuple(row.tolist())) for row in values]


def _ranks(heat: Float[Tensor, "gh gw"], size: torch.Size, seed: int) -> Float[Tensor, "h w"]:
    """0 for the hottest pixel, then 1, …; ties in random order, so that no row is favoured."""
    full = interpolate(heat[None, None].float(), size=tuple(size), mode="bilinear", align_corners=False).flatten()
    shuffle = torch.randperm(len(full), generator=torch.Generator().manual_seed(seed))
    order = shuffle[full[shuffle].argsort(descending=True, stable=True)]
    ranks = torch.empty(len(full), dtype=torch.long)
    ranks[order] = torch.arange(len(full))
    return ranks.reshape(size)


def shuffled(heat: Float[Tensor, "h w"], n: int, seed: int) -> Float[Tensor, "n h w"]:
    """The control: the same values in random cells, so that only the place differs."""
    generator = torch.Generator().manual_seed(seed)
    flat = heat.flatten()
    return torch.stack([flat[torch.randperm(len(flat), generator=generator)].reshape(heat.shape) for _ in range(n)])
