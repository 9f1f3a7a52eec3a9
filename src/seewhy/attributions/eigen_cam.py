"""Eigen-CAM (Muhammad & Yeasin 2020, arXiv 2008.00299)."""

from dataclasses import dataclass

from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction
from .cam import first_component
from .layers import layer_alone


@attributions.register
@dataclass(frozen=True)
class EigenCAM(Attribution):
    """First principal component of a layer's activations over positions, independent of the class.

    The activations are centred over positions, as in pytorch-grad-cam. The sign of the component is chosen so that the
    map correlates positively with the mean of the absolute activations over channels.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map.
    """

    name = "eigen_cam"
    spelt = "Eigen-CAM"
    paper = "Muhammad & Yeasin 2020, arXiv:2008.00299"
    needs = "a spatial last layer; it ignores the class"
    cost = "0 (an inner layer: 1)"

    layer: str | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        activations = layer_alone(model, look, self.layer)
        return first_component(activations, activations.abs().mean(1))
