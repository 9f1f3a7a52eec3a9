"""Pictures with boxes around what is in them: COCO, YOLO, VOC and CSV, read and written."""

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

box_formats: Registry[Any] = Registry("box format", __name__, ("formats",))

__all__ = ["BoxData", "BoxRecord", "BoxedPicture", "LeftOut", "box_formats", "load_boxes", "save_boxes"]


@checked
def load_boxes(source: str | Path, *, format: str | None = None, pictures: str | Path | None = None) -> BoxData:
    """Load pictures with boxes from COCO, YOLO, VOC or a table.

    Boxes without area, outside the picture or of an unknown class are left out and listed in ``left_out``. Boxes that
    reach beyond the picture are cut at its edge. Missing pictures are listed in ``missing``.

    Args:
        source: a COCO file, a folder with YOLO's labels and names, a folder of VOC's files, or a table.
        format: its registered name; default: recognised from the files.
        pictures: the folder of the pictures; default: the folders nearby.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected a file or folder of boxes. Check its name.")
    for name in [format] if format is not None else list(box_formats):
        reader = box_formats[name]()
        if reader.knows(path):
            data: BoxData = reader.read(path, None if pictures is None else Path(pictures))
            return data
    what = f"the format {format}" if format is not None else f"any of {', '.join(box_formats)}"
    raise DataError(
        f"{path} holds no boxes in {what}. Expected a COCO file, YOLO labels with the names of their classes, VOC XML "
        "or a table. Give one of these."
    )


def has_boxes(path: Path) -> bool:
    """Whether a file or folder looks like boxes of some format."""
    return path.exists() and any(box_formats[name]().knows(path) for name in box_formats)


@checked
def save_boxes(data: BoxData, folder: str | Path, *, format: str = "coco", force: bool = False) -> list[Path]:
    """Write boxes into a folder, without those that were left out.

    Args:
        data: the pictures with their boxes.
        folder: created if it does not exist.
        format: a registered name, such as ``"coco"``.
        force: overwrite files that SeeWhy did not write.

    Returns:
        The files; the first one names the classes.
    """
    folder, files = Path(folder), list[Path]()
    for name, text in check_boxes(data, folder, format=format, force=force).items():
        place = make_folder((folder / name).parent) / Path(name).name
        files.append(write(place, text, force=force))
    return files


def check_boxes(data: BoxData, folder: Path, *, format: str, force: bool) -> Mapping[str, str]:
    """The names of the files that :func:`save_boxes` would write into the folder; nothing is changed."""
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
    """A box."""

    box: Corners
    label: str
    score: float | None = None
    ignored: bool = False


@dataclass(frozen=True)
class BoxedPicture:
    """A picture and its boxes."""

    image: str
    size: Size | None
    boxes: tuple[BoxRecord, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A box that cannot be used, as the file has it."""

    where: str
    image: str
    label: str
    values: tuple[float, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.where} ({self.label}: {', '.join(f'{v:g}' for v in self.values)})"


@dataclass(frozen=True)
class BoxData:
    """Pictures with boxes."""

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
        """The pictures whose files exist."""
        gone = set(self.missing)
        kept = tuple(p for p in self.pictures if p.image not in gone)
        if not kept:
            raise DataError(
                f"None of the {len(self)} pictures exists; the first is "
                f"{self.pictures[0].image if self else 'unnamed'}. Expected their files. Name their folder with "
                "--pictures."
            )
        return BoxData(kept, self.classes, self.left_out, (), self.notes)


@dataclass
class _Gathered:
    """A picture while its file of boxes is read: its size as it has it, its size, and how what is stated differs."""

    own: Size | None
    size: Size | None = None
    differs: str = ""
    boxes: list[BoxRecord] = field(default_factory=list)


