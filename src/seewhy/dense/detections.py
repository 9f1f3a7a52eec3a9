"""What a detector found in one picture: a result, with its boxes, its files and its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arguments import checked
from ..errors import DataError
from ..pictures.boxes import BoxedPicture, BoxRecord
from ..pictures.boxes.base import Corners
from ..pictures.samples import some
from ..report.boxes import render_boxes
from ..report.paging import framed
from ..storage.output import check_file, write

ENDINGS = (".html", ".json")


@dataclass(frozen=True)
class Detection:
    """One thing that was found.

    Attributes:
        label: what it is.
        score: how sure the detector is, as it has it: not calibrated unless its ``about`` says so.
        box: left, top, right, bottom in pixels of the upright picture.
        made_of: numbers that the score was made of, each with its name, where the detector says them.
    """

    label: str
    score: float
    box: Corners
    made_of: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        own = {"label": self.label, "score": round(self.score, 6), "box": [round(v, 2) for v in self.box]}
        return own | ({"made_of": {name: round(v, 6) for name, v in self.made_of}} if self.made_of else {})


@dataclass(frozen=True, eq=False)
class Detections:
    """One picture and what was found in it; displays itself in a notebook.

    Attributes:
        image: file name as given.
        size: width and height of the upright picture.
        classes: what was looked for.
        found: surest first.
        about: method and its parameters, as JSON.
        pixels: the picture, small and stretched to a square, for the page.
        presence: of each name, how far it stands out among other names in the picture, in standard deviations; empty
            where the detector has no such measure.
    """

    image: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    found: tuple[Detection, ...]
    about: dict[str, Any] = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    presence: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def not_found(self) -> tuple[str, ...]:
        """The names that were looked for and have no box."""
        labels = {d.label for d in self.found}
        return tuple(name for name in self.classes if name not in labels)

    def __len__(self) -> int:
        return len(self.found)

    def record(self) -> BoxedPicture:
        """The same as boxes of a file."""
        return BoxedPicture(self.image, self.size, tuple(BoxRecord(d.box, d.label, d.score) for d in self.found))

    def to_json(self) -> dict[str, Any]:
        width, height = self.size
        return {
            "image": self.image,
            "width": width,
            "height": height,
            "classes": list(self.classes),
            "detections": [d.to_json() for d in self.found],
            "not_found": list(self.not_found),
            **({"presence": dict(self.presence)} if self.presence else {}),
            **self.about,
        }

    def to_html(self) -> str:
        """One self-contained page: the picture with its boxes."""
        return render_boxes([self])

    @checked
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write as ``.json`` or ``.html``, by the ending; :func:`seewhy.save_boxes` writes COCO, YOLO, VOC and CSV.

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
                f"Detections are written as .json or .html, not as {path.suffix!r}. Change the ending of {path}."
            )
        check_file(path, force=force)
        as_json = json.dumps(self.to_json(), indent=1, ensure_ascii=False) if path.suffix == ".json" else ""
        return write(path, as_json or self.to_html(), force=force)

    def _repr_html_(self) -> str:
        return framed(self.to_html(), "SeeWhy detections")

    def __repr__(self) -> str:
        said = ", ".join(f"{d.label} {d.score:.2f}" for d in self.found[:4])
        absent = f"; not found: {some(self.not_found)}" if self.not_found else ""
        return f"Detections({self.image!r}, {len(self)} found{': ' + said if said else ''}{absent})"


@dataclass(frozen=True)
class Keep:
    """Which of a detector's boxes are kept.

    Attributes:
        least: score below which a box is not kept.
        overlap: of two boxes of one class that overlap more (intersection over union), the surer is kept.
        most: boxes kept in one picture.
    """

    least: float = 0.0
    overlap: float = 0.5
    most: int = 100

    def choose(
        self, boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"]
    ) -> Int[Tensor, " m"]:
        """The places of the boxes to keep, surest first."""
        from torchvision.ops import batched_nms

        sure = torch.nonzero(scores >= self.least).flatten()
        kept = sure[batched_nms(boxes[sure].float(), scores[sure].float(), labels[sure], self.overlap)]
        return kept[: self.most]

    def detections(
        self,
        boxes: Float[Tensor, "n 4"],
        scores: Float[Tensor, " n"],
        labels: Int[Tensor, " n"],
        classes: tuple[str, ...],
        size: tuple[int, int],
        made_of: Mapping[str, Float[Tensor, " n"]] | None = None,
    ) -> tuple[Detection, ...]:
        """The boxes to keep, cut at the picture's edge; what has no area there is not kept."""
        limit = torch.tensor([*size, *size], dtype=torch.float64)
        cut = torch.minimum(boxes.double().clamp(min=0), limit)
        real = torch.nonzero((cut[:, 2:] > cut[:, :2]).all(1) & torch.isfinite(scores)).flatten()
        cut, scores, labels = cut[real], scores[real], labels[real]
        parts = {name: value[real] for name, value in (made_of or {}).items()}
        return tuple(
            Detection(
                classes[int(labels[i])],
                float(scores[i]),
                tuple(map(float, cut[i])),  # type: ignore[arg-type]
                tuple((name, float(value[i])) for name, value in parts.items()),
            )
            for i in self.choose(cut, scores, labels)
        )
