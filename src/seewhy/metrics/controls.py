"""Maps that ignore the model, with the interface of attributions: every method must beat them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from ..errors import InputError
from .base import Explain

if TYPE_CHECKING:
    from ..attributions.base import Explainable
    from ..encoders.base import EncoderOutput
    from ..heads.head import Target


def random_map(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return independent uniform numbers in the cells of the feature map; the picture itself is the seed."""
    cells = model.encoder.layout.to_grid(look.features).shape[2:]
    maps = []
    for picture in _pixels(look):
        digest = hashlib.sha256(picture.contiguous().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        maps.append(torch.rand(tuple(cells), generator=generator))
    return torch.stack(maps)


def centred_gaussian(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return a central Gaussian map, σ a quarter of the picture: photographers put objects in the centre."""
    height, width = _pixels(look).shape[2:]
    return centred_bump(height, width).expand(len(look), height, width)


def centred_bump(height: int, width: int) -> Float[Tensor, "h w"]:
    """Return a Gaussian in the centre, σ a quarter of each side."""
    y, x = torch.linspace(-2, 2, height)[:, None], torch.linspace(-2, 2, width)
    return (-0.5 * (y**2 + x**2)).exp()


def sobel_edges(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return the strength of edges, smoothed over 9 × 9 pixels: it looks like an explanation but is not one."""
    grey = pad(_pixels(look).mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    edges = conv2d(grey, torch.stack([kernel, kernel.T])[:, None]).norm(dim=1, keepdim=True)
    return avg_pool2d(edges, 9, 1, 4, count_include_pad=False)[:, 0]


def uniform_map(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return a constant map: its pixels come in random order, and as a mask it keeps everything."""
    return torch.ones(len(look), *_pixels(look).shape[2:])


def _pixels(look: EncoderOutput) -> Float[Tensor, "b 3 h w"]:
    if look.pixels is None:
        raise InputError("A control needs pixels, and this encoding has none. Pass encoder.encode(pixels).")
    return look.pixels


CONTROLS = {"random": random_map, "gaussian": centred_gaussian, "edges": sobel_edges, "uniform": uniform_map}


def controls() -> dict[str, Explain]:
    """Return all controls by name; Eigen-CAM, which ignores the class, is among them."""
    from ..attributions import attributions

    return {**CONTROLS, "class_independent": attributions["eigen_cam"]()}