class Gathering:
    """Collects boxes while a file is read: it names what is wrong and continues with the rest."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.classes: list[str] = []
        self.notes: list[str] = []
        self._pictures: dict[str, _Gathered] = {}
        self._left_out: list[LeftOut] = []
        self._cut: list[str] = []

    def picture(self, image: str, stated: Size | None = None) -> Size | None:
        """Add a picture, with or without boxes to come. Its size comes from the picture itself, otherwise from the file
        of boxes.
        """
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
        """Add a box of a picture that was added before; a box that reaches beyond the picture is cut."""
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
        """All boxes that were read."""
        others = [f"{Path(image).name} ({one.differs})" for image, one in self._pictures.items() if one.differs]
        if not self._pictures:
            raise DataError(
                f"{self.source} names no picture. Expected at least one, with or without boxes. Give another file."
            )
        if len(others) == len(self._pictures):
            raise DataError(
                f"{self.source} states sizes that its pictures do not have: {some(others, 3)}. Expected boxes for "
                "these pictures. Export it again from these pictures, saved upright, or give the pictures it was made "
                "from."
            )
        fitting = [(image, one) for image, one in self._pictures.items() if not one.differs]
        pictures = tuple(BoxedPicture(image, one.size, tuple(one.boxes)) for image, one in fitting)
        used = {b.label for p in pictures for b in p.boxes}
        classes = (*self.classes, *sorted(used - set(self.classes), key=natural_key))
        missing = tuple(p.image for p in pictures if not os.path.exists(p.image))
        counted: list[tuple[str, Sequence[object]]] = [
            ("picture(s) left out, as their stated size is wrong and their boxes would be misplaced", others)
        ]
        reasons = dict.fromkeys(o.why for o in self._left_out)
        because = ((why, [o for o in self._left_out if o.why == why]) for why in reasons)
        counted += [(f"box(es) left out, each of which {why}", boxes) for why, boxes in because]
        counted += [("box(es) cut at the edge of their picture", self._cut), ("picture(s) do not exist", missing)]
        notes = [*self.notes, *(f"{len(of)} {what}: {some([*map(str, of)], 3)}" for what, of in counted if of)]
        if without := [c for c in classes if c not in used]:
            notes.append(f"{len(without)} class(es) have no box: {some(without)}")
        return BoxData(pictures, classes, tuple(self._left_out), missing, tuple(notes))


def _placed(box: Corners, size: Size | None) -> tuple[str | None, Corners]:
    """What is wrong with a box, if it cannot be used; and the box within the picture."""
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
    """The picture with this name in the first folder that has it; if no folder has it, its path in the first folder."""
    names = [name] if name.lower().endswith(SUFFIXES) else [name + s for s in (*SUFFIXES, *map(str.upper, SUFFIXES))]
    folders = list(folders)
    there = (str(folder / one) for folder in folders for one in names if os.path.isfile(folder / one))
    return next(there, str(folders[0] / name))


def near(path: Path, pictures: Path | None) -> list[Path]:
    """Folders that may hold the pictures of a file of boxes."""
    if pictures is not None:
        return [pictures]
    here = path if path.is_dir() else path.parent
    beside = [here, here.parent]
    part = path.stem.rpartition("_")[2]  # instances_val2017.json
    return [*beside, *(folder / name for folder in beside for name in ("images", "JPEGImages", part))]


def whole_size(width: Any, height: Any) -> Size | None:
    """A size that a file states; ``None`` if the file does not state it."""
    found = number(width), number(height)
    return (int(found[0]), int(found[1])) if all(f >= 1 and f.is_integer() for f in found) else None


def number(value: Any) -> float:
    """A number from a file, also if it is written as text; NaN if it is no number."""
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def from_folder(image: str, folder: Path) -> str:
    """A picture's name relative to a folder; the name of a missing picture is unchanged."""
    if not os.path.exists(image):
        return image
    try:
        return Path(os.path.relpath(os.path.realpath(image), os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive
        return image


def stems(pictures: Sequence[BoxedPicture]) -> list[str]:
    """Each name without its ending, with the folders that distinguish it from the others."""
    plain = [Path(os.path.abspath(p.image)).with_suffix("") for p in pictures]
    common = os.path.commonpath([p.parent for p in plain]) if plain else ""
    names = [Path(os.path.relpath(p, common)).as_posix() for p in plain]
    owner: dict[str, str] = {}
    for name, one in zip(names, pictures, strict=True):
        if (other := owner.setdefault(name.casefold(), one.image)) != one.image:
            raise DataError(
                f"The names of {other} and {one.image} differ only in their endings, so their boxes would share one "
                "file. Expected a different name for each. Rename one, or write COCO."
            )
    return names
