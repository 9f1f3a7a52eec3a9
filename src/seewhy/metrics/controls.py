"""Control maps that do not use the model, with the interface of attribution methods."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from .base import Explain

if TYPE_CHECKING:
    from ..attributions.base import Explainable
    from ..encoders.base import EncoderOutput
    from ..heads.head import Target


def random_map(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return uniform random numbers on the grid of the feature map, seeded by the picture."""
    cells = model.encoder.layout.to_grid(look.features).shape[2:]
    maps = []
    for picture in look.pixels_for("A control map"):
        digest = hashlib.sha256(picture.contiguous().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        maps.append(torch.rand(tuple(cells), generator=generator))
    return torch.stack(maps)


def centred_gaussian(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return a Gaussian in the centre of the picture, with σ a quarter of each side."""
    height, width = look.pixels_for("A control map").shape[2:]
    return centred_bump(height, width).expand(len(look), height, width)


def centred_bump(height: int, width: int) -> Float[Tensor, "h w"]:
    """Return a Gaussian in the centre of the map, with σ a quarter of each side."""
    y, x = torch.linspace(-2, 2, height)[:, None], torch.linspace(-2, 2, width)
    return (-0.5 * (y**2 + x**2)).exp()


def sobel_edges(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    """Return the magnitude of Sobel edges, averaged over 9 × 9 pixels."""
    grey = pad(look.pixels_for("A control map").mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    edges = conv2d(grey, torch.stack([kernel, kernel.T])[:, None]).norm(dim=1, keepdim=True)
    return avg_pool2d(edges, 9, 1, 4, count_include_pad=False)[:, 0]


def uniform_map(model: Explainable, look: EncoderOutput, target: Target) -> Float[Tensor, "b h w"]:
    return torch.ones(len(look), *look.pixels_for("A control map").shape[2:])


CONTROLS = {"random": random_map, "gaussian": centred_gaussian, "edges": sobel_edges, "uniform": uniform_map}


def controls() -> dict[str, Explain]:
    """Return all controls by name, including Eigen-CAM, which does not depend on the class."""
    from ..attributions import attributions

    return {**CONTROLS, "class_independent": attributions["eigen_cam"]()}
