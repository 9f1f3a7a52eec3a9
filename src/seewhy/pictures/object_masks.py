"""Where the object is on a view of a picture: by masks or boxes that people drew, or by whatever else names pixels."""

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
"""A mask of more than this part of a view leaves no background to ask about."""


class MaskSource(Protocol):
    """A source that says where the object is."""

    @property
    def told(self) -> str: ...
    @property
    def by_hand(self) -> bool: ...
    @property
    def seal(self) -> str: ...

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        """A mask of the view, true on the object."""
        ...


def in_view(mask: Bool[np.ndarray, "oh ow"], picture: Picture) -> Bool[Tensor, "h w"]:
    """A mask of the upright picture as a mask of one view; each pixel is read at its middle, and outside the picture it
    is false.
    """
    (x0, y0, x1, y1), (height, width) = picture.window, picture.pixels.shape[:2]
    rows = np.floor(y0 + (np.arange(height) + 0.5) / height * (y1 - y0)).astype(int)
    columns = np.floor(x0 + (np.arange(width) + 0.5) / width * (x1 - x0)).astype(int)
    down, across = (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
    seen = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
    seen = seen & down[:, None] & across[None]
    return torch.from_numpy(np.ascontiguousarray(seen[:, ::-1] if picture.flipped else seen))


def usable(mask: Bool[Tensor, "h w"], name: str, what: str = "the mask") -> Bool[Tensor, "h w"]:
    """The mask, if it has both an object and a background."""
    part = float(mask.float().mean())
    if part == 0:
        raise ImageError(
            name,
            f"{what} is empty in the part of the picture that the model sees; draw the object, or leave the "
            "picture out",
        )
    if part > FULL:
        raise ImageError(name, f"{what} covers {part:.0%} of the part that the model sees, so there is no background")
    return mask


def _seal(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _bright(file: Path, transform: Transform) -> Bool[Tensor, "h w"]:
    """Where a mask's file is not black, cut and resized as its picture."""
    view = read_picture(file, transform).pixels
    return torch.from_numpy(view.max(2) > view.max() / 2)


def _called(folder: Path, picture: str | Path) -> list[Path]:
    """The files of a folder that are called as a picture is."""
    return sorted(folder.glob(f"{glob.escape(Path(picture).stem)}.*"))


@dataclass(frozen=True)
class MaskFiles:
    """Masks as images whose object is not black: a folder of masks, or one image for one picture."""

    place: Path
    transform: Transform
    shared: frozenset[str] = frozenset()
    by_hand = True

    @classmethod
    def of(cls, place: Path, transform: Transform, pictures: Iterable[str]) -> MaskFiles:
        """The masks for these pictures."""
        if not place.exists():
            raise DataError(
                f"There are no masks at {place}. Expected a folder of masks, or one mask file. Check the path."
            )
        counts = Counter(Path(name).stem for name in pictures)
        if place.is_file() and counts.total() > 1:
            raise DataError(
                f"One mask, {place}, was given for {counts.total()} pictures. Expected a folder with one mask per "
                "picture. Name that folder."
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
        """In a folder called as the picture's class or own folder, else in the folder itself."""
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
                f"is one of several pictures called {name.stem}, and {found[0].name} cannot be the mask of them all; "
                "put the masks into one folder per class",
            )
        return found[0]


@dataclass(frozen=True, eq=False)
class BoxMasks:
    """Boxes as masks: those labelled with the picture's class or, if there are none, all boxes."""

    data: BoxData
    told = "boxes, which hold some background too"
    by_hand = True

    @property
    def seal(self) -> str:
        return _seal(self.data.pictures)

    @cached_property
    def _boxes(self) -> Mapping[str, Sequence[BoxRecord]]:
        """By the file itself, and by names that only one file has."""
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
    """A picture's mask, cut and resized like the picture; ``None`` if it is missing, empty or full."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Expected a folder with one mask per picture. Name one.")
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
