"""Small copies of pictures: what is shown of one, and what is kept of it to know it again."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..errors import WeightsError
from .decoding import check_scans

LARGEST = 1 << 24
"""Pixels of a view that are decoded; no network looks at so many."""


def encode_thumbnail(pixels: np.ndarray, quality: int = 85) -> bytes:
    """The pixels ``(h, w, 3)`` as JPEG bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality)
    return file.getvalue()


def decode_thumbnail(data: bytes, name: str) -> np.ndarray:
    """The pixels ``(h, w, 3)`` of JPEG bytes that were kept with a model; no other format is tried."""
    try:
        check_scans(data)
        opened = Image.open(io.BytesIO(data), formats=["JPEG"])
        if opened.width * opened.height > LARGEST:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels")
        return np.asarray(opened.convert("RGB"))
    except Exception as error:
        raise WeightsError(
            f"The view kept of {name!r} cannot be read: {error}. A JPEG picture was expected. Fit the model again."
        ) from error


SIDE, COLOURED = 64, 32
"""Sides of the grey copy and of the two that hold colour."""
WIDTH = SIDE**2 + 2 * COLOURED**2 + 1
"""Bytes of a miniature: 64 by 64 grey ones, 32 by 32 for red and for blue less grey, and the side of the picture."""
GREY = (0.299, 0.587, 0.114)
CELLS = 8
"""Cells a side by which pictures are compared whichever way they are turned,"""
WEIGHTS = (1.0, 2.0, 2.0, 3.0)
"""and what their grey, red, blue and detail count."""


def miniature(pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[Tensor, " w"]:
    """A view as few bytes.

    Example:
        >>> miniature(np.zeros((224, 224, 3), np.uint8), (640, 480)).shape
        torch.Size([6145])
    """
    rgb = torch.tensor(pixels).permute(2, 0, 1)[None].float()
    small = interpolate(rgb, (SIDE, SIDE), mode="area")
    grey = grey_of(small)
    colour = interpolate(small[:, ::2] - grey, (COLOURED, COLOURED), mode="area") / 2 + 128
    side = torch.tensor([min(255, *size)])
    return torch.cat([grey.flatten(), colour.flatten(), side]).round().clamp(0, 255).to(torch.uint8)


def opened(rows: UInt8[Tensor, "n w"]) -> tuple[Float[Tensor, "n 3 s s"], Int[Tensor, " n"]]:
    """Colours of 0…255, red first, and the short side of each picture, 255 for all larger ones."""
    n = len(rows)
    grey = rows[:, : SIDE**2].reshape(n, 1, SIDE, SIDE).float()
    colour = (rows[:, SIDE**2 : -1].reshape(n, 2, COLOURED, COLOURED).float() - 128) * 2
    red, blue = interpolate(colour, (SIDE, SIDE), mode="bilinear", align_corners=False).split(1, dim=1)
    green = -(GREY[0] * red + GREY[2] * blue) / GREY[1]
    return torch.cat([red, green, blue], dim=1) + grey, rows[:, -1].long()


def grey_of(colours: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    return (colours * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def turn_free(rows: UInt8[Tensor, "n w"], step: int = 1024) -> Float[Tensor, "n d"]:
    """Numbers that are the same whichever of eight ways a picture is turned or mirrored.

    Of each of 8 by 8 cells: the mean over the eight places that these bring it to, and how far the eight lie from it.
    """
    found = [_turn_free(part) for part in rows.split(step)]
    return torch.cat(found) if found else torch.zeros(0, 80)


def _turn_free(rows: UInt8[Tensor, "n w"]) -> Float[Tensor, "n d"]:
    colours = opened(rows)[0] / 255
    grey = grey_of(colours)
    detail = (grey - avg_pool2d(pad(grey, [2] * 4, mode="replicate"), 5, 1)).abs()
    planes = torch.cat([grey, colours[:, ::2] - grey, detail], dim=1)
    cells = interpolate(planes, (CELLS, CELLS), mode="area") * torch.tensor(WEIGHTS).view(1, 4, 1, 1)
    ways = torch.stack([turned(cells, way) for way in range(8)])
    mean = ways.mean(0)
    spread = (ways - mean).abs().mean(0)
    row, column = torch.triu_indices(CELLS // 2, CELLS // 2)
    return torch.cat([mean[:, :, row, column], spread[:, :, row, column]], dim=2).flatten(1)


def turned(planes: Tensor, way: int) -> Tensor:
    """The last two dimensions turned by quarters, from the fourth way on mirrored as well."""
    quarter = torch.rot90(planes, way % 4, (-2, -1))
    return quarter.flip(-1) if way >= 4 else quarter


def stacked(miniatures: Sequence[UInt8[Tensor, " w"]]) -> UInt8[Tensor, "n w"]:
    return torch.stack(list(miniatures)) if miniatures else torch.zeros(0, WIDTH, dtype=torch.uint8)
