"""COCO: one JSON file of pictures, classes and boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DataError
from ...spelling import first_repeated
from ...storage.reading import parse_json, read_file, reason
from . import box_formats
from .base import BoxData, BoxRecord, Gathering, find_picture, from_folder, near, number, whole_size

LARGEST = 1 << 30
"""Bytes of a file; the largest of COCO's own has half of it."""
NAMES = ("boxes.json", "_annotations.coco.json", "annotations.json")
"""What such a file is called in a folder."""


@box_formats.register
@dataclass(frozen=True)
class COCO:
    """Boxes as ``[left, top, width, height]`` in pixels, with ``image_id`` and ``category_id`` (cocodataset.org).

    Masks, key points and super-categories are not read. ``score`` is read and written where there is one, as in files
    of detections; a bare list of detections names no pictures, and is refused.
    """

    name: ClassVar[str] = "coco"

    def knows(self, path: Path) -> bool:
        return path.suffix.lower() == ".json" or any((path / name).is_file() for name in NAMES)

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        if path.is_dir():
            path = next(path / name for name in NAMES if (path / name).is_file())
        data = _object(path)
        found = Gathering(path)
        names = {_id(path, c, "category"): str(c.get("name", "")) for c in _list(path, data, "categories")}
        if (twice := first_repeated(names.values())) is not None:
            raise DataError(f"{path} has two categories that are called {twice!r}. Rename or merge them.")
        found.classes += names.values()
        images: dict[int, str] = {}
        folders = near(path, pictures)
        for one in _list(path, data, "images"):
            number_, file = _id(path, one, "image"), one.get("file_name")
            if number_ in images or not isinstance(file, str) or not file:
                what = "is there twice" if number_ in images else "has no file_name"
                raise DataError(f"{path}: the image {number_} {what}. One image for every id was expected. Mend it.")
            images[number_] = find_picture(file, folders)
            found.picture(images[number_], whole_size(one.get("width"), one.get("height")))
        for i, one in enumerate(_list(path, data, "annotations")):
            _add(found, f"{path.name}, annotation {one.get('id', i)}", one, images, names)
        return found.done()

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        number_of = {name: i for i, name in enumerate(data.classes, 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i, picture in enumerate(data.pictures, 1):
            size = {} if picture.size is None else {"width": picture.size[0], "height": picture.size[1]}
            images.append({"id": i, "file_name": from_folder(picture.image, folder), **size})
            for b in picture.boxes:
                left, top, right, bottom = b.box
                one: dict[str, Any] = {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": number_of[b.label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": b.area,
                    "iscrowd": int(b.ignored),
                }
                annotations.append(one if b.score is None else {**one, "score": b.score})
        categories = [{"id": i, "name": name} for name, i in number_of.items()]
        whole = {"images": images, "categories": categories, "annotations": annotations}
        return {NAMES[0]: json.dumps(whole, ensure_ascii=False)}


def _object(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(read_file(path, LARGEST))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Give a COCO file of boxes.") from error
    if isinstance(data, dict) and "images" in data:
        return data
    what = "a list of detections without pictures" if isinstance(data, list) else "no COCO file"
    raise DataError(f"{path} is {what}. An object with images, categories and annotations was expected. Give one.")


def _list(path: Path, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{path}: {key!r} is no list of objects, as COCO has it. Mend it, or export it again.")
    return found


def _id(path: Path, one: dict[str, Any], what: str) -> int:
    found = one.get("id")
    if type(found) is not int:
        raise DataError(f"{path}: a {what} has the id {found!r}. A whole number was expected. Export it again.")
    return found


def _add(
    found: Gathering, where: str, one: dict[str, Any], images: Mapping[int, str], names: Mapping[int, str]
) -> None:
    """One annotation, with what is wrong with it named."""
    given = one.get("bbox")
    values = [number(v) for v in given] if isinstance(given, list) else []
    of, kind = one.get("image_id"), one.get("category_id")
    image = images.get(of, "") if type(of) is int else ""
    label = names.get(kind, "") if type(kind) is int else ""
    wrong = {
        f"is of an image that is not listed ({of})": not image,
        f"is of a category that is not listed ({kind})": not label,
        "has no bbox of four numbers": len(values) != 4,
    }
    for why, is_so in wrong.items():
        if is_so:
            found.leave_out(where, image, label, values, why)
            return
    left, top, width, height = values
    score = None if one.get("score") is None else number(one["score"])
    box = (left, top, left + width, top + height)
    found.box(where, image, BoxRecord(box, label, score, one.get("iscrowd") in (1, True)))
