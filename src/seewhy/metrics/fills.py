"""What takes the place of a pixel that is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..errors import InputError

if TYPE_CHECKING:
    from ..types import Transform

Fill = Literal["mean", "black", "blur"]


def filled(pixels: Float[Tensor, "3 h w"], fill: Fill, transform: Transform | None = None) -> Float[Tensor, "3 h w"]:
    """A picture of nothing but fill.

    Args:
        pixels: normalised.
        fill: ``"mean"``, the mean colour (0 in normalised space); ``"black"``; ``"blur"``, the picture itself blurred.
        transform: the model's preprocessing, which says what black is.

    Raises:
        InputError: black without a transform, or a fill of another name.
    """
    if fill == "mean":
        return torch.zeros_like(pixels)
    if fill == "blur":
        return blurred(pixels)
    if fill != "black":
        raise InputError(f"The fill {fill!r} was given. Choose 'mean', 'black' or 'blur'.")
    if transform is None:
        raise InputError("A black fill was asked for, and black is not known here. Pass transform=… with the case.")
    mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)
    return (-mean / std)[:, None, None].expand_as(pixels)


def blurred(pixels: Float[Tensor, "3 h w"], kernel: int = 11, sigma: float = 5.0) -> Float[Tensor, "3 h w"]:
    """Gaussian blur, separable, borders reflected."""
    offsets = torch.arange(kernel) - kernel // 2
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    weights = weights / weights.sum()
    half = kernel // 2
    padded = pad(pixels[:, None], (half, half, half, half), mode="reflect")
    return conv2d(conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]
