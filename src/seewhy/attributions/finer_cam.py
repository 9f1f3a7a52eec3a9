"""Finer-CAM (Zhang et al. 2025, arXiv 2501.11309)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..encoders.base import EncoderOutput
from ..errors import InputError
from ..heads.head import Target, TargetFunction
from . import attributions
from .base import Attribution, Explainable
from .inner_layer import layer_and_gradient


@attributions.register
@dataclass(frozen=True)
class FinerCAM(Attribution):
    """Grad-CAM of a class's lead over the classes that are likest to it on this picture.

    ``y = y_c − γ mean_d y_d`` over the ``n_references`` classes ``d`` whose logits are nearest to that of ``c``, and
    then ``α_k = mean_ij ∂y/∂A_k,ij``, ``L = Σ_k α_k A_k`` (paper, section 3). What the likest classes share with ``c``
    cancels; what is left tells them apart. With a class to contrast with, that one alone is the reference. The ReLU is
    left to the display.

    Cost: none beside the pass that predicts; with ``layer``, one forward pass and the backward pass behind it.

    Args:
        layer: an inner layer instead of the last map.
        n_references: classes to tell it from; the paper's 3.
        strength: ``γ``, the paper's 0.6; at 0 the map is Grad-CAM's.

    Raises:
        InputError: the target is a function of the logits, which has no likest classes.
    """

    name: ClassVar[str] = "finer_cam"
    spelt: ClassVar[str] = "Finer-CAM"
    paper: ClassVar[str] = "Zhang et al. 2025, arXiv:2501.11309"
    needs: ClassVar[str] = "a spatial last layer (any CNN or transformer), and at least two classes"
    cost: ClassVar[str] = "0 (an inner layer: 1 and the backward pass behind it)"

    layer: str | None = None
    n_references: int = 3
    strength: float = 0.6

    def __post_init__(self) -> None:
        if self.n_references < 1 or not self.strength >= 0:
            raise InputError(
                f"finer_cam was given n_references={self.n_references} and strength={self.strength}. At least one "
                "class and a number from 0 were expected. Change them."
            )

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if not isinstance(target, Target):
            raise InputError(
                "finer_cam tells a class from those that are likest to it, and a function of the logits was given. "
                "A class was expected. Give one, or use grad_cam."
            )
        with torch.no_grad():
            logits = model.head(look.pooled)
        others = likest(logits, target.index, self.n_references) if target.against is None else target.against[:, None]

        equal = torch.full(others.shape, 1 / others.shape[1], device=others.device)
        activations, gradient = layer_and_gradient(
            model, look, lambda logits: lead_over(logits, target.index, others, self.strength, equal), self.layer
        )
        return torch.einsum("bc,bchw->bhw", gradient.mean((2, 3)), activations)


def likest(logits: Float[Tensor, "b k"], classes: Int[Tensor, " b"], n: int) -> Int[Tensor, "b m"]:
    """The classes whose logits are nearest to each picture's own class's, which is not among them; nearest first."""
    distance = (logits - logits.gather(1, classes[:, None])).abs().scatter(1, classes[:, None], torch.inf)
    found = distance.sort(dim=1, stable=True).indices[:, : min(n, logits.shape[1] - 1)]
    if not found.shape[1]:
        raise InputError("finer_cam tells a class from others, and there is one class alone. Use grad_cam.")
    return found


def lead_over(
    logits: Float[Tensor, "b k"],
    classes: Int[Tensor, " b"],
    others: Int[Tensor, "b n"],
    strength: float,
    weights: Float[Tensor, "b n"],
) -> Float[Tensor, " b"]:
    """``Σ_d w_d (y_c − γ y_d)``: a class's lead over others."""
    return (weights * (logits.gather(1, classes[:, None]) - strength * logits.gather(1, others))).sum(1)
