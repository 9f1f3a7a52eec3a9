"""A copy of a model whose layers, from the output downwards, have forgotten what they learned."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..seeded import seeded

if TYPE_CHECKING:
    from ..attributions.base import Explainable
    from ..encoders.base import Encoder
    from ..heads.head import Head

Reset = Literal["initialise", "shuffle"]


@dataclass(frozen=True)
class RandomisedModel:
    """A model of its own: nothing in it is shared with the one it was copied from."""

    encoder: Encoder
    head: Head

    @property
    def network(self) -> None:
        """What a recipe trained inside the network and reads from there is not copied."""
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
    found: list[nn.Module] = [model.head]
    for part in (model.encoder.head, model.encoder.trunk):
        found += [m for m in reversed(list(part.modules())) if any(True for _ in m.parameters(recurse=False))]
    return found


def forget(layer: nn.Module, how: Reset, seed: int) -> None:
    """Give a layer new weights.

    Args:
        layer: changed in place.
        how: ``"initialise"`` calls the layer's own ``reset_parameters`` (batch norm's running statistics too) and
            draws from a normal distribution of the same mean and spread where there is none; ``"shuffle"`` puts the
            old weights in other places, which keeps the scale of what flows through.
        seed: of the draw; the global generator is left as found.

    Raises:
        InputError: ``how`` is neither.
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
