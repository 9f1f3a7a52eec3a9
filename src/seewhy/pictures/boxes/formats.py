"""The box formats COCO, CSV, VOC and YOLO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.sax.saxutils import escape

import yaml

from ...errors import DataError, EmptyFolderError
from ...printable import csv_row, spreadsheet_safe
from ...spelling import first_repeated
from ...storage.plain_yaml import MOST, parse_yaml
from ...storage.reading import parse_json, read_file, read_text, reason
from ..sources import list_pictures, natural_key
from ..tables import TABLES, cell_text, rows_of
from . import (
    BoxData,
    BoxedPicture,
    BoxRecord,
    Corners,
    Gathering,
    Size,
    box_formats,
    find_picture,
    from_folder,
    near,
    number,
    stems,
    whole_size,
)

LARGEST_JSON, LARGEST = 1 << 30, 16 << 20
"""Maximum bytes of a COCO file and of any other file; 10,000 boxes take 2.5 million."""
DEEPEST = 32
"""Maximum depth of nested XML elements."""


def _written(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


@box_formats.register
class COCO:
    """COCO boxes ``[left, top, width, height]`` in pixels, with ``image_id`` and ``category_id`` (cocodataset.org).

    ``score`` is optional. A list of detections without images is refused.
    """

    name: ClassVar[str] = "coco"
    files_in_folder = ("boxes.json", "_annotations.coco.json", "annotations.json")

    def knows(self, path: Path) -> bool:
        return path.suffix.lower() == ".json" or any((path / name).is_file() for name in self.files_in_folder)

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        if path.is_dir():
            path = next(path / name for name in self.files_in_folder if (path / name).is_file())
        data = _object(path)
        found, folders = Gathering(path), near(path, pictures)
        names = {_id(path, c, "category"): str(c.get("name", "")) for c in _list(path, data, "categories")}
        if (twice := first_repeated(names.values())) is not None:
            raise DataError(
                f"Category names must differ, but {path} has {twice!r} twice. Rename or merge the categories."
            )
        found.classes += names.values()
        images: dict[int, str] = {}
        for one in _list(path, data, "images"):
            key, file = _id(path, one, "image"), one.get("file_name")
            if key in images or not isinstance(file, str) or not file:
                what = "occurs twice" if key in images else "has no file_name"
                raise DataError(f"{path}: the image {key} {what}. Correct it.")
            images[key] = find_picture(file, folders)
            found.picture(images[key], whole_size(one.get("width"), one.get("height")))
        for i, one in enumerate(_list(path, data, "annotations")):
            _annotation(found, f"{path.name}, annotation {one.get('id', i)}", one, images, names)
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
                    "id": len(annotations) + 1, "image_id": i, "category_id": number_of[b.label],
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                    "iscrowd": int(b.ignored),
                }  # fmt: skip
                annotations.append(one if b.score is None else {**one, "score": b.score})
        categories = [{"id": i, "name": name} for name, i in number_of.items()]
        whole = {"images": images, "categories": categories, "annotations": annotations}
        return {self.files_in_folder[0]: json.dumps(whole, ensure_ascii=False)}


def _object(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(read_file(path, LARGEST_JSON))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as COCO boxes: {reason(error)}. Export them again.") from error
    if isinstance(data, dict) and "images" in data:
        return data
    what = "a list of detections without images" if isinstance(data, list) else "not a COCO file"
    raise DataError(
        f"{path} must be an object with images, categories and annotations, but it is {what}. Export it again."
    )


def _list(path: Path, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{path}: {key!r} must be a list of objects. Export it again as COCO.")
    return found


def _id(path: Path, one: dict[str, Any], what: str) -> int:
    found = one.get("id")
    if type(found) is not int:
        raise DataError(f"{path}: the id of a {what} must be an integer, got {found!r}. Export it again.")
    return found


def _annotation(
    found: Gathering, where: str, one: dict[str, Any], images: Mapping[int, str], names: Mapping[int, str]
) -> None:
    given, of, kind = one.get("bbox"), one.get("image_id"), one.get("category_id")
    values = [number(v) for v in given] if isinstance(given, list) else []
    image = images.get(of, "") if type(of) is int else ""
    label = names.get(kind, "") if type(kind) is int else ""
    why = "" if len(values) == 4 else "has no bbox with four numbers"
    why = why if label else f"has an unknown category ({kind})"
    why = why if image else f"has an unknown image ({of})"
    if why:
        found.leave_out(where, image, label, values, why)
        return
    left, top, width, height = values
    score = None if one.get("score") is None else number(one["score"])
    box = (left, top, left + width, top + height)
    found.box(where, image, BoxRecord(box, label, score, one.get("iscrowd") in (1, True)))


@box_formats.register
class CSV:
    """A table with one row per box; a picture without boxes has a row without numbers.

    The columns are ``image, left, top, right, bottom, label``, or names of other tools (``filename, xmin, ymin, xmax,
    ymax, class``). ``width``, ``height``, ``score`` and ``ignored`` are optional. Classes need a box to be stored.
    """

    name: ClassVar[str] = "csv"
    file = "boxes.csv"
    edges = ("left", "top", "right", "bottom")
    also: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("filename", "file_name", "file", "path", "image_path"), "left": ("xmin", "x_min", "x1"),
        "top": ("ymin", "y_min", "y1"), "right": ("xmax", "x_max", "x2"), "bottom": ("ymax", "y_max", "y2"),
        "label": ("class", "name", "category"), "score": ("confidence",),
    }  # fmt: skip

    def knows(self, path: Path) -> bool:
        return path.suffix.lower() in TABLES or (path / self.file).is_file()

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        path = path / self.file if path.is_dir() else path
        found, folders = Gathering(path), near(path, pictures)
        for i, row in enumerate(rows_of(path), 1):
            where, one = f"{path.name}, row {i}", {str(k).strip().lower(): v for k, v in row.items()}
            for name, others in self.also.items():
                if name not in one and (there := next((o for o in others if o in one), None)):
                    one[name] = one[there]
            if missing := [c for c in ("image", *self.edges, "label") if c not in one]:
                raise DataError(
                    f"{path} has no column {missing[0]!r} among {', '.join(map(repr, row))}. Rename the "
                    "columns to image, left, top, right, bottom and label."
                )
            name = cell_text(one["image"], where)
            if not name.strip():
                found.leave_out(where, "", str(one["label"]), (), "has no picture")
                continue
            image = find_picture(name, folders)
            found.picture(image, whole_size(one.get("width"), one.get("height")))
            if all(not str("" if one[e] is None else one[e]).strip() for e in self.edges):
                continue  # a picture without boxes
            left, top, right, bottom = (number(one[e]) for e in self.edges)
            score = number(one["score"]) if str(one.get("score") or "").strip() else None
            ignored = str(one.get("ignored") or "").strip().lower() in ("1", "true", "yes")
            label = cell_text(one["label"], where).strip()
            found.box(where, image, BoxRecord((left, top, right, bottom), label, score, ignored))
        return found.done()

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        rows: list[list[object]] = [["image", "width", "height", *self.edges, "label", "score", "ignored"]]
        for picture in data.pictures:
            head = [spreadsheet_safe(from_folder(picture.image, folder)), *(picture.size or ("", ""))]
            for b in picture.boxes:
                score = "" if b.score is None else _written(b.score)
                rows.append([*head, *map(_written, b.box), spreadsheet_safe(b.label), score, int(b.ignored)])
            if not picture.boxes:
                rows.append([*head, *[""] * 7])
        return {self.file: "".join(map(csv_row, rows))}


class _Safe(TreeBuilder):
    """An XML builder that limits the depth and refuses document types, which could declare entities."""

    depth = 0

    def start(self, tag: str, attrs: dict[Any, Any], /) -> Element:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError("its XML is nested too deeply")
        return super().start(tag, {})

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, *_: object) -> None:
        raise ValueError("it declares a document type, which is not allowed")


def parse_xml(data: bytes) -> Element:
    """Parse XML, and return its root; a document type raises ``ValueError``."""
    parser = XMLParser(target=_Safe())
    try:
        parser.feed(data)
        root: Element = parser.close()
    except ParseError as error:
        raise ValueError(f"it is not XML: {error}") from error
    return root


@box_formats.register
class VOC:
    """VOC boxes ``xmin, ymin, xmax, ymax`` in pixels, used without a shift (Everingham et al. 2010).

    Where we differ: VOC counts pixels from 1 and includes the last pixel. Most tools that write this format count from
    0, so SeeWhy does not shift boxes. ``classes.txt``, if it exists, has the class names in order.
    """

    name: ClassVar[str] = "voc"
    classes_file = "classes.txt"
    edges = ("xmin", "ymin", "xmax", "ymax")

    def knows(self, path: Path) -> bool:
        if path.is_dir():
            return next(path.rglob("*.xml"), None) is not None
        return path.suffix.lower() == ".xml"

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        files = sorted(path.rglob("*.xml"), key=lambda p: natural_key(str(p))) if path.is_dir() else [path]
        found, unread = Gathering(path), []
        listed = (path if path.is_dir() else path.parent) / self.classes_file
        if listed.is_file():
            found.classes += filter(None, map(str.strip, read_text(listed, LARGEST).splitlines()))
        for file in files:
            try:
                root = parse_xml(read_file(file, LARGEST))
            except (OSError, ValueError) as error:
                unread.append(f"{file.name} ({reason(error)})")
            else:
                self._add(found, file, root, [*near(file, pictures), *near(path, pictures)])
        if unread:
            if len(unread) == len(files):
                raise DataError(f"{path} cannot be read as VOC files: {unread[0]}. Export them again.")
            found.notes.append(f"{len(unread)} file(s) cannot be read: {', '.join(unread[:3])}")
        return found.done()

    def _add(self, found: Gathering, file: Path, root: Element, folders: list[Path]) -> None:
        def text(element: Element, path: str) -> str:
            return (element.findtext(path) or "").strip()

        image = find_picture(text(root, "filename") or file.stem, folders)
        found.picture(image, whole_size(text(root, "size/width"), text(root, "size/height")))
        for i, one in enumerate(root.findall("object"), 1):
            left, top, right, bottom = (number(text(one, f"bndbox/{edge}")) for edge in self.edges)
            score = number(said) if (said := text(one, "score")) else None
            record = BoxRecord((left, top, right, bottom), text(one, "name"), score, text(one, "difficult") == "1")
            found.box(f"{file.name}, object {i}", image, record)

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        files = {self.classes_file: "".join(f"{name}\n" for name in data.classes)}
        for stem, picture in zip(stems(data.pictures), data.pictures, strict=True):
            files[f"annotations/{stem}.xml"] = self._xml(picture, folder)
        return files

    def _xml(self, picture: BoxedPicture, folder: Path) -> str:
        lines = ["<annotation>", f"  <filename>{escape(from_folder(picture.image, folder))}</filename>"]
        if picture.size is not None:
            width, height = picture.size
            lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
        for b in picture.boxes:
            edges = "".join(f"<{e}>{_written(v)}</{e}>" for e, v in zip(self.edges, b.box, strict=True))
            score = "" if b.score is None else f"<score>{_written(b.score)}</score>"
            lines.append(
                f"  <object><name>{escape(b.label)}</name><difficult>{int(b.ignored)}</difficult>{score}"
                f"<bndbox>{edges}</bndbox></object>"
            )
        return "\n".join([*lines, "</annotation>"]) + "\n"


@box_formats.register
class YOLO:
    """YOLO lines ``class centre-x centre-y width height [score]``, as fractions of the picture (Ultralytics layout).

    Label files are in ``labels`` folders and pictures in ``images`` folders next to them, or both are in one folder.
    The class names are in ``data.yaml``, ``classes.txt`` or ``obj.names``.
    """

    name: ClassVar[str] = "yolo"
    name_files = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")

    def knows(self, path: Path) -> bool:
        if path.is_dir():
            return any((path / name).is_file() for name in self.name_files)
        return path.name in self.name_files or path.suffix.lower() in (".yaml", ".yml")

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        file = path if path.is_file() else next((path / n for n in self.name_files if (path / n).is_file()), None)
        if file is None:
            names_ = ", ".join(self.name_files)
            raise DataError(f"{path} has no class names. Add one of {names_}.")
        found, names, root = Gathering(path), _names(file), file.parent
        found.classes += names.values()
        texts = [p for p in root.rglob("*.txt") if p.name not in self.name_files and p != file]
        inside = [p for p in texts if "labels" in p.relative_to(root).parts]
        labelled, outlines = set(), 0
        for label_file in sorted(inside or texts, key=lambda p: natural_key(str(p))):
            image = _picture(label_file, root, pictures)
            labelled.add(image)
            outlines += _lines(found, label_file, image, found.picture(image), names)
        folders = [pictures] if pictures is not None else [p for p in root.rglob("images") if p.is_dir()]
        for folder in folders:
            try:
                for image in list_pictures([folder]):
                    if image not in labelled:  # a picture without boxes
                        found.picture(image)
            except EmptyFolderError:
                continue
        if outlines:
            found.notes.append(f"{outlines} polygon(s) were replaced by their bounding boxes")
        return found.done()

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        place = {name: i for i, name in enumerate(data.classes)}
        about = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(data.classes))}
        files = {self.name_files[0]: yaml.safe_dump(about, allow_unicode=True, sort_keys=False)}
        for stem, picture in zip(stems(data.pictures), data.pictures, strict=True):
            if any(b.ignored for b in picture.boxes):
                raise DataError(
                    f"{picture.image} has a box marked as crowd or difficult, which YOLO cannot store. Write "
                    "COCO or VOC, or remove the box."
                )
            if picture.size is None:
                raise DataError(
                    f"YOLO needs the size of {picture.image}, but the file does not exist. Give the folder of "
                    "the pictures with --pictures."
                )
            (width, height), lines = picture.size, []
            for b in picture.boxes:
                left, top, right, bottom = b.box
                values = [(left + right) / 2 / width, (top + bottom) / 2 / height]
                values += [(right - left) / width, (bottom - top) / height, *([] if b.score is None else [b.score])]
                lines.append(" ".join([str(place[b.label]), *map(repr, values)]) + "\n")
            files[f"labels/{stem}.txt"] = "".join(lines)
        return files


def _names(file: Path) -> dict[int, str]:
    is_yaml = file.suffix in (".yaml", ".yml")
    try:
        given: Any = parse_yaml(read_text(file, MOST)) if is_yaml else read_text(file, LARGEST).splitlines()
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read as class names: {reason(error)}.") from error
    names = given.get("names") if isinstance(given, dict) else given
    if isinstance(names, list):
        names = {i: n for i, n in enumerate(names) if n is not None and str(n).strip()}
    plain = isinstance(names, dict) and all(type(k) is int and type(v) in (str, int) for k, v in names.items())
    if not names or not plain:
        raise DataError(f"{file} must have class names under 'names:', as a list or by number.")
    found = {k: str(v).strip() for k, v in sorted(names.items())}
    if (twice := first_repeated(found.values())) is not None:
        raise DataError(f"Class names must differ, but {file} has {twice!r} twice. Rename or merge the classes.")
    return found


def _picture(label_file: Path, root: Path, pictures: Path | None) -> str:
    parts = list(label_file.relative_to(root).with_suffix("").parts)
    if "labels" not in parts:
        return find_picture("/".join(parts), near(root, pictures))
    at = len(parts) - 1 - parts[::-1].index("labels")
    base = root.joinpath(*parts[:at])
    folders = [pictures] if pictures is not None else [base / "images", label_file.parent, base]
    return find_picture("/".join(parts[at + 1 :]), folders)


def _lines(found: Gathering, file: Path, image: str, size: Size | None, names: Mapping[int, str]) -> int:
    """Add the boxes of a label file, and return how many were polygons."""
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
            unknown = "has an unknown size, as its picture does not exist"
            why = unknown if size is None else "is not a class with four numbers"
            why = why if label is not None else f"has a class without a name ({cells[0][:20]})"
            found.leave_out(where, image, label or cells[0][:20], values, why)
            continue
        outlines += is_outline
        score = values[4] if len(values) == 5 else None
        found.box(where, image, BoxRecord(_corners(values, is_outline, size), label, score))
    return outlines


def _corners(values: list[float], is_outline: bool, size: Size) -> Corners:
    """Return a box in pixels, without rounding errors beyond the picture's edge."""
    if is_outline:
        xs, ys = values[::2], values[1::2]
        box = min(xs), min(ys), max(xs), max(ys)
    else:
        x, y, w, h = values[:4]
        box = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    edges = zip(box, size * 2, strict=True)
    left, top, right, bottom = (min(max(v * n, 0.0), n) if -1e-6 < v < 1 + 1e-6 else v * n for v, n in edges)
    return left, top, right, bottom
