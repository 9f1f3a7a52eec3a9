"""EigenGradCAM: Eigen-CAM (Muhammad & Yeasin 2020, arXiv 2008.00299) of activation × gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from . import attributions
from .cam import CAM
from .first_component import first_component


@attributions.register
@dataclass(frozen=True)
class EigenGradCAM(CAM):
    """Shows what varies most in activation × gradient: Eigen-CAM made class-discriminative, as in pytorch-grad-cam.

    The products ``∂y/∂A A``, less their mean over cells, are projected on their first right singular vector. The sign
    is the one for which the map correlates with HiResCAM, the sum of the products over channels, so that positive
    speaks for the target. Where HiResCAM is zero, as it is before a layer norm, cells whose products are large are
    positive. Cells are relative to the picture's mean.

    Cost: none beside the pass that predicts; with ``layer``, one forward pass and the backward pass behind it.
    """

    name: ClassVar[str] = "eigen_grad_cam"
    spelt: ClassVar[str] = "Eigen-Grad-CAM"
    paper: ClassVar[str] = "pytorch-grad-cam, after Muhammad & Yeasin 2020, arXiv:2008.00299"

    def weigh(
        self, activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c gh gw"]
    ) -> Float[Tensor, "b h w"]:
        products = gradient * activations
        return first_component(products, products.sum(1))
