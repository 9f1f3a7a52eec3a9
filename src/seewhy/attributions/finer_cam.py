"""Finer-CAM (Zhang et al. 2025, arXiv 2501.11309)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Count, NotNegative
from ..errors import InputError
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, Target, TargetFunction
from .cam import weighted_sum
from .layers import layer_and_gradient


@attributions.register
@dataclass(frozen=True)
class FinerCAM(Attribution):
    """Grad-CAM of the difference between a class and the most similar classes on this picture.

        y = y_c − γ mean_d y_d,    L = Σ_k α_k A_k,    α_k = mean_ij ∂y/∂A_k,ij        (paper, section 3)

    ``L`` is the map, ``A_k`` channel ``k`` of the activations, and ``y_c`` the logit of the target class ``c``. ``d``
    are the ``n_references`` classes whose logits are nearest to ``y_c``, or the contrast class if given.

    Args:
        layer: dotted name of an inner layer; default: the encoder's last map.
        n_references: number of similar classes (paper: 3).
        strength: ``γ``, weight of the similar classes' logits (paper: 0.6); 0 is Grad-CAM.
    """

    name = "finer_cam"
    spelt = "Finer-CAM"
    paper = "Zhang et al. 2025, arXiv:2501.11309"
    needs = "a spatial last layer (any CNN or transformer), and at least two classes"
    cost = "0 (an inner layer: 1 and the backward pass behind it)"

    layer: str | None = None
    n_references: Count = 3
    strength: NotNegative = 0.6

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        if not isinstance(target, Target):
            raise InputError(
                "The target of finer_cam must be a class, got a function of the logits. Give a class, or use grad_cam."
            )
        with torch.no_grad():
            logits = model.head(look.pooled)
        others = likest(logits, target.index, self.n_references) if target.against is None else target.against[:, None]
        equal = torch.full(others.shape, 1 / others.shape[1], device=others.device)
        activations, gradient = layer_and_gradient(
            model, look, lambda logits: lead_over(logits, target.index, others, self.strength, equal), self.layer
        )
        return weighted_sum(gradient.mean((2, 3), keepdim=True), activations)


def likest(logits: Float[Tensor, "b k"], classes: Int[Tensor, " b"], n: int) -> Int[Tensor, "b m"]:
    """Return the classes whose logits are nearest to the logit of each picture's class, nearest first."""
    distance = (logits - logits.gather(1, classes[:, None])).abs().scatter(1, classes[:, None], torch.inf)
    nearest = distance.sort(dim=1, stable=True).indices[:, : min(n, logits.shape[1] - 1)]
    if not nearest.shape[1]:
        raise InputError("finer_cam needs at least two classes, got one. Use grad_cam.")
    return nearest


def lead_over(
    logits: Float[Tensor, "b k"],
    classes: Int[Tensor, " b"],
    others: Int[Tensor, "b n"],
    strength: float,
    weights: Float[Tensor, "b n"],
) -> Float[Tensor, " b"]:
    """Compute ``Σ_d w_d (y_c − γ y_d)``, the weighted difference between the logits of a class and of other classes."""
    return (weights * (logits.gather(1, classes[:, None]) - strength * logits.gather(1, others))).sum(1)
