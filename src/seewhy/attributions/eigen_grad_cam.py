"""EigenGradCAM: Eigen-CAM (Muhammad & Yeasin 2020, arXiv 2008.00299) of activation × gradient."""

from dataclasses import dataclass

from . import attributions
from .base import Maps
from .cam import CAM, Cells, first_component


@attributions.register
@dataclass(frozen=True)
class EigenGradCAM(CAM):
    """Shows what varies most in activation × gradient: Eigen-CAM for one class, as in pytorch-grad-cam.

    The products ``∂y/∂A A``, less their mean over cells, are projected onto their first right singular vector. Its sign
    is chosen so that the map correlates with HiResCAM; where that is zero, cells with large products are positive.
    """

    name = "eigen_grad_cam"
    spelt = "Eigen-Grad-CAM"
    paper = "pytorch-grad-cam, after Muhammad & Yeasin 2020, arXiv:2008.00299"

    def weigh(self, activations: Cells, gradient: Cells) -> Maps:
        products = gradient * activations
        return first_component(products, products.sum(1))
