"""The base of class activation maps: activations of one layer and the gradient of the target there, and a rule."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import EncoderOutput
from ..heads.head import TargetFunction
from .attended import cells_evidence
from .base import Attribution, Explainable
from .inner_layer import layer_and_gradient
from .reading import reading_of


@dataclass(frozen=True)
class CAM(Attribution):
    """A map made from activations and their gradient; the method writes the rule.

    Class attributes:
        sums_products: the rule is a plain sum over channels of gradient · activation, which is zero where the encoder's
            last map is read through a layer norm alone; what each patch's value adds then takes its place.

    Args:
        layer: dotted name of an inner layer of the trunk; left out, the encoder's last map, which costs no pass.
    """

    needs: ClassVar[str] = "a spatial last layer (any CNN or transformer)"
    cost: ClassVar[str] = "0 (an inner layer: 1 and the backward pass behind it)"

    sums_products: ClassVar[bool] = False

    layer: str | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if self.layer is None and self.sums_products:
            reading = reading_of(model.encoder, look.features)
            if reading.scale_free:
                found = cells_evidence(model, look, lambda pooled: target(model.head(pooled)), reading)
                if found is not None:
                    return found
        return self.weigh(*layer_and_gradient(model, look, target, self.layer))

    @abstractmethod
    def weigh(
        self, activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c gh gw"]
    ) -> Float[Tensor, "b h w"]:
        """The rule; ``gradient`` is ``(b, c, 1, 1)`` where it is the same in every cell."""


class WeightedCAM(CAM):
    """A rule that gives each channel, or each of its cells, a weight, and sums the channels; it writes the weights."""

    def weigh(
        self, activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c gh gw"]
    ) -> Float[Tensor, "b h w"]:
        weights = self.weights(activations, gradient)
        if weights.shape[2:] == (1, 1):
            return torch.einsum("bc,bchw->bhw", weights[:, :, 0, 0], activations)
        return (weights * activations).sum(1)

    @abstractmethod
    def weights(
        self, activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c gh gw"]
    ) -> Float[Tensor, "b c wh ww"]:
        """The rule; ``(b, c, 1, 1)`` where a channel has one weight."""
