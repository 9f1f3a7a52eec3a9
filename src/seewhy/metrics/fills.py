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

Fill = Literal["mean", "black", "blur", "blur_reflected"]


def filled(pixels: Float[Tensor, "3 h w"], fill: Fill, transform: Transform | None = None) -> Float[Tensor, "3 h w"]:
    """A picture of nothing but fill.

    Args:
        pixels: normalised.
        fill: ``"mean"``, the mean colour (0 in normalised space); ``"black"``; ``"blur"``, the picture itself, blurred
            as in RISE; ``"blur_reflected"``, blurred without a dark border.
        transform: the model's preprocessing, which says what black is.

    Raises:
        InputError: black without a transform, or a fill of another name.
    """
    if fill == "mean":
        return torch.zeros_like(pixels)
    if fill == "blur":
        return blurred(pixels)
    if fill == "blur_reflected":
        return blurred_reflected(pixels)
    if fill != "black":
        raise InputError(f"The fill {fill!r} was given. Choose 'mean', 'black', 'blur' or 'blur_reflected'.")
    if transform is None:
        raise InputError("A black fill was asked for, and black is not known here. Pass transform=… with the case.")
    mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)
    return (-mean / std)[:, None, None].expand_as(pixels)


def blurred(pixels: Float[Tensor, "3 h w"], kernel: int = 11, sigma: float = 5.0) -> Float[Tensor, "3 h w"]:
    """The RISE authors' blur: zeros beyond the border, so that it darkens towards the mean colour there.

    Their kernel is a point that ``scipy.ndimage.gaussian_filter`` smoothed within ``kernel`` pixels, folding back what
    lies beyond: with the defaults it is nearly even, .007 at the corners against .009 in the middle.
    """
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    reached = (torch.arange(kernel)[:, None] + offsets.long()) % (2 * kernel)
    reached = torch.where(reached < kernel, reached, 2 * kernel - 1 - reached)
    folded = ((reached == kernel // 2) * (weights / weights.sum())).sum(1).to(pixels)
    half = kernel // 2
    return _convolved(pad(pixels[:, None], (half, half, half, half)), folded)


def blurred_reflected(pixels: Float[Tensor, "3 h w"], kernel: int = 11, sigma: float = 5.0) -> Float[Tensor, "3 h w"]:
    """A Gaussian cut off at ``kernel`` pixels, borders reflected: no darker at the border than within."""
    offsets = torch.arange(kernel) - kernel // 2
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    half = kernel // 2
    return _convolved(pad(pixels[:, None], (half, half, half, half), mode="reflect"), weights / weights.sum())


def _convolved(padded: Float[Tensor, "3 1 h w"], weights: Float[Tensor, " k"]) -> Float[Tensor, "3 h2 w2"]:
    """Along both axes, without further padding."""
    return conv2d(conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]
