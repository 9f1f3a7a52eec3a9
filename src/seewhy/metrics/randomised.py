"""Whether a map changes when the model forgets what it learned: copies whose layers are reset from the output down."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..seeded import seeded
from .base import AveragedMetric, Case, InputError, Maps, Score, scores
from .similarity import spearman

if TYPE_CHECKING:
    from ..attributions.base import Explainable
    from ..encoders.base import Encoder
    from ..heads.head import Head

Reset = Literal["initialise", "shuffle"]
BATCH = 16
"""Noisy pictures explained at once."""


@dataclass(frozen=True)
class RandomisedModel:
    """A model of its own: nothing in it is shared with the one it was copied from."""

    encoder: Encoder
    head: Head

    @property
    def network(self) -> None:
        """What a recipe trained inside the network is not copied: who reads it would explain what was not reset."""
        raise InputError(
            "A copy of the model was made whose layers forget what they learned, and the method reads parts of the "
            "model that are not in the copy. A method that reads the copy alone was expected. Leave this one out."
        )


def twin(model: Explainable) -> RandomisedModel:
    """A copy that runs in torch."""
    from ..encoders.base import Encoder

    old = model.encoder
    # One memo, so that what trunk, head and whole network share stays shared.
    trunk, pool, whole = copy.deepcopy((old.trunk, old.head, old.module))
    encoder = Encoder(
        name=f"{old.name} (copy)",
        transform=old.transform,
        trunk=lambda: trunk,
        head=pool,
        layout=old.layout,
        fingerprint=f"{old.fingerprint} copy",
        classes=old.classes,
        module=lambda: whole,
        engine="torch:f32",
    )
    return RandomisedModel(encoder, copy.deepcopy(model.head))


def layers(model: RandomisedModel) -> list[nn.Module]:
    """Everything with weights of its own, the output first."""
    every: list[nn.Module] = [model.head]
    for part in (model.encoder.head, model.encoder.trunk):
        every += [m for m in reversed(list(part.modules())) if any(True for _ in m.parameters(recurse=False))]
    return every


def forget(layer: nn.Module, how: Reset, seed: int) -> None:
    """Give a layer new weights, in place; the global generator is left as it was.

    ``"initialise"`` calls the layer's own ``reset_parameters`` (batch norm's running statistics too) and draws from a
    normal distribution of the same mean and spread where there is none; ``"shuffle"`` puts the old weights in other
    places, which keeps the scale of what flows through.
    """
    if how not in ("initialise", "shuffle"):
        raise InputError(f"The reset {how!r} was given. Choose 'initialise' or 'shuffle'.")
    generator = torch.Generator().manual_seed(seed)
    reset = getattr(layer, "reset_parameters", None)
    if how == "initialise" and callable(reset):
        with seeded(seed), torch.no_grad():
            reset()
        return
    own: list[Tensor] = [*layer.parameters(recurse=False)] or [*layer.buffers(recurse=False)]
    with torch.no_grad():
        for weight in own:
            weight.copy_(_drawn(weight, how, generator))


def _drawn(weight: Tensor, how: Reset, generator: torch.Generator) -> Tensor:
    if how == "shuffle" or weight.numel() < 2:
        return weight.flatten()[torch.randperm(weight.numel(), generator=generator)].reshape(weight.shape)
    drawn = torch.randn(weight.shape, generator=generator)
    return (drawn * weight.std().cpu() + weight.mean().cpu()).to(weight)


@dataclass(frozen=True)
class Forgetting(AveragedMetric):
    """Explains copies of the model; the model itself is never touched."""

    family = "randomisation"
    needs = "the method and the torch model"
    reads = "map"
    sign = "as it is; of absolute values beside it"
    requires = ("model", "methods")


def forgetful(case: Case, n_steps: int, reset: Reset, seed: int) -> Iterator[RandomisedModel]:
    """One copy, with ever more of its layers reset from the output downwards, the last time all of them."""
    assert case.model is not None  # the base has checked
    copied = twin(case.model)
    every = layers(copied)
    done = 0
    for step in range(1, n_steps + 1):
        until = max(math.ceil(len(every) * step / n_steps), min(step, len(every)))
        for i in range(done, until):
            forget(every[i], reset, seed + i)
        done = until
        yield copied


def smoothed(case: Case, model: object, n_samples: int = 1, noise: float = 0.0, seed: int = 0) -> Maps:
    """Every method's mean map over noisy pictures; the maps of the picture itself when ``noise`` is 0."""
    if noise == 0:
        return case.explain(case.pixels[None], model=model)[:, 0]
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(case.methods or ()), *case.pixels.shape[1:])
    for part in torch.arange(n_samples).split(BATCH):
        grain = torch.stack([torch.randn(case.pixels.shape, generator=generator) for _ in part]) * noise
        total += case.explain(case.pixels + grain, model=model).sum(1)
    return total / n_samples


def compared(maps: Maps, changed: Sequence[Maps]) -> list[Score]:
    """Rank correlations of each map, and of its absolute values, with its own map at every step."""
    curves = []
    for i, one in enumerate(maps):
        later = torch.stack([step[i] for step in changed]).flatten(1)
        before = one.flatten().expand_as(later)
        # Two constant maps have no correlation, and yet nothing has changed.
        same = (before == before[:, :1]).all(1) & (later == later[:, :1]).all(1)
        pairs = ((before, later), (before.abs(), later.abs()))
        curves.append(torch.stack([spearman(*pair).masked_fill(same, 1.0) for pair in pairs]))
    signed, absolute = torch.stack(curves, 1)
    return scores(signed.mean(1), curve=signed, absolute=absolute.mean(1), absolute_curve=absolute)
