"""Wrong decisions to look at: small copies of the pictures that a report names, and a card of each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..classifiers.base import Classifier
from ..errors import ImageError
from ..evidence.batch import Batch, Done
from ..evidence.explain import ExplainOptions
from ..pictures.images import read_picture
from ..progress import Progress
from ..storage.features import FeatureStore
from ..types import Transform
from .document import shown_examples
from .report import Report

SIDE = 88
SMALL = Transform((SIDE, SIDE), SIDE, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def small_copies(pictures: Iterable[str]) -> dict[str, np.ndarray]:
    """Small views ``(h, w, 3)``, by name, of those that can be read."""
    found = {}
    for name in pictures:
        try:
            found[name] = read_picture(name, SMALL).pixels
        except ImageError:
            continue
    return found


def write_cards(
    report: Report, classifier: Classifier, folder: Path, *, store: FeatureStore | None, progress: Progress
) -> dict[str, Path]:
    """A card for each wrong decision that the report shows, in a folder as ``seewhy explain`` makes it.

    A card that is there, of the same picture and classifier, is kept.
    """
    wrong = shown_examples(report.data)
    if not wrong:
        return {}
    batch = Batch(classifier, ExplainOptions(), folder, store=store)
    stream = progress.track(batch.run(wrong), "Making cards", len(wrong))
    return {done.record["image"]: Path(done.record["card"]) for done in stream if isinstance(done, Done)}


def address(card: Path, page: Path) -> str:
    """Where a card is, as a page leads to it.

    >>> address(Path("why/leek 1.html"), Path("reports/evaluation.html"))
    '../why/leek%201.html'
    """
    return quote(Path(os.path.relpath(card, page.parent)).as_posix(), errors="surrogateescape")
