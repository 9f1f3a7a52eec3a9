"""Boxes and masks found in a picture, and the files written from them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from ..arguments import checked
from ..errors import DataError, ForeignFileError, UnknownNameError
from ..explanation.result import Json, Result, plain
from ..pictures.boxes import BoxData, BoxedPicture, BoxRecord, Corners, check_boxes, save_boxes
from ..pictures.pixel_classes import encode
from ..pictures.samples import some
from ..pictures.sources import is_picture
from ..report.overviews import MOST_SHOWN, render_regions
from ..report.paging import framed
from ..report.palette import class_colours
from ..results import Doc, Share
from ..spelling import first_repeated
from ..storage.marks import is_own
from ..storage.output import check_file, is_written, make_folder, output_folder, safe_stem, write
from ..types import PixelBox

NOTHING = 255
"""Mask value of an unnamed pixel."""
COCO, INDEX = "segments.json", "index.html"


@dataclass(frozen=True)
class Region(Result):
    """An object in a picture, with its bounding box."""

    label: Annotated[str, Doc("name of the object")]
    score: Annotated[Share, Doc("the detector's score, not calibrated"), Json(digits=6)]
    box: Annotated[Corners, Doc("left, top, right, bottom in pixels of the upright picture"), Json(digits=2)]


@dataclass(frozen=True)
class Detection(Region):
    made_of: Annotated[dict[str, float] | None, Doc("components of the score"), Json(digits=6, optional=True)] = None


@dataclass(frozen=True)
class Segment(Region):
    """All pixels of a class in a picture."""

    box: Annotated[PixelBox, Doc("bounding box: left, top, right, bottom in pixels")]
    score: Annotated[Share, Doc("mean probability of the class over its pixels; not calibrated")]
    area: Annotated[int, Doc("area in pixels")]
    share: Annotated[Share, Doc("share of the picture's pixels"), Json(digits=6)]
    rle: Annotated[dict[str, Any], Doc("COCO run-length encoding of the mask: `size` and `counts`")]


@dataclass(frozen=True, eq=False, repr=False)
class FoundRegions:
    """The boxes or masks found in one picture.

    Attributes:
        image: name of the picture.
        size: width and height of the upright picture.
        classes: names to find.
        regions: boxes, highest score first, or one segment per class found, largest first.
        about: method and its parameters, as JSON.
        pixels: thumbnail of the picture, resized to a square.
        presence: presence of each name in the picture, in standard deviations above other names; empty if the method
            does not compute it.
    """

    kind: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    image: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    regions: tuple[Region, ...]
    about: dict[str, Any]
    pixels: np.ndarray
    presence: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def not_found(self) -> tuple[str, ...]:
        labels = {region.label for region in self.regions}
        return tuple(name for name in self.classes if name not in labels)

    def to_json(self) -> dict[str, Any]:
        width, height = self.size
        head = {"image": self.image, "width": width, "height": height, "classes": list(self.classes)}
        there = {"presence": dict(self.presence)} if self.presence else {}
        return {**head, self.kind: plain(self.regions), "not_found": list(self.not_found), **there, **self.about}

    def to_html(self) -> str:
        """Return a self-contained page that shows the objects on the picture."""
        return render_regions([self])

    @checked
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write a ``.json`` or ``.html`` file, or a mask as ``.png``; ``force`` overwrites files of other programs."""
        path = Path(path)
        if path.suffix not in self.files:
            raise DataError(f"{self.kind.capitalize()} must be written as {', '.join(self.files)}, got {path}.")
        check_file(path, force=force)
        return write(path, self._written(path.suffix), force=force)

    def _written(self, ending: str) -> bytes | str:
        return self.to_html() if ending == ".html" else json.dumps(self.to_json(), indent=1, ensure_ascii=False)

    def _repr_html_(self) -> str:
        return framed(self.to_html(), f"SeeWhy {self.kind}")

    def _absent(self) -> str:
        return f"; not found: {some(self.not_found)}" if self.not_found else ""


