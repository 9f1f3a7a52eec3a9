"""FullGrad (Srinivas & Fleuret 2019, arXiv 1905.00780)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction, eager_logits
from .cam import stretched


@attributions.register
@dataclass(frozen=True)
class FullGrad(Attribution):
    """Sum of the input gradient and the gradients of all biases of the network.

        S = ψ(∇_x y ⊙ x) + Σ_layers Σ_channels ψ(∂y/∂z ⊙ b)        (paper, equation 6)

    ``x`` are the pixels and ``y`` is the target's logit. ``z`` is the output of a convolution or batch norm, and ``b``
    its bias; a batch norm's running mean counts as part of the bias. ``ψ`` takes the absolute value, scales it to 0…1
    over all channels of a layer, and enlarges it bilinearly. No value of the map is negative. Biases of linear layers
    and layer norms are ignored.
    """

    name = "full_grad"
    spelt = "FullGrad"
    paper = "Srinivas & Fleuret 2019, arXiv:1905.00780"
    needs = "pixels and the network in torch; made for ReLU networks with biases"
    cost = "1 forward and 1 backward"
    needs_pixels = True

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        pixels = look.pixels_for(self.name)
        parts = full_gradient(lambda leaf: eager_logits(model, leaf), pixels, target)
        size = (pixels.shape[2], pixels.shape[3])
        layers = [enlarged(stretched(part.abs(), (1, 2, 3)).sum(1, keepdim=True), size) for part in parts]
        return torch.cat(layers, 1).sum(1)


def full_gradient(
    network: Callable[[Tensor], Any], pixels: Float[Tensor, "b p h w"], score: Callable[[Any], Tensor]
) -> list[Tensor]:
    """Compute input × gradient, and bias × gradient of each layer with biases, as signed ``(b, c, h, w)``."""
    with torch.enable_grad():
        leaf = pixels.detach().clone().requires_grad_()
        with Biases() as caught:
            out = network(leaf)
        gradients = torch.autograd.grad(score(out).sum(), [leaf, *caught.outputs], allow_unused=True)
    factors = [leaf.detach(), *(bias.detach()[:, None, None] for bias in caught.biases)]
    return [factor * slope for factor, slope in zip(factors, gradients, strict=True) if slope is not None]


def enlarged(maps: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c _h _w"]:
    return functional.interpolate(maps, size=size, mode="bilinear")


class Biases(TorchFunctionMode):
    """A context manager that records the output and bias of every two-dimensional convolution and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.biases: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        bias = None
        if func is functional.conv2d:
            bias = (*args[2:], (kwargs or {}).get("bias"))[0]
        elif func is functional.batch_norm and out.ndim == 4:
            bias = _of_norm(*args, **(kwargs or {}))
        if bias is None or not out.requires_grad:
            return out
        self.outputs.append(out)
        self.biases.append(bias)
        return out.clone()  # the next layer may work in place


def _of_norm(
    _input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Return the bias ``b − w μ / σ`` of a batch norm, or ``None`` if it uses batch statistics."""
    if training or running_mean is None or running_var is None:
        return None
    hidden = running_mean / (running_var + eps).sqrt()
    return (0 if bias is None else bias) - (hidden if weight is None else hidden * weight)
