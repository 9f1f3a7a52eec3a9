"""YOLO: one text file for each picture, and the names of the classes in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ...errors import DataError, EmptyFolderError
from ...spelling import first_repeated
from ...storage.reading import read_text, reason
from ..sources import list_pictures, natural_key
from . import box_formats
from .base import BoxData, BoxRecord, Gathering, find_picture, near, number, stems

LARGEST = 16 << 20
NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
"""Where the names of the classes are, the first that is there."""


@box_formats.register
@dataclass(frozen=True)
class YOLO:
    """Lines ``class centre-x centre-y width height [score]``, as fractions of the picture (Ultralytics' layout).

    Labels lie in folders called ``labels``, pictures under the same name in ``images`` beside them, or both together.
    The names of the classes are in ``data.yaml``, ``classes.txt`` or ``obj.names``. Of an outline its box is taken.
    """

    name: ClassVar[str] = "yolo"

    def knows(self, path: Path) -> bool:
        if path.is_dir():
            return any((path / name).is_file() for name in NAMES)
        return path.name in NAMES or path.suffix.lower() in (".yaml", ".yml")

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        file = path if path.is_file() else next((path / n for n in NAMES if (path / n).is_file()), None)
        if file is None:
            raise DataError(f"{path} does not name its classes. One of {', '.join(NAMES)} was expected. Add one.")
        found, names = Gathering(path), _names(file)
        found.classes += names.values()
        root = file.parent
        texts = [p for p in root.rglob("*.txt") if p.name not in NAMES and p != file]
        inside = [p for p in texts if "labels" in p.relative_to(root).parts]
        outlines = 0
        for label_file in sorted(inside or texts, key=lambda p: natural_key(str(p))):
            image = _picture(label_file, root, pictures)
            size = found.picture(image)
            outlines += _lines(found, label_file, image, size, names)
        _without_labels(found, root, pictures)
        if outlines:
            found.notes.append(f"{outlines} outline(s) were given, of which the boxes are taken")
        return found.done()

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        place = {name: i for i, name in enumerate(data.classes)}
        about = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(data.classes))}
        made = {NAMES[0]: yaml.safe_dump(about, allow_unicode=True, sort_keys=False)}
        for stem, picture in zip(stems(data.pictures), data.pictures, strict=True):
            if any(b.ignored for b in picture.boxes):
                raise DataError(
                    f"{picture.image} has a box that is marked as a crowd or as difficult, for which YOLO has no "
                    "place. Write COCO or VOC, or take it out."
                )
            width, height = picture.known_size
            lines = []
            for b in picture.boxes:
                left, top, right, bottom = b.box
                centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
                values = [*centre, (right - left) / width, (bottom - top) / height]
                values += [] if b.score is None else [b.score]
                lines.append(" ".join([str(place[b.label]), *map(repr, values)]) + "\n")
            made[f"labels/{stem}.txt"] = "".join(lines)
        return made


def _names(file: Path) -> dict[int, str]:
    """Number → name."""
    try:
        text = read_text(file, LARGEST)
        given: Any = text.splitlines() if file.suffix not in (".yaml", ".yml") else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read: {reason(error)}. Give the names of the classes.") from error
    names = given.get("names") if isinstance(given, dict) else given
    if isinstance(names, list):
        names = {i: n for i, n in enumerate(names) if n is not None and str(n).strip()}
    plain = isinstance(names, dict) and all(type(k) is int and type(v) in (str, int) for k, v in names.items())
    if not names or not plain:
        raise DataError(f"{file} has no names of classes. 'names:' with a list or with numbers was expected. Add it.")
    found = {k: str(v).strip() for k, v in sorted(names.items())}
    if (twice := first_repeated(found.values())) is not None:
        raise DataError(f"{file} names the class {twice!r} twice. Rename or merge them.")
    return found


def _picture(label_file: Path, root: Path, pictures: Path | None) -> str:
    """The picture that a file of labels belongs to."""
    parts = list(label_file.relative_to(root).with_suffix("").parts)
    if "labels" not in parts:
        return find_picture("/".join(parts), [pictures] if pictures is not None else near(root, None))
    at = len(parts) - 1 - parts[::-1].index("labels")
    rest = "/".join(parts[at + 1 :])
    base = root.joinpath(*parts[:at])
    folders = [pictures] if pictures is not None else [base / "images", label_file.parent, base]
    return find_picture(rest, folders)


def _lines(found: Gathering, file: Path, image: str, size: tuple[int, int] | None, names: Mapping[int, str]) -> int:
    """The boxes of one file; how many were outlines."""
    try:
        lines = read_text(file, LARGEST).splitlines()
    except OSError as error:
        found.notes.append(f"{file.name} cannot be read: {reason(error)}")
        return 0
    outlines = 0
    for i, line in enumerate(lines, 1):
        if not (cells := line.split()):
            continue
        where, values = f"{file.name}, line {i}", [number(c) for c in cells[1:]]
        label = names.get(int(cells[0])) if cells[0].isdecimal() and len(cells[0]) < 10 else None
        is_outline = len(values) >= 6 and len(values) % 2 == 0
        if label is None or size is None or not (len(values) in (4, 5) or is_outline):
            why = "has no picture, whose size it needs" if size is None else "is no class and four numbers"
            why = why if label is not None else f"is of a class without a name ({cells[0][:20]})"
            found.leave_out(where, image, label or cells[0][:20], values, why)
            continue
        outlines += is_outline
        x, y, w, h = _around(values) if is_outline else values[:4]
        score = values[4] if len(values) == 5 else None
        corners = ((x - w / 2) * size[0], (y - h / 2) * size[1], (x + w / 2) * size[0], (y + h / 2) * size[1])
        found.box(where, image, BoxRecord(_within(corners, size), label, score))
    return outlines


def _within(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box at the picture's edge is not beyond it for what arithmetic adds."""
    edges = zip(box, (size[0], size[1]) * 2, strict=True)
    left, top, right, bottom = (min(max(v, 0.0), n) if -1e-6 * n < v < n * (1 + 1e-6) else v for v, n in edges)
    return left, top, right, bottom


def _around(outline: list[float]) -> list[float]:
    """Centre, width and height of the box around points."""
    xs, ys = outline[::2], outline[1::2]
    return [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]


def _without_labels(found: Gathering, root: Path, pictures: Path | None) -> None:
    """Pictures that have no file of labels: nothing is on them."""
    folders = [pictures] if pictures is not None else [p for p in root.rglob("images") if p.is_dir()]
    for folder in folders:
        try:
            for image in list_pictures([folder]):
                if not found.has(image):
                    found.picture(image)
        except EmptyFolderError:
            continue
