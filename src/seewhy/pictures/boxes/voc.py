"""Pascal VOC: one XML file for each picture, read so that nothing in it can grow, reach out or nest without end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate
from xml.sax.saxutils import escape

from ...errors import DataError
from ...storage.reading import read_file, read_text, reason
from ..sources import natural_key
from . import box_formats
from .base import (
    BoxData,
    BoxedPicture,
    BoxRecord,
    Gathering,
    find_picture,
    from_folder,
    near,
    number,
    stems,
    whole_size,
    written,
)

DEEPEST = 32
"""Elements within one another."""
LARGEST = 16 << 20
"""Bytes of one file: 10,000 boxes have two and a half million."""
NAMES = "classes.txt"
EDGES = ("xmin", "ymin", "xmax", "ymax")


def parse_xml(data: bytes) -> Element:
    """The root of an XML text; a document type, and so every entity that could be expanded or fetched, is refused."""
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ValueError("its XML is nested too deeply")
        builder.start(tag, {})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which files of boxes do not need")

    parser = ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except ExpatError as error:
        raise ValueError(f"it is no XML: {error}") from error
    return builder.close()


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


@box_formats.register
@dataclass(frozen=True)
class VOC:
    """``bndbox`` with ``xmin, ymin, xmax, ymax`` in pixels, taken as they stand (Everingham et al. 2010).

    VOC's own files count pixels from 1 and mean the last one too; tools that write this format do not, so nothing is
    added or taken off. A folder of such files is read with those below it; ``classes.txt``, where there is one, gives
    the classes and their order. Parts and poses are not read.
    """

    name: ClassVar[str] = "voc"

    def knows(self, path: Path) -> bool:
        if path.is_dir():
            return next(path.rglob("*.xml"), None) is not None
        return path.suffix.lower() == ".xml"

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        files = sorted(path.rglob("*.xml"), key=lambda p: natural_key(str(p))) if path.is_dir() else [path]
        found = Gathering(path)
        listed = (path if path.is_dir() else path.parent) / NAMES
        if listed.is_file():
            found.classes += filter(None, map(str.strip, read_text(listed, LARGEST).splitlines()))
        unread = []
        for file in files:
            try:
                root = parse_xml(read_file(file, LARGEST))
            except (OSError, ValueError) as error:
                unread.append(f"{file.name} ({reason(error)})")
                continue
            _add(found, file, root, [*near(file, pictures), *near(path, pictures)])
        if unread:
            if len(unread) == len(files):
                raise DataError(f"{path} cannot be read: {unread[0]}. Give files of VOC.")
            found.notes.append(f"{len(unread)} file(s) cannot be read: {', '.join(unread[:3])}")
        return found.done()

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        made = {NAMES: "".join(f"{name}\n" for name in data.classes)}
        for stem, picture in zip(stems(data.pictures), data.pictures, strict=True):
            made[f"annotations/{stem}.xml"] = _xml(picture, folder)
        return made


def _add(found: Gathering, file: Path, root: Element, folders: list[Path]) -> None:
    name = _text(root, "filename") or file.stem
    image = find_picture(name, folders)
    found.picture(image, whole_size(_text(root, "size/width"), _text(root, "size/height")))
    for i, one in enumerate(root.findall("object"), 1):
        left, top, right, bottom = (number(_text(one, f"bndbox/{edge}")) for edge in EDGES)
        score = number(said) if (said := _text(one, "score")) else None
        record = BoxRecord((left, top, right, bottom), _text(one, "name"), score, _text(one, "difficult") == "1")
        found.box(f"{file.name}, object {i}", image, record)


def _xml(picture: BoxedPicture, folder: Path) -> str:
    lines = ["<annotation>", f"  <filename>{escape(from_folder(picture.image, folder))}</filename>"]
    if picture.size is not None:
        width, height = picture.size
        lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
    for b in picture.boxes:
        edges = "".join(f"<{e}>{written(v)}</{e}>" for e, v in zip(EDGES, b.box, strict=True))
        score = "" if b.score is None else f"<score>{written(b.score)}</score>"
        lines.append(
            f"  <object><name>{escape(b.label)}</name><difficult>{int(b.ignored)}</difficult>{score}"
            f"<bndbox>{edges}</bndbox></object>"
        )
    return "\n".join([*lines, "</annotation>"]) + "\n"
