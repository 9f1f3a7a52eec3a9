"""What takes the place of a pixel that is removed."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..errors import InputError
from ..types import Transform as Transform

Fill = Literal["mean", "black", "blur", "blur_reflected"]
Picture = Float[Tensor, "3 h w"]


def filled(pixels: Picture, fill: Fill, transform: Transform | None = None) -> Picture:
    """A picture of nothing but fill; the mean colour is 0 in normalised space, black is what the transform says."""
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


def blurred(pixels: Picture, kernel: int = 11, sigma: float = 5.0) -> Picture:
    """The RISE authors' blur: zeros beyond the border, so that it darkens towards the mean colour there.

    Their kernel is a point smoothed within ``kernel`` pixels, folding back what lies beyond, and so nearly even.
    """
    reach = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    point = np.pad(np.eye(kernel)[kernel // 2], reach, "symmetric")
    weights = torch.from_numpy(np.convolve(point, bell / bell.sum(), "valid")).to(pixels)
    return _convolved(pad(pixels[:, None], (kernel // 2,) * 4), weights)


def blurred_reflected(pixels: Picture, kernel: int = 11, sigma: float = 5.0) -> Picture:
    """A Gaussian cut off at ``kernel`` pixels, borders reflected: no darker at the border than within."""
    offsets = torch.arange(kernel) - kernel // 2
    weights = (-0.5 * (offsets / sigma) ** 2).exp()
    return _convolved(pad(pixels[:, None], (kernel // 2,) * 4, mode="reflect"), weights / weights.sum())


def _convolved(padded: Float[Tensor, "3 1 h w"], weights: Float[Tensor, " k"]) -> Float[Tensor, "3 h2 w2"]:
    """Along both axes, without further padding."""
    return conv2d(conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]