@dataclass(frozen=True, eq=False, repr=False)
class Detections(FoundRegions):
    """The boxes found in one picture."""

    kind = "detections"
    files: ClassVar[tuple[str, ...]] = (".html", ".json")

    def __len__(self) -> int:
        return len(self.regions)

    def record(self) -> BoxedPicture:
        """Return the boxes in the form that :func:`seewhy.save_boxes` takes."""
        return BoxedPicture(self.image, self.size, tuple(BoxRecord(d.box, d.label, d.score) for d in self.regions))

    def __repr__(self) -> str:
        surest = ", ".join(f"{d.label} {d.score:.2f}" for d in self.regions[:4])
        return f"Detections({self.image!r}, {len(self)} found{': ' + surest if surest else ''}{self._absent()})"


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(FoundRegions):
    """One picture with a class for each pixel.

    Attributes:
        mask: array ``(height, width)`` of the upright picture, of indices into the classes, or 255 without a name.
        scores: array ``(k, h, w)`` of the class scores of each grid cell.
    """

    kind = "segments"
    files: ClassVar[tuple[str, ...]] = (".png", ".html", ".json")

    regions: tuple[Segment, ...]
    mask: np.ndarray
    scores: np.ndarray

    @property
    def unnamed(self) -> float:
        """The share of the picture's pixels without a name."""
        return float((self.mask >= len(self.classes)).mean())

    @checked
    def mask_of(self, label: str) -> np.ndarray:
        """Return the pixels of one class as a boolean array ``(height, width)``."""
        UnknownNameError.check("class", label, self.classes)
        return self.mask == self.classes.index(label)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "unnamed": round(self.unnamed, 6)}

    def to_png(self) -> bytes:
        """Return the mask as a PNG with a colour palette."""
        buffer, palette = io.BytesIO(), np.zeros((256, 3), np.uint8)
        palette[: len(self.classes)] = class_colours(len(self.classes))
        indexed = Image.fromarray(self.mask)
        indexed.putpalette(palette.tobytes())
        indexed.save(buffer, "png", optimize=True)
        return buffer.getvalue()

    def _written(self, ending: str) -> bytes | str:
        return self.to_png() if ending == ".png" else super()._written(ending)

    def __repr__(self) -> str:
        largest = ", ".join(f"{s.label} {100 * s.share:.0f} %" for s in self.regions[:4])
        return f"Segmentation({self.image!r}, {largest or 'none of the names'}{self._absent()})"


def segments_of(classes: tuple[str, ...], mask: np.ndarray, probability: np.ndarray) -> tuple[Segment, ...]:
    counts = np.bincount(mask.ravel(), minlength=256)
    segments = []
    for index in np.argsort(-counts[: len(classes)], kind="stable"):
        if not counts[index]:
            break
        own = mask == index
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        area, score = int(counts[index]), float(probability[own].mean())
        segments.append(Segment(classes[index], score, box, area, area / mask.size, encode(own)))
    return tuple(segments)


def class_names(labels: Iterable[str], *, boxes: bool = False) -> tuple[str, ...]:
    """Return the class names, after a check that there are enough and that they differ."""
    names = tuple(" ".join(str(name).split()) for name in ([labels] if isinstance(labels, str) else labels))
    names = tuple(name for name in names if name)
    twice = first_repeated(names)
    if twice or not names or (not boxes and not 2 <= len(names) <= NOTHING):
        given = f"{twice!r} twice" if twice else f"{len(names)} name{'' if len(names) == 1 else 's'}"
        if boxes:
            raise DataError(f"Detection needs at least one name, and all names must be different, got {given}.")
        raise DataError(
            f"Segmentation needs 2 to {NOTHING} different names, got {given}. A name for everything else, such as "
            "'background', may be one of them."
        )
    return names


