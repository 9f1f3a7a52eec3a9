"""The base of class activation maps: activations of one layer and the gradient of the target there, and a rule."""

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
"""A number in each cell of each channel, or, where both sides are 1, one for the channel."""
ROUNDING = 1e-5
"""Part of its terms' sizes below which a sum of them is taken for zero: gradients are rounded on their way back."""


@dataclass(frozen=True)
class CAM(Attribution):
    """The base of maps made from activations and their gradient; a subclass writes the rule.

    Class attributes:
        sums_products: whether the rule is a plain sum over channels of gradient · activation. That sum is zero if the
            encoder's last map is read through a layer norm alone; each patch's contribution then replaces it.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map, which needs no extra pass.
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
        """The rule of the method; ``gradient`` is ``(b, c, 1, 1)`` if it is the same in every cell."""


class WeightedCAM(CAM):
    """The base of maps that weigh each channel, or each of its cells, and sum the channels; a subclass writes the
    weights."""

    def weigh(self, activations: Cells, gradient: Cells) -> Maps:
        return weighted_sum(self.weights(activations, gradient), activations)

    @abstractmethod
    def weights(self, activations: Cells, gradient: Cells) -> Cells:
        """The weights of the method; ``(b, c, 1, 1)`` if a channel has one weight."""


def weighted_sum(weights: Cells, activations: Cells) -> Maps:
    """The sum of an activation's channels, each channel or each of its cells multiplied by its weight."""
    if weights.shape[2:] == (1, 1):
        return torch.einsum("bc,bchw->bhw", weights[:, :, 0, 0], activations)
    return (weights * activations).sum(1)


def first_component(maps: Cells, strength: Maps) -> Maps:
    """The first principal component of the cells, with the sign of ``strength`` or, if that is zero, of the cells'
    sizes.
    """
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
