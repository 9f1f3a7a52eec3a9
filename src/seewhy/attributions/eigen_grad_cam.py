"""EigenGradCAM: Eigen-CAM (Muhammad & Yeasin 2020, arXiv 2008.00299) of activation × gradient."""

from dataclasses import dataclass

from . import attributions
from .base import Maps
from .cam import CAM, Cells, first_component


@attributions.register
@dataclass(frozen=True)
class EigenGradCAM(CAM):
    """First principal component of activation times gradient over positions, as in pytorch-grad-cam.

    The products are centred over positions. The sign of the component is chosen so that the map correlates positively
    with HiResCAM or, if that correlation is zero, with the sum of absolute products.
    """

    name = "eigen_grad_cam"
    spelt = "Eigen-Grad-CAM"
    paper = "pytorch-grad-cam, after Muhammad & Yeasin 2020, arXiv:2008.00299"

    def weigh(self, activations: Cells, gradient: Cells) -> Maps:
        products = gradient * activations
        return first_component(products, products.sum(1))
