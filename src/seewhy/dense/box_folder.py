"""The folder that detections go to: the boxes in one format, and a page."""

from __future__ import annotations

from pathlib import Path

from ..pictures.boxes import BoxData, BoxedPicture, save_boxes
from ..pictures.boxes.files import check_boxes
from ..report.boxes import render_boxes
from ..report.found_in_pictures import MOST_SHOWN
from ..storage.output import check_file, make_folder, write
from .detections import Detections

INDEX = "index.html"


class BoxFolder:
    """Takes results one by one, and writes them at the end.

    Args:
        path: the folder, made if it is not there.
        classes: of the detector.
        format: a registered name.
        force: write over files of somebody else's.
    """

    def __init__(self, path: Path, classes: tuple[str, ...], format: str = "coco", *, force: bool = False) -> None:
        check_boxes(BoxData((), classes), path, format=format, force=force)
        self.path, self.classes, self.format, self.force = make_folder(path), classes, format, force
        check_file(path / INDEX, force=force)
        self._shown: list[Detections] = []
        self._records: list[BoxedPicture] = []

    def add(self, found: Detections) -> None:
        """Take a picture's boxes."""
        self._records.append(found.record())
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(found)

    def finish(self) -> tuple[Path, Path]:
        """Write the boxes and the page; where each is."""
        data = BoxData(tuple(self._records), self.classes)
        files = save_boxes(data, self.path, format=self.format, force=self.force)
        page = render_boxes(self._shown, len(self._records))
        return files[0], write(self.path / INDEX, page, force=self.force)
