"""Pixel flipping (Bach et al. 2015) with its area over the curve (Samek et al. 2017, arXiv 1509.06321)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from . import metrics
from .base import AveragedMetric, Case, Score, ranks, read_in_batches
from .fills import Fill, filled


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

    name: ClassVar[str] = "pixel_flipping"
    paper: ClassVar[str] = "Bach et al. 2015; Samek et al. 2017, arXiv:1509.06321"
    cost: ClassVar[str] = "one per step"
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))

    n_steps: int = 16
    fill: Fill = "black"
    of: Literal["probability", "logit"] = "probability"
    batch_size: int = 16
    seed: int = 0

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
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
        values = (whole - curves).mean(1)
        return [Score(float(v), {"values": c.tolist()}, (float(v),)) for v, c in zip(values, curves, strict=True)]
