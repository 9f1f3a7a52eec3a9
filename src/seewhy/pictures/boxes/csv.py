"""CSV and other tables: one box in each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DataError
from ...printable import spreadsheet_safe
from ..tables import TABLES, cell_text, rows_of
from . import box_formats
from .base import BoxData, BoxRecord, Gathering, find_picture, from_folder, near, number, whole_size, written

FILE = "boxes.csv"
COLUMNS: tuple[str, ...] = ("image", "width", "height", "left", "top", "right", "bottom", "label", "score", "ignored")
"""As they are written."""
ALSO = {
    "image": ("filename", "file_name", "file", "path", "image_path"),
    "left": ("xmin", "x_min", "x1"),
    "top": ("ymin", "y_min", "y1"),
    "right": ("xmax", "x_max", "x2"),
    "bottom": ("ymax", "y_max", "y2"),
    "label": ("class", "name", "category"),
    "score": ("confidence",),
}
"""What others call them."""
EDGES = ("left", "top", "right", "bottom")


@box_formats.register
@dataclass(frozen=True)
class CSV:
    """A row for each box, and one without numbers for a picture that has none.

    Columns are called ``image, left, top, right, bottom, label`` or as other tools call them (``filename, xmin, ymin,
    xmax, ymax, class``); ``width``, ``height``, ``score`` and ``ignored`` may be there. Classes without any box are not
    kept, as a table has no place for them.
    """

    name: ClassVar[str] = "csv"

    def knows(self, path: Path) -> bool:
        return path.suffix.lower() in TABLES or (path / FILE).is_file()

    def read(self, path: Path, pictures: Path | None) -> BoxData:
        path = path / FILE if path.is_dir() else path
        found, folders = Gathering(path), near(path, pictures)
        for i, row in enumerate(rows_of(path), 1):
            where = f"{path.name}, row {i}"
            one = _named(row)
            if missing := [c for c in ("image", *EDGES, "label") if c not in one]:
                raise DataError(
                    f"{path} has no column {missing[0]!r}; it has {', '.join(map(repr, row))}. Those expected are "
                    "image, left, top, right, bottom and label. Name them so."
                )
            name = cell_text(one["image"], where)
            if not name.strip():
                found.leave_out(where, "", str(one["label"]), (), "has no picture")
                continue
            image = find_picture(name, folders)
            found.picture(image, whole_size(one.get("width"), one.get("height")))
            if all(not str("" if one[e] is None else one[e]).strip() for e in EDGES):
                continue  # nothing is on this picture
            left, top, right, bottom = (number(one[e]) for e in EDGES)
            score = number(one["score"]) if str(one.get("score") or "").strip() else None
            ignored = str(one.get("ignored") or "").strip().lower() in ("1", "true", "yes")
            label = cell_text(one["label"], where).strip()
            found.box(where, image, BoxRecord((left, top, right, bottom), label, score, ignored))
        return found.done()

    def files(self, data: BoxData, folder: Path) -> Mapping[str, str]:
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(COLUMNS)
        for picture in data.pictures:
            head = [spreadsheet_safe(from_folder(picture.image, folder)), *(picture.size or ("", ""))]
            for b in picture.boxes:
                score = "" if b.score is None else written(b.score)
                table.writerow([*head, *map(written, b.box), spreadsheet_safe(b.label), score, int(b.ignored)])
            if not picture.boxes:
                table.writerow([*head, *[""] * 7])
        return {FILE: buffer.getvalue()}


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by our names of its columns."""
    lower = {str(k).strip().lower(): v for k, v in row.items()}
    for name, others in ALSO.items():
        if name not in lower and (there := next((o for o in others if o in lower), None)):
            lower[name] = lower[there]
    return lower
