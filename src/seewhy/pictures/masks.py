"""Masks in a folder beside pictures: one a picture, of the same stem."""

from __future__ import annotations

import glob
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..errors import DataError
from ..types import Transform
from .images import read_views


def mask_beside(folder: Path, picture: str | Path, transform: Transform) -> Bool[Tensor, "h w"] | None:
    """A picture's mask, cut and resized like it; ``None`` where there is none, or where it is empty or full.

    Args:
        folder: with a mask a picture, an image whose object is not black.
        picture: its name.
        transform: of the picture.

    Raises:
        DataError: the folder is none.
        ImageError: the mask cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"The masks {folder} are no folder. A folder with a mask per picture was expected. Name one.")
    found = sorted(folder.glob(f"{glob.escape(Path(picture).stem)}.*"))
    if not found:
        return None
    view = read_views(found[0], transform, [None])[0].pixels
    mask = torch.from_numpy(view.max(2) > view.max() / 2)
    return mask if bool(mask.any()) and not bool(mask.all()) else None
