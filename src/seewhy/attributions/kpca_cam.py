"""KPCA-CAM (Karmani et al. 2024, arXiv 2410.00267)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import Positive
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction
from .cam import Cells
from .layers import layer_alone

KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "cosine": lambda cells, _: (unit := normalize(cells, dim=2)) @ unit.mT,
    "linear": lambda cells, _: cells @ cells.mT,
    "poly": lambda cells, gamma: (gamma * cells @ cells.mT + 1) ** 3,
    "rbf": lambda cells, gamma: (-gamma * torch.cdist(cells, cells).square()).exp(),
    "sigmoid": lambda cells, gamma: (gamma * cells @ cells.mT + 1).tanh(),
}
"""Kernels as in scikit-learn, with its offset of 1 and degree of 3."""


@attributions.register
@dataclass(frozen=True)
class KPCACAM(Attribution):
    """Eigen-CAM with a kernel: the first kernel principal component of a layer's positions, independent of the class.

        L = √λ_1 v_1

    ``L`` is the map, and ``λ_1`` and ``v_1`` are the first eigenvalue and eigenvector of the centred kernel matrix. The
    sign is chosen so that the map correlates positively with the mean of the absolute activations over channels. The
    matrix has one row per position; early layers, which have many positions, therefore take seconds.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map.
        kernel: ``"sigmoid"`` (pytorch-grad-cam), ``"rbf"``, ``"poly"``, ``"cosine"`` or ``"linear"``.
        gamma: slope of the kernel, greater than 0; default: 1 over the number of channels, as in scikit-learn.
    """

    name = "kpca_cam"
    spelt = "KPCA-CAM"
    paper = "Karmani et al. 2024, arXiv:2410.00267"
    needs = "a spatial last layer; it ignores the class"
    cost = "0 (an inner layer: 1)"

    layer: str | None = None
    kernel: Literal["cosine", "linear", "poly", "rbf", "sigmoid"] = "sigmoid"
    gamma: Positive | None = None

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        return kernel_component(layer_alone(model, look, self.layer), self.kernel, self.gamma)


def kernel_component(activations: Cells, kernel: str, gamma: float | None) -> Maps:
    """Compute the first component of the positions under a kernel, one picture at a time."""
    if not activations.isfinite().all():  # the decomposition would raise; the base says it better
        return torch.full_like(activations[:, 0], torch.nan)
    components = []
    for picture in activations:
        cells = picture.flatten(1).T.double()
        cells = (cells - cells.mean(0))[None]
        likeness = KERNELS[kernel](cells, gamma or 1 / len(picture))[0]
        rows = likeness.mean(0)
        values, vectors = torch.linalg.eigh(likeness - rows - rows[:, None] + rows.mean())
        component = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
        strength = picture.abs().mean(0).flatten()
        components.append(component * (-1.0 if component @ strength.double() < 0 else 1.0))
    return torch.stack(components).unflatten(1, activations.shape[2:]).to(activations.dtype)
