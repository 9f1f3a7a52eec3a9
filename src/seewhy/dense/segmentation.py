"""What was found where in one picture: a result, with its mask, its files and its page."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..arguments import checked
from ..errors import DataError, UnknownNameError
from ..pictures.runs import encode
from ..pictures.samples import some
from ..report.paging import framed
from ..report.palette import class_colours
from ..report.segments import render_segments
from ..storage.output import check_file, write
from ..types import PixelBox

NOTHING = 255
"""Value of a mask where nothing is named."""
ENDINGS = (".html", ".json", ".png")


@dataclass(frozen=True)
class Segment:
    """All pixels of one class in one picture.

    Attributes:
        label: the class.
        area: pixels.
        share: of the picture's pixels.
        box: the smallest box around them.
        score: their mean probability of the class, as the method has it: not calibrated.
    """

    label: str
    area: int
    share: float
    box: PixelBox
    score: float

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "area": self.area,
            "share": round(self.share, 6),
            "box": list(self.box),
            "score": round(self.score, 4),
        }


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One picture, each pixel with a class; displays itself in a notebook.

    Attributes:
        image: file name as given.
        classes: names; a pixel's value is a place among them, 255 where nothing is named.
        mask: ``(height, width)`` of the upright picture.
        scores: ``(k, h, w)`` on the grid of cells, before the best was taken.
        segments: of the classes found, largest first.
        about: method, encoder and input, as JSON.
        pixels: the picture, small and stretched to a square, for the page.
        presence: of each name, how far it stands out among other names in the picture, in standard deviations; empty
            where the segmenter has no such measure.
    """

    image: str
    classes: tuple[str, ...]
    mask: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    segments: tuple[Segment, ...]
    about: dict[str, Any] = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    presence: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def not_found(self) -> tuple[str, ...]:
        """The names that were given and have no pixel."""
        labels = {s.label for s in self.segments}
        return tuple(name for name in self.classes if name not in labels)

    @property
    def unnamed(self) -> float:
        """Part of the picture's pixels that is none of the names."""
        return float((self.mask >= len(self.classes)).mean())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.mask.shape
        return width, height

    @checked
    def mask_of(self, label: str) -> np.ndarray:
        """The pixels of one class, ``(height, width)`` of booleans.

        Raises:
            UnknownNameError: there is no such class.
        """
        if label not in self.classes:
            raise UnknownNameError("class", label, self.classes)
        return self.mask == self.classes.index(label)

    @cached_property
    def coded(self) -> dict[str, dict[str, Any]]:
        """The mask of each class found, as COCO writes it."""
        return {s.label: encode(self.mask == self.classes.index(s.label)) for s in self.segments}

    def to_json(self) -> dict[str, Any]:
        width, height = self.size
        return {
            "image": self.image,
            "width": width,
            "height": height,
            "classes": list(self.classes),
            "segments": [{**s.to_json(), "rle": self.coded[s.label]} for s in self.segments],
            "unnamed": round(self.unnamed, 6),
            "not_found": list(self.not_found),
            **({"presence": dict(self.presence)} if self.presence else {}),
            **self.about,
        }

    def to_png(self) -> bytes:
        """The mask as a PNG whose palette has the colours of the page."""
        buffer, palette = io.BytesIO(), np.zeros((256, 3), np.uint8)
        palette[: len(self.classes)] = class_colours(len(self.classes))
        indexed = Image.fromarray(self.mask)
        indexed.putpalette(palette.tobytes())
        indexed.save(buffer, "png", optimize=True)
        return buffer.getvalue()

    def to_html(self) -> str:
        """One self-contained page: the picture, and over it what was found."""
        return render_segments([self])

    @checked
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write as ``.png`` (the mask), ``.json`` or ``.html``, by the ending.

        Args:
            path: where; over an earlier file of SeeWhy's, not over another.
            force: over another file too.

        Raises:
            ForeignFileError: there is a file that SeeWhy did not make.
            DataError: another ending, or a place that no file can be written to.
        """
        path = Path(path)
        if path.suffix not in ENDINGS:
            raise DataError(
                f"A segmentation is written as .png, .json or .html, not as {path.suffix!r}. Change the ending of "
                f"{path}."
            )
        check_file(path, force=force)
        if path.suffix == ".json":
            data: bytes | str = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        else:
            data = self.to_png() if path.suffix == ".png" else self.to_html()
        return write(path, data, force=force)

    def _repr_html_(self) -> str:
        return framed(self.to_html(), "SeeWhy segmentation")

    def __repr__(self) -> str:
        found = ", ".join(f"{s.label} {s.share:.0%}" for s in self.segments[:4])
        absent = f"; not found: {some(self.not_found)}" if self.not_found else ""
        return f"Segmentation({self.image!r}, {found or 'none of the names'}{absent})"


def segments_of(classes: tuple[str, ...], mask: np.ndarray, probability: np.ndarray) -> tuple[Segment, ...]:
    """The classes in a mask, largest first."""
    counts = np.bincount(mask.ravel(), minlength=256)
    found = []
    for index in np.argsort(-counts[: len(classes)], kind="stable"):
        if not counts[index]:
            break
        own = mask == index
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        area = int(counts[index])
        found.append(Segment(classes[index], area, area / mask.size, box, float(probability[own].mean())))
    return tuple(found)


class CocoDocument:
    """Pictures, classes and masks as COCO writes them, picture by picture; classes are numbered from 1, as there.

    Args:
        classes: their names.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.number = {name: i for i, name in enumerate(classes, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, found: Segmentation) -> None:
        """Put a picture and its segments in."""
        width, height = found.size
        picture = len(self.images) + 1
        self.images.append({"id": picture, "file_name": found.image, "width": width, "height": height})
        for s in found.segments:
            left, top, right, bottom = s.box
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": picture,
                    "category_id": self.number[s.label],
                    "segmentation": found.coded[s.label],
                    "area": s.area,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                    "score": round(s.score, 4),
                }
            )

    def to_json(self) -> dict[str, Any]:
        categories = [{"id": i, "name": name} for name, i in self.number.items()]
        return {"images": self.images, "categories": categories, "annotations": self.annotations}
