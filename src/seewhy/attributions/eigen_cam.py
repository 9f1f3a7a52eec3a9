"""Eigen-CAM (Muhammad & Yeasin 2020, arXiv 2008.00299)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..encoders.base import EncoderOutput
from ..heads.head import TargetFunction
from . import attributions
from .base import Attribution, Explainable
from .first_component import first_component
from .inner_layer import layer_alone


@attributions.register
@dataclass(frozen=True)
class EigenCAM(Attribution):
    """Shows what varies most in the layer, whatever the target: a control, and no explanation of a class.

    The cells' channels, less their mean over cells, are projected on their first right singular vector. The paper
    projects without taking the mean away (``L = A v_1``); pytorch-grad-cam takes it away, and so is it done here. A
    singular vector has no sign of its own: ours is that for which the map correlates with the mean of ``|A|`` over
    channels, which behind a ReLU is the mean activation.

    Cost: none beside the pass that predicts; with ``layer``, the forward pass up to it.
    """

    name: ClassVar[str] = "eigen_cam"
    spelt: ClassVar[str] = "Eigen-CAM"
    paper: ClassVar[str] = "Muhammad & Yeasin 2020, arXiv:2008.00299"
    needs: ClassVar[str] = "a spatial last layer; it does not see the class"
    cost: ClassVar[str] = "0 (an inner layer: 1)"

    layer: str | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        activations = layer_alone(model, look, self.layer)
        return first_component(activations, activations.abs().mean(1))
