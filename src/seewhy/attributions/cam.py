"""The base classes of class activation maps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .attended import cells_evidence, reading_of
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction
from .layers import layer_and_gradient

Cells = Float[Tensor, "b c _h _w"]
"""Values per channel and position; a side of 1 means the same value at all positions."""
ROUNDING = 1e-5
"""Relative size below which a sum counts as zero."""


@dataclass(frozen=True)
class CAM(Attribution):
    """The base class of maps computed from a layer's activations and gradient.

    Class attributes:
        sums_products: whether the map is the sum over channels of gradient times activation. For heads that read the
            last map only through a layer norm and attention, the sum is zero; the map then shows the contribution of
            each patch.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map, which needs no further forward pass.
    """

    needs = "a spatial last layer (any CNN or transformer)"
    cost = "0 (an inner layer: 1 and the backward pass behind it)"
    sums_products: ClassVar[bool] = False

    layer: str | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        if self.layer is None and self.sums_products:
            reading = reading_of(model.encoder, look.features)
            if reading.scale_free:
                maps = cells_evidence(model, look, lambda pooled: target(model.head(pooled)), reading)
                if maps is not None:
                    return maps
        return self.weigh(*layer_and_gradient(model, look, target, self.layer))

    @abstractmethod
    def weigh(self, activations: Cells, gradient: Cells) -> Maps:
        """Compute the map; ``gradient`` is ``(b, c, 1, 1)`` if it is the same at all positions."""


class WeightedCAM(CAM):
    """The base class of maps that are weighted sums of channels."""

    def weigh(self, activations: Cells, gradient: Cells) -> Maps:
        return weighted_sum(self.weights(activations, gradient), activations)

    @abstractmethod
    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        """Compute the weights of the activations. The shape is ``(b, c, 1, 1)`` if each channel has one weight."""


def stretched(maps: Float[Tensor, ...], over: tuple[int, ...], least: float = 1e-7) -> Float[Tensor, ...]:
    """Scale maps to 0…1 over some axes; constant maps become 0."""
    maps = maps - maps.amin(over, keepdim=True)
    return maps / (maps.amax(over, keepdim=True) + least)


def weighted_sum(weights: Cells, activations: Cells) -> Maps:
    if weights.shape[2:] == (1, 1):
        return torch.einsum("bc,bchw->bhw", weights[:, :, 0, 0], activations)
    return (weights * activations).sum(1)


def first_component(maps: Cells, strength: Maps) -> Maps:
    """Compute the first principal component of the activations over positions."""
    if not maps.isfinite().all():  # the decomposition would raise; the base says it better
        return torch.full_like(strength, torch.nan)
    cells = maps.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    left, values, _ = torch.linalg.svd(cells, full_matrices=False)
    component = left[..., 0] * values[:, :1]
    sizes = maps.abs().sum(1).flatten(1)
    speaks = (component * strength.flatten(1)).sum(1, keepdim=True)
    unclear = speaks.abs() <= ROUNDING * (component.abs() * sizes).sum(1, keepdim=True)
    speaks = torch.where(unclear, (component * sizes).sum(1, keepdim=True), speaks)
    sign = torch.where(speaks < 0, -1.0, 1.0)
    return (component * sign).unflatten(1, maps.shape[2:])
