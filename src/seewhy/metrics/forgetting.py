"""The base of metrics that ask whether a map changes when the model forgets what it learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .base import AveragedMetric, Case
from .randomised import RandomisedModel, Reset, forget, layers, twin

BATCH = 16
"""Noisy pictures explained at once."""


@dataclass(frozen=True)
class Forgetting(AveragedMetric):
    """Explains copies of the model; the model itself is never touched."""

    family: ClassVar[str] = "randomisation"
    needs: ClassVar[str] = "the method and the torch model"
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "as it is; of absolute values beside it"
    requires: ClassVar[tuple[str, ...]] = ("model", "methods")


def forgetful(case: Case, n_steps: int, reset: Reset, seed: int) -> Iterator[RandomisedModel]:
    """One copy, with ever more of its layers reset from the output downwards, the last time all of them."""
    assert case.model is not None
    copy = twin(case.model)
    every = layers(copy)
    done = 0
    for step in range(1, n_steps + 1):
        until = max(math.ceil(len(every) * step / n_steps), min(step, len(every)))
        for i in range(done, until):
            forget(every[i], reset, seed + i)
        done = until
        yield copy


def smoothed(case: Case, model: object, n_samples: int, noise: float, seed: int) -> Float[Tensor, "m h w"]:
    """Every method's mean map over noisy pictures; the maps of the picture itself when ``noise`` is 0."""
    if noise == 0:
        return case.explain(case.pixels[None], model=model)[:, 0]
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(case.methods or ()), *case.pixels.shape[1:])
    for part in torch.arange(n_samples).split(BATCH):
        grain = torch.stack([torch.randn(case.pixels.shape, generator=generator) for _ in part]) * noise
        total += case.explain(case.pixels + grain, model=model).sum(1)
    return total / n_samples
