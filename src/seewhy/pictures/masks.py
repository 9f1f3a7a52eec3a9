"""Masks in a folder beside pictures: one a picture, of the same stem."""

from __future__ import annotations

import glob
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..errors import DataError, ImageError
from ..types import Transform
from .images import read_views, upright_size


def mask_beside(folder: Path, picture: str | Path, transform: Transform) -> Bool[Tensor, "h w"] | None:
    """A picture's mask, cut and resized like it; ``None`` where there is none, or where it is empty or full."""
    if not folder.is_dir():
        raise DataError(f"The masks {folder} are no folder. A folder with a mask per picture was expected. Name one.")
    found = sorted(folder.glob(f"{glob.escape(Path(picture).stem)}.*"))
    if not found:
        return None
    _check_shape(found[0], Path(picture))
    view = read_views(found[0], transform, [None])[0].pixels
    mask = torch.from_numpy(view.max(2) > view.max() / 2)
    return mask if bool(mask.any()) and not bool(mask.all()) else None


def _check_shape(mask: Path, picture: Path) -> None:
    """As large, or smaller or larger by one factor to a pixel; asked before anything is decoded."""
    (width, height), (across, down) = upright_size(mask), upright_size(picture)
    factor = width / across
    if abs(height - factor * down) > max(1.0, factor):
        raise ImageError(
            str(mask),
            f"has {width} by {height} pixels, and its picture {picture} has {across} by {down}. A mask of the "
            "picture's shape was expected",
        )
