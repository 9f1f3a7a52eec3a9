"""Small random changes of grey pictures, by which a perceiver is shaken while it settles."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad


def disturb(pictures: Float[Tensor, "b 1 h w"], strength: float, seeded: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """Geometry, blur, contrast, noise and brightness, each drawn anew for every picture.

    Ranges at strength 1 are those of the authors' code (there drawn by imgaug): a crop of up to 4 % on each side,
    scale 0.7…1.3 for each axis, shift up to 10 %, rotation up to 10° and shear up to 6°; a blur of sigma up to 0.6
    pixels for every second picture; contrast 0.75…1.5 about middle grey; Gaussian noise of deviation up to 0.05;
    brightness times 0.8…1.2. All shrink with ``strength``. Here geometry is one bilinear resampling, and what comes
    in from outside is black.

    Args:
        pictures: 0…1.
        strength: 0 changes nothing.
        seeded: where the numbers come from.
    """
    n = len(pictures)

    def draw(low: float, high: float) -> Float[Tensor, " b"]:
        return low + (high - low) * torch.rand(n, generator=seeded)

    moved = grid_sample(pictures, _grid(pictures, strength, draw), align_corners=False)
    blurred = _blur(moved, draw(0, 0.6 * strength) * (draw(0, 1) < 0.5))
    contrast = draw(1 - 0.25 * strength, 1 + 0.5 * strength)[:, None, None, None]
    noise = torch.randn(pictures.shape, generator=seeded) * draw(0, 0.05 * strength)[:, None, None, None]
    brightness = draw(1 - 0.2 * strength, 1 + 0.2 * strength)[:, None, None, None]
    return ((blurred - 0.5) * contrast + 0.5 + noise) * brightness


def _grid(
    pictures: Float[Tensor, "b 1 h w"], strength: float, draw: Callable[[float, float], Tensor]
) -> Float[Tensor, "b h w 2"]:
    """Where each pixel is read from."""
    left, right, top, bottom = (draw(0, 0.04 * strength) for _ in range(4))
    scale_x, scale_y = (draw(1 - 0.3 * strength, 1 + 0.3 * strength) for _ in range(2))
    shift_x, shift_y = (draw(-0.1 * strength, 0.1 * strength) for _ in range(2))
    angle = draw(-10 * strength, 10 * strength) * (math.pi / 180)
    shear = draw(-6 * strength, 6 * strength) * (math.pi / 180)
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    width, height = 1 - left - right, 1 - top - bottom
    wide, high = width / scale_x, height / scale_y
    turn = torch.stack([wide * cos, wide * (sin + slant * cos), -high * sin, high * (cos - slant * sin)], 1)
    turn = turn.unflatten(1, (2, 2))
    crop = torch.stack([left - right, top - bottom], 1)[:, :, None]
    shift = 2 * torch.stack([shift_x, shift_y], 1)[:, :, None]
    return affine_grid(torch.cat([turn, crop - turn @ shift], 2), list(pictures.shape), align_corners=False)


def _blur(pictures: Float[Tensor, "b 1 h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b 1 h w"]:
    """Gaussian, of five taps, a deviation for each picture; 0 leaves it as it is."""
    taps = torch.exp(-torch.arange(-2.0, 3.0).square() / (2 * sigma[:, None].square().clamp(min=1e-6)))
    taps = taps / taps.sum(1, keepdim=True)
    n = len(pictures)
    across = conv2d(pad(pictures, (2, 2, 0, 0), "replicate").transpose(0, 1), taps[:, None, None, :], groups=n)
    down = pad(across.transpose(0, 1), (0, 0, 2, 2), "replicate").transpose(0, 1)
    return conv2d(down, taps[:, None, :, None], groups=n).transpose(0, 1)
