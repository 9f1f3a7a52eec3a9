"""Where the pictures of a file of boxes are, and what numbers in such files are."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..sources import SUFFIXES
from .base import BoxedPicture


def find_picture(name: str, folders: Iterable[Path]) -> str:
    """The picture of a name in the first folder that has it; where none has, as it would be in the first.

    A name without an ending, as those of YOLO's labels, is looked for with every ending that pictures have.
    """
    names = [name] if name.lower().endswith(SUFFIXES) else [name + s for s in (*SUFFIXES, *map(str.upper, SUFFIXES))]
    folders = list(folders)
    for folder in folders:
        for one in names:
            if os.path.isfile(folder / one):
                return str(folder / one)
    return str(folders[0] / name)


def near(path: Path, pictures: Path | None) -> list[Path]:
    """Folders where the pictures of a file of boxes may be."""
    here = path if path.is_dir() else path.parent
    if pictures is not None:
        return [pictures]
    beside = [here, here.parent]
    part = path.stem.rpartition("_")[2]  # instances_val2017.json
    return [*beside, *(folder / name for folder in beside for name in ("images", "JPEGImages", part))]


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """A size as a file states it; ``None`` where it does not."""
    found = number(width), number(height)
    if all(f >= 1 and f == int(f) for f in found if math.isfinite(f)) and all(map(math.isfinite, found)):
        return int(found[0]), int(found[1])
    return None


def number(value: Any) -> float:
    """A number as it may stand in a file, also as text; NaN for what is none."""
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def written(value: float) -> str:
    """A number as short as it can be read back.

    >>> written(12.0), written(0.1)
    ('12', '0.1')
    """
    return str(int(value)) if value == int(value) else repr(float(value))


def from_folder(image: str, folder: Path) -> str:
    """A picture's name as it is found from a folder; one that is not there keeps its name."""
    if not os.path.exists(image):
        return image
    try:
        return Path(os.path.relpath(os.path.realpath(image), os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive
        return image


def stems(pictures: Sequence[BoxedPicture]) -> list[str]:
    """A name without ending for each, with the folders in which they differ."""
    plain = [Path(os.path.abspath(p.image)).with_suffix("") for p in pictures]
    common = os.path.commonpath([p.parent for p in plain]) if plain else ""
    names = [Path(os.path.relpath(p, common)).as_posix() for p in plain]
    owner: dict[str, str] = {}
    for name, one in zip(names, pictures, strict=True):
        if name.casefold() in owner:
            raise DataError(
                f"The pictures {owner[name.casefold()]} and {one.image} are called alike but for their endings. One "
                "file of boxes for each was expected, which is named after its picture. Rename one, or write COCO."
            )
        owner[name.casefold()] = one.image
    return names
