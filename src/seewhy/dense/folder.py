"""The folder that segmented pictures go to: a mask each, one COCO document, one page."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ForeignFileError
from ..report.found_in_pictures import MOST_SHOWN
from ..report.segments import render_segments
from ..storage.output import check_file, make_folder, write
from .segmentation import CocoDocument, Segmentation

COCO = "segments.json"
INDEX = "index.html"


class SegmentFolder:
    """Takes results one by one, and writes what is about all of them at the end.

    Args:
        path: the folder, made if it is not there.
        classes: of the segmenter.
        force: write over files of somebody else's.
    """

    def __init__(self, path: Path, classes: tuple[str, ...], *, force: bool = False) -> None:
        self.path, self.force = make_folder(path), force
        check_file(path / COCO, force=force)
        check_file(path / INDEX, force=force)
        self._coco = CocoDocument(classes)
        self._shown: list[Segmentation] = []
        self._names: set[str] = set()

    def add(self, found: Segmentation) -> Path:
        """Write a picture's mask; where it is."""
        self._coco.add(found)
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(found)
        kept = (c if c.isalnum() or c in "-_. " else "_" for c in Path(found.image).stem)
        stem = "".join(kept).strip(". ")[:80] or "picture"
        for name in (stem, *(f"{stem}-{i}" for i in range(2, 1000))):
            path = self.path / f"{name}.png"
            if name.casefold() in self._names:
                continue
            self._names.add(name.casefold())
            return write(path, found.to_png(), force=self.force)
        raise ForeignFileError(
            f"{self.path} has masks under every name that {found.image} could have. A folder with less in it was "
            "expected. Give another with -o."
        )

    def finish(self) -> Path:
        """Write the COCO document and the page; where the page is."""
        write(self.path / COCO, json.dumps(self._coco.to_json(), ensure_ascii=False), force=self.force)
        return write(self.path / INDEX, render_segments(self._shown, len(self._coco.images)), force=self.force)