@dataclass(frozen=True)
class Keep:
    """Limits on the boxes: the lowest score, the largest overlap within a class, and the largest number of boxes."""

    least: float = 0.0
    overlap: float = 0.5
    most: int = 100

    def detections(
        self,
        boxes: Float[Tensor, "n 4"],
        scores: Float[Tensor, " n"],
        labels: Int[Tensor, " n"],
        classes: tuple[str, ...],
        size: tuple[int, int],
        made_of: Mapping[str, Float[Tensor, " n"]] | None = None,
    ) -> tuple[Detection, ...]:
        """Return the selected boxes, highest score first, clipped to the picture."""
        from torchvision.ops import batched_nms

        limit = torch.tensor([*size, *size], dtype=torch.float64)
        cut = torch.minimum(boxes.double().clamp(min=0), limit)
        real = (cut[:, 2:] > cut[:, :2]).all(1) & torch.isfinite(scores) & (scores >= self.least)
        sure = torch.nonzero(real).flatten()
        kept = sure[batched_nms(cut[sure].float(), scores[sure].float(), labels[sure], self.overlap)]
        regions = []
        for i in kept[: self.most]:
            left, top, right, bottom = map(float, cut[i])
            own = {name: float(value[i]) for name, value in (made_of or {}).items()} or None
            regions.append(Detection(classes[int(labels[i])], float(scores[i]), (left, top, right, bottom), own))
        return tuple(regions)


class SegmentFolder:
    """An output folder of segmented pictures, with masks, a COCO file and a page."""

    def __init__(self, path: Path, classes: tuple[str, ...], *, force: bool = False) -> None:
        self.path, self.force = output_folder(path), force
        for entry in () if is_written(path) else path.iterdir():
            if is_picture(entry.name, str(entry)) and not is_own(entry):
                raise ForeignFileError(
                    f"{path} has the picture {entry.name}, which SeeWhy did not write, so masks and pictures would be "
                    "mixed. Give a new folder with -o; --force does not help."
                )
        check_file(path / COCO, force=force)
        check_file(path / INDEX, force=force)
        self._number = {name: i for i, name in enumerate(classes, 1)}  # from 1, as COCO has it
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._shown: list[Segmentation] = []
        self._names: set[str] = set()

    def add(self, result: Segmentation) -> Path:
        """Write the mask of a picture and return its path."""
        (width, height), picture = result.size, len(self._images) + 1
        self._images.append({"id": picture, "file_name": result.image, "width": width, "height": height})
        for s in result.regions:
            left, top, right, bottom = s.box
            own = {"id": len(self._annotations) + 1, "image_id": picture, "category_id": self._number[s.label]}
            place = {"bbox": [left, top, right - left, bottom - top], "area": s.area, "iscrowd": 0}
            coded = {"segmentation": s.rle, "score": round(s.score, 4)}
            self._annotations.append({**own, **place, **coded})
        self._shown += [result] if len(self._shown) < MOST_SHOWN else []
        stem = safe_stem(result.image)
        names = chain([stem], (f"{stem}-{i}" for i in count(2)))
        name = next(name for name in names if name.casefold() not in self._names)
        self._names.add(name.casefold())
        return write(self.path / f"{name}.png", result.to_png(), force=self.force)

    def finish(self) -> Path:
        """Write the COCO file and the page, and return the path of the page."""
        categories = [{"id": i, "name": name} for name, i in self._number.items()]
        coco = {"images": self._images, "categories": categories, "annotations": self._annotations}
        write(self.path / COCO, json.dumps(coco, ensure_ascii=False), force=self.force)
        return write(self.path / INDEX, render_regions(self._shown, len(self._images)), force=self.force)


class BoxFolder:
    """An output folder of detections, with a file of boxes and a page."""

    def __init__(self, path: Path, classes: tuple[str, ...], format: str = "coco", *, force: bool = False) -> None:
        check_boxes(BoxData((), classes), path, format=format, force=force)
        self.path, self.classes, self.format, self.force = make_folder(path), classes, format, force
        check_file(path / INDEX, force=force)
        self._shown: list[Detections] = []
        self._records: list[BoxedPicture] = []

    def add(self, result: Detections) -> None:
        self._records.append(result.record())
        self._shown += [result] if len(self._shown) < MOST_SHOWN else []

    def finish(self) -> tuple[Path, Path]:
        """Write the boxes and the page, and return both paths."""
        data = BoxData(tuple(self._records), self.classes)
        files = save_boxes(data, self.path, format=self.format, force=self.force)
        page = render_regions(self._shown, len(self._records))
        return files[0], write(self.path / INDEX, page, force=self.force)
