"""Masks of the object in a picture, from mask files, boxes or other sources."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ..errors import DataError, ImageError
from ..types import Transform
from .boxes import BoxData, BoxRecord
from .images import Picture, read_picture, upright_size
from .samples import Sample

FULL = 0.95
"""Maximum fraction of a view that a mask may cover, so that some background is left."""


class MaskSource(Protocol):
    """A source of object masks."""

    @property
    def told(self) -> str: ...
    @property
    def by_hand(self) -> bool: ...
    @property
    def seal(self) -> str: ...

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        """Return a mask of the view, true on the object."""
        ...


def in_view(mask: Bool[np.ndarray, "oh ow"], picture: Picture) -> Bool[Tensor, "h w"]:
    """Return the part of a mask that a view shows; pixels outside the picture are false."""
    (x0, y0, x1, y1), (height, width) = picture.window, picture.pixels.shape[:2]
    rows = np.floor(y0 + (np.arange(height) + 0.5) / height * (y1 - y0)).astype(int)
    columns = np.floor(x0 + (np.arange(width) + 0.5) / width * (x1 - x0)).astype(int)
    down, across = (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
    seen = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
    seen = seen & down[:, None] & across[None]
    return torch.from_numpy(np.ascontiguousarray(seen[:, ::-1] if picture.flipped else seen))


def usable(mask: Bool[Tensor, "h w"], name: str, what: str = "the mask") -> Bool[Tensor, "h w"]:
    """Return the mask, after a check that it has both object and background."""
    part = float(mask.float().mean())
    if part == 0:
        raise ImageError(
            name, f"{what} is empty in the area that the model sees; draw the object, or leave the picture out"
        )
    if part > FULL:
        raise ImageError(
            name, f"{what} covers {100 * part:.0f} % of the area that the model sees, so there is no background"
        )
    return mask


def _seal(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _bright(file: Path, transform: Transform) -> Bool[Tensor, "h w"]:
    """Return the bright pixels of a mask file, cropped and resized like its picture."""
    view = read_picture(file, transform).pixels
    return torch.from_numpy(view.max(2) > view.max() / 2)


def _called(folder: Path, picture: str | Path) -> list[Path]:
    return sorted(folder.glob(f"{glob.escape(Path(picture).stem)}.*"))


@dataclass(frozen=True)
class MaskFiles:
    """Masks from a folder of images, or from one image for one picture; the object is not black."""

    place: Path
    transform: Transform
    shared: frozenset[str] = frozenset()
    by_hand = True

    @classmethod
    def of(cls, place: Path, transform: Transform, pictures: Iterable[str]) -> MaskFiles:
        """Return the masks of the given pictures."""
        if not place.exists():
            raise DataError(f"The masks {place} do not exist. Check the path.")
        counts = Counter(Path(name).stem for name in pictures)
        if place.is_file() and counts.total() > 1:
            raise DataError(
                f"--masks must be a folder with one mask per picture, got one file, {place}, for "
                f"{counts.total()} pictures."
            )
        return cls(place, transform, frozenset(name for name, n in counts.items() if n > 1))

    @property
    def told(self) -> str:
        return f"given, in {self.place.name}"

    @property
    def seal(self) -> str:
        files = sorted(self.place.rglob("*")) if self.place.is_dir() else [self.place]
        return _seal([(str(p), (status := p.lstat()).st_size, status.st_mtime_ns) for p in files])

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        file = self.place if self.place.is_file() else self._file(sample)
        (width, height), size = upright_size(str(file)), picture.original_size
        if (width, height) != size:
            raise ImageError(
                sample.image,
                f"has {size[0]} by {size[1]} pixels, but its mask {file.name} has {width} by {height}; save the mask "
                "in the size of the picture",
            )
        return usable(_bright(file, self.transform), sample.image, f"the mask {file.name}")

    def _file(self, sample: Sample) -> Path:
        """Return the mask file in a folder named like the picture's class or folder, otherwise in the main folder."""
        name = Path(sample.image)
        folders = [self.place / part for part in (sample.label, name.parent.name) if part]
        if found := [file for folder in folders for file in _called(folder, name)]:
            return found[0]
        found = _called(self.place, name)
        if not found:
            raise ImageError(sample.image, f"has no mask in {self.place.name}; add one of the same name")
        if name.stem in self.shared:
            raise ImageError(
                sample.image,
                f"is one of several pictures called {name.stem}, so {found[0].name} is ambiguous; put the "
                "masks into one folder per class",
            )
        return found[0]


@dataclass(frozen=True, eq=False)
class BoxMasks:
    """Masks from boxes: the boxes of the picture's class or, if there are none, all boxes."""

    data: BoxData
    told = "boxes, which contain some background"
    by_hand = True

    @property
    def seal(self) -> str:
        return _seal(self.data.pictures)

    @cached_property
    def _boxes(self) -> Mapping[str, Sequence[BoxRecord]]:
        counts = Counter(os.path.basename(p.image) for p in self.data.pictures)
        names = [(os.path.basename(p.image), p.boxes) for p in self.data.pictures]
        files = {os.path.realpath(p.image): p.boxes for p in self.data.pictures}
        return {**{name: boxes for name, boxes in names if counts[name] == 1}, **files}

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        of_name = self._boxes.get(os.path.basename(sample.image), ())
        found = self._boxes.get(os.path.realpath(sample.image), of_name)
        boxes = [b for b in found if b.label == sample.label] or list(found)
        if not boxes:
            raise ImageError(sample.image, "has no box; draw one, or leave the picture out")
        width, height = picture.original_size
        drawn = np.zeros((height, width), bool)
        for one in boxes:
            left, top, right, bottom = (round(v) for v in one.box)
            drawn[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return usable(in_view(drawn, picture), sample.image, "the box")


def mask_beside(folder: Path, picture: str | Path, transform: Transform) -> Bool[Tensor, "h w"] | None:
    """Return a picture's mask, cropped and resized like the picture; ``None`` if it is missing, empty or full."""
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder with one mask per picture.")
    found = _called(folder, picture)
    if not found:
        return None
    # As large, or smaller or larger by one factor to a pixel; asked before anything is decoded.
    (width, height), (across, down) = upright_size(found[0]), upright_size(picture)
    factor = width / across
    if abs(height - factor * down) > max(1.0, factor):
        raise ImageError(
            str(found[0]),
            f"has {width} by {height} pixels, but its picture {picture} has {across} by {down}; save the mask in the "
            "size of the picture",
        )
    mask = _bright(found[0], transform)
    return mask if bool(mask.any()) and not bool(mask.all()) else None
