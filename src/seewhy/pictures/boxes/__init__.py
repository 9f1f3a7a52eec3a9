"""Read and write bounding boxes in the formats COCO, YOLO, VOC and CSV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...arguments import checked
from ...errors import DataError, ImageError
from ...registry import Registry
from ...storage.output import check_file, make_folder, write
from ..images import upright_size
from ..samples import some
from ..sources import SUFFIXES, natural_key

box_formats: Registry[Any] = Registry("box format", __name__, ("formats",), is_listed=False)

__all__ = ["BoxData", "BoxRecord", "BoxedPicture", "LeftOut", "box_formats", "load_boxes", "save_boxes"]


@checked
def load_boxes(source: str | Path, *, format: str | None = None, pictures: str | Path | None = None) -> BoxData:
    """Load pictures with boxes from COCO, YOLO, VOC or a table.

    Boxes that have no area, lie outside the picture or have an unknown class are left out and listed in ``left_out``.
    Boxes that extend beyond the picture are clipped. Missing pictures are listed in ``missing``.

    Args:
        source: a COCO file, a folder with YOLO labels and class names, a folder of VOC files, or a table.
        format: registered name of the format; default: detected from the files.
        pictures: folder of the pictures; default: the folder of the box file, or its subfolder ``images``.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist. Check its name.")
    for name in [format] if format is not None else list(box_formats):
        reader = box_formats[name]()
        if reader.knows(path):
            return reader.read(path, None if pictures is None else Path(pictures))
    what = f"the format {format}" if format is not None else f"any of {', '.join(box_formats)}"
    raise DataError(
        f"{path} has no boxes in {what}. Give a COCO file, YOLO labels with class names, VOC XML or a table."
    )


def has_boxes(path: Path) -> bool:
    """Return whether a file or folder has boxes of some format."""
    return path.exists() and any(box_formats[name]().knows(path) for name in box_formats)


@checked
def save_boxes(data: BoxData, folder: str | Path, *, format: str = "coco", force: bool = False) -> list[Path]:
    """Write the boxes, without those in ``left_out``, into a folder.

    Args:
        data: the pictures with their boxes.
        folder: created if it does not exist.
        format: registered name of the format, such as ``"coco"``.
        force: whether to overwrite files that SeeWhy did not write.

    Returns:
        The paths of the written files; the first file has the class names.
    """
    folder, files = Path(folder), list[Path]()
    for name, text in check_boxes(data, folder, format=format, force=force).items():
        place = make_folder((folder / name).parent) / Path(name).name
        files.append(write(place, text, force=force))
    return files


def check_boxes(data: BoxData, folder: Path, *, format: str, force: bool) -> Mapping[str, str]:
    """Return the contents by file name that :func:`save_boxes` would write, after a check that it may write them."""
    files: Mapping[str, str] = box_formats[format]().files(data, folder)
    for name in files:
        if (folder / name).exists():
            check_file(folder / name, force=force)
    return files


