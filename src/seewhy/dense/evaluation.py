"""How good masks are: mean intersection over union, and beside it what it would be without words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked
from ..errors import DataError, InputError
from ..pictures.pixel_classes import MaskedPictures
from ..progress import Progress
from ..report.paging import Page
from ..report.segment_report import render_segment_report
from .controls import N_RANDOM, Norms, ceiling, commonest, shuffled
from .linear import Linear
from .miou import accuracy, compared, confusion, per_class
from .reader import Looked
from .segmenter import Segmenter
from .truths import said_unnamed, with_truth

OWN, SHUFFLED, RANDOM = "the model", "names shuffled", "random texts"
NORM, ALWAYS = "length of features, without words", "always the commonest class"
PROBE, GRID = "a linear probe of each cell", "the best that the grid allows"
WHAT = {
    OWN: "as it is",
    SHUFFLED: "each name gets the place of another; the best of {n} draws, {mean} on average",
    RANDOM: "directions drawn in place of texts; the best of {n} draws, {mean} on average",
    NORM: "pixels parted by how long their features are, and the parts named by who knows the answers",
    ALWAYS: "the class with most pixels of these very pictures",
    PROBE: "trained on the pictures given to train on; no words",
    GRID: "every cell's true classes are known: what a coarser grid than the picture costs",
}
"""Each line of the table, and what it is."""


@dataclass(frozen=True)
class SegmentationReport(Page):
    """What was measured; ``data`` is the documented JSON (docs/json.md)."""

    def to_html(self) -> str:
        return render_segment_report(self.data)


@checked
def evaluate_segmenter(
    segmenter: Segmenter,
    data: MaskedPictures,
    *,
    train: MaskedPictures | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SegmentationReport:
    """Mean intersection over union on pictures with masks, per class and with intervals over pictures, and controls.

    What is judged is what :meth:`Segmenter.segment` writes. Every picture is looked at once, and all lines of the table
    come from that look.

    Args:
        segmenter: of the same classes, by name.
        data: pictures with masks.
        train: others, on which the linear probe is trained; left out, there is none.
        seed: of the resampling, of shuffled names and of random texts.
        progress: hears of progress and failures.

    Raises:
        DataError: no picture with a mask can be used.
        InputError: the segmenter's classes are others.
    """
    progress = progress or Progress()
    data = in_order(data, segmenter.classes)
    table = _Table(segmenter, _scored(segmenter, train, seed, progress), data, progress)
    table.measure()
    rows = table.rows(seed)
    found = torch.stack(table.arms[OWN])
    classes = per_class(found, segmenter.classes, seed)
    absent = [c["label"] for c in classes if c["iou"] is None]
    notes = [*data.notes, *(() if train is None else train.notes), *said_unnamed(table.unnamed, table.n_pixels)]
    if absent:
        notes.append(f"{len(absent)} class(es) without a pixel in these masks are left out: {', '.join(absent)}")
    own, shuffle = rows[0], rows[1]
    return SegmentationReport(
        {
            "method": segmenter.method,
            "encoder": segmenter.base.name,
            "fingerprint": segmenter.base.fingerprint,
            "input": list(segmenter.encoder.transform.input_size),
            "n": len(found),
            "miou": own["miou"],
            "interval": own["interval"],
            "accuracy": accuracy(found),
            "above_shuffled": own["miou"] / shuffle["miou"] if shuffle["miou"] else None,
            "classes": classes,
            "rows": rows,
            "notes": notes,
            "failures": [f.to_json() for f in progress.failures],
        }
    )


def in_order(data: MaskedPictures, classes: tuple[str, ...]) -> MaskedPictures:
    """The same pictures with their classes in this order."""
    if set(data.classes) != set(classes):
        more, fewer = sorted(set(data.classes) - set(classes)), sorted(set(classes) - set(data.classes))
        raise InputError(
            f"The masks have {', '.join(map(repr, more)) or 'no class'} that the segmenter has not, and lack "
            f"{', '.join(map(repr, fewer)) or 'none'}. The same classes were expected. Give --labels in the words of "
            "the masks' classes."
        )
    values = {value: classes.index(data.classes[place]) for value, place in data.values.items()}
    return replace(data, classes=classes, values=values)


def _scored(segmenter: Segmenter, train: MaskedPictures | None, seed: int, progress: Progress) -> dict[str, Segmenter]:
    """The segmenter and what is compared with it on the very same cells."""
    arms = {OWN: segmenter}
    for i in range(N_RANDOM):
        if (other := segmenter.scorer.random(seed + i)) is not None:
            arms[f"{RANDOM} {i}"] = replace(segmenter, scorer=other, presence=None)
    if train is not None:
        how = Linear(zoom=segmenter.zoom, seed=seed)
        probe = how.fit(segmenter.base, in_order(train, segmenter.classes), progress=progress)
        arms[PROBE] = replace(probe, levels=segmenter.levels)
    return arms


class _Table:
    """Confusions of every picture under every arm."""

    def __init__(
        self, segmenter: Segmenter, scored: Mapping[str, Segmenter], data: MaskedPictures, progress: Progress
    ) -> None:
        self.segmenter, self.scored, self.data, self.progress = segmenter, scored, data, progress
        self.arms: dict[str, list[Tensor]] = defaultdict(list)
        self.norms = Norms(len(segmenter.classes))
        self.unnamed: Counter[int] = Counter()
        self.n_pixels = 0

    def measure(self) -> None:
        """Look at every picture once."""
        for one, truth, unnamed in with_truth(self.segmenter, self.data, self.progress, "Segmenting"):
            self.unnamed.update(unnamed)
            self.n_pixels += truth.size
            self._add(one, truth)
        if not self.arms:
            raise DataError(
                f"None of the {len(self.data)} pictures could be used with its mask. One at least was expected. See "
                "why above."
            )

    def _add(self, one: Looked, truth: np.ndarray) -> None:
        k = len(self.segmenter.classes)
        grid, size = (0, 0), (0, 0)
        for name, arm in self.scored.items():
            scores = arm.scores(one)
            mask, _ = arm.pixels(scores, one, arm.named_in(one))
            if name == OWN:
                grid, size = (scores.shape[1], scores.shape[2]), arm.reader.resolution(one)
            self.arms[name].append(confusion(truth, mask, k))
        self.arms[GRID].append(confusion(truth, ceiling(truth, k, grid, size), k))
        encoder = self.segmenter.encoder
        self.norms.add(one.windows.merged(encoder.layout.to_grid(one.features)), truth)

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """The table: the model, then its controls, then what could be had."""
        own = torch.stack(self.arms[OWN])
        arms = {name: torch.stack(found) for name, found in self.arms.items()}
        drawn = [
            (SHUFFLED, shuffled(own, seed)),
            (RANDOM, [arms[name] for name in arms if name.startswith(RANDOM)]),
        ]
        plain = [(NORM, self.norms.confusions()), (ALWAYS, commonest(own))]
        plain += [(name, arms[name]) for name in (PROBE, GRID) if name in arms]
        lines = [(OWN, own, "")]
        for name, several in drawn:
            if several:
                each = compared(several, seed).values
                mean = f"{100 * float(each.mean()):.1f}"
                lines.append((name, several[int(each.argmax())], WHAT[name].format(n=len(several), mean=mean)))
        lines += [(name, found, WHAT[name]) for name, found in plain]
        judged = compared([found for _, found, _ in lines], seed)
        rows = []
        for i, (name, _, what) in enumerate(lines):
            difference, interval, real = judged.difference(0, i)
            rows.append(
                {
                    "name": name,
                    "what": what or WHAT[name],
                    "control": name not in (OWN, PROBE, GRID),
                    "miou": float(judged.values[i]),
                    "interval": list(judged.interval(i)),
                    "difference": difference if i else None,
                    "difference_interval": list(interval) if i else None,
                    "real": real if i else None,
                }
            )
        return rows