Corners = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` in pixels of the upright picture, not rounded."""
Size = tuple[int, int]


@dataclass(frozen=True)
class BoxRecord:
    box: Corners
    label: str
    score: float | None = None
    ignored: bool = False


@dataclass(frozen=True)
class BoxedPicture:
    image: str
    size: Size | None
    boxes: tuple[BoxRecord, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A box that was left out, with the values in the file."""

    where: str
    image: str
    label: str
    values: tuple[float, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.where} ({self.label}: {', '.join(f'{v:g}' for v in self.values)})"


@dataclass(frozen=True)
class BoxData:
    """Pictures with boxes, loaded by :func:`load_boxes`.

    Attributes:
        pictures: the pictures with their boxes.
        classes: class names.
        left_out: boxes that cannot be used, with the reason.
        missing: names of picture files that do not exist.
        notes: remarks about the data for the user.
    """

    pictures: tuple[BoxedPicture, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def n_boxes(self) -> int:
        return sum(len(p.boxes) for p in self.pictures)

    def __repr__(self) -> str:
        return f"BoxData({len(self)} pictures, {self.n_boxes} boxes, {len(self.classes)} classes)"

    def present(self) -> BoxData:
        """Return only the pictures whose files exist."""
        gone = set(self.missing)
        kept = tuple(p for p in self.pictures if p.image not in gone)
        if not kept:
            raise DataError(
                f"None of the {len(self)} pictures exists. The first is "
                f"{self.pictures[0].image if self else 'unnamed'}. Give their folder with --pictures."
            )
        return BoxData(kept, self.classes, self.left_out, (), self.notes)


@dataclass
class _Gathered:
    """The sizes and boxes of a picture while its file is read."""

    own: Size | None
    size: Size | None = None
    differs: str = ""
    boxes: list[BoxRecord] = field(default_factory=list)


class Gathering:
    """A collector of boxes while a file is read, which notes what is wrong with each box that is left out."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.classes: list[str] = []
        self.notes: list[str] = []
        self._pictures: dict[str, _Gathered] = {}
        self._left_out: list[LeftOut] = []
        self._cut: list[str] = []

    def picture(self, image: str, stated: Size | None = None) -> Size | None:
        """Add a picture, and return the size of the picture file or, if it is missing, the stated size."""
        one = self._pictures.get(image)
        if one is None:
            try:
                one = _Gathered(upright_size(image))
            except ImageError:
                one = _Gathered(None)
            self._pictures[image] = one
        if one.own is not None and stated is not None and one.own != stated:
            turned = " when it is upright" if one.own == stated[::-1] else ""
            one.differs = f"stated {stated[0]} by {stated[1]}, is {one.own[0]} by {one.own[1]}{turned}"
        one.size = one.own or one.size or stated
        return one.size

    def leave_out(self, where: str, image: str, label: str, values: Sequence[float], why: str) -> None:
        self._left_out.append(LeftOut(where, image, label, tuple(values), why))

    def box(self, where: str, image: str, record: BoxRecord) -> None:
        """Add a box to a picture, clipped to the picture."""
        one = self._pictures[image]
        if one.differs:
            return
        why, cut = _placed(record.box, one.size)
        if why is None and record.score is not None and not math.isfinite(record.score):
            why = "has no number for its score"
        if why is None and not record.label.strip():
            why = "has no class"
        if why is not None:
            self.leave_out(where, image, record.label, record.box, why)
            return
        self._cut += [where] if cut != record.box else []
        one.boxes.append(replace(record, box=cut))

    def done(self) -> BoxData:
        """Return all pictures and boxes."""
        others = [f"{Path(image).name} ({one.differs})" for image, one in self._pictures.items() if one.differs]
        if not self._pictures:
            raise DataError(f"{self.source} has no pictures. Give another file.")
        if len(others) == len(self._pictures):
            raise DataError(
                f"The sizes in {self.source} differ from the sizes of its pictures: {some(others, 3)}. Give the "
                "pictures that were annotated, or export the boxes again for these pictures."
            )
        fitting = [(image, one) for image, one in self._pictures.items() if not one.differs]
        pictures = tuple(BoxedPicture(image, one.size, tuple(one.boxes)) for image, one in fitting)
        used = {b.label for p in pictures for b in p.boxes}
        classes = (*self.classes, *sorted(used - set(self.classes), key=natural_key))
        missing = tuple(p.image for p in pictures if not os.path.exists(p.image))
        counted: list[tuple[str, Sequence[object]]] = [
            ("picture(s) left out, because their size differs from the stated size", others)
        ]
        reasons = dict.fromkeys(o.why for o in self._left_out)
        because = ((why, [o for o in self._left_out if o.why == why]) for why in reasons)
        counted += [(f"box(es) left out, each of which {why}", boxes) for why, boxes in because]
        counted += [("box(es) clipped to their picture", self._cut), ("picture(s) do not exist", missing)]
        notes = [*self.notes, *(f"{len(of)} {what}: {some([*map(str, of)], 3)}" for what, of in counted if of)]
        if without := [c for c in classes if c not in used]:
            notes.append(f"{len(without)} class(es) have no box: {some(without)}")
        return BoxData(pictures, classes, tuple(self._left_out), missing, tuple(notes))


def _placed(box: Corners, size: Size | None) -> tuple[str | None, Corners]:
    """Return why a box cannot be used, or ``None``, and the box clipped to the picture."""
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)):
        return "has a coordinate that is not a number", box
    if right <= left or bottom <= top:
        return "has no area", box
    if size is None:
        return None, box
    width, height = size
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "lies outside the picture", box
    return None, (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))


def find_picture(name: str, folders: Iterable[Path]) -> str:
    """Return the path of a picture in the first folder that has it, otherwise its path in the first folder."""
    names = [name] if name.lower().endswith(SUFFIXES) else [name + s for s in (*SUFFIXES, *map(str.upper, SUFFIXES))]
    folders = list(folders)
    there = (str(folder / one) for folder in folders for one in names if os.path.isfile(folder / one))
    return next(there, str(folders[0] / name))


def near(path: Path, pictures: Path | None) -> list[Path]:
    """Return the folders in which to look for the pictures."""
    if pictures is not None:
        return [pictures]
    here = path if path.is_dir() else path.parent
    beside = [here, here.parent]
    part = path.stem.rpartition("_")[2]  # instances_val2017.json
    return [*beside, *(folder / name for folder in beside for name in ("images", "JPEGImages", part))]


def whole_size(width: Any, height: Any) -> Size | None:
    """Return a size from a file; ``None`` if it is missing or invalid."""
    found = number(width), number(height)
    return (int(found[0]), int(found[1])) if all(f >= 1 and f.is_integer() for f in found) else None


def number(value: Any) -> float:
    """Return a number from a file; NaN if the value is not a number."""
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def from_folder(image: str, folder: Path) -> str:
    """Return a picture's path relative to a folder; the path of a missing picture is unchanged."""
    if not os.path.exists(image):
        return image
    try:
        return Path(os.path.relpath(os.path.realpath(image), os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive
        return image


def stems(pictures: Sequence[BoxedPicture]) -> list[str]:
    """Return each file name without its extension, with the folders that make it unique."""
    plain = [Path(os.path.abspath(p.image)).with_suffix("") for p in pictures]
    common = os.path.commonpath([p.parent for p in plain]) if plain else ""
    names = [Path(os.path.relpath(p, common)).as_posix() for p in plain]
    owner: dict[str, str] = {}
    for name, one in zip(names, pictures, strict=True):
        if (other := owner.setdefault(name.casefold(), one.image)) != one.image:
            raise DataError(
                f"File names must differ by more than their extensions, got {other} and {one.image}. "
                "Rename one, or write COCO."
            )
    return names
