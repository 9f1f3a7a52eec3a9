"""A box or a segment of a picture that is explained by itself, and how much of its score comes from outside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .verdict import Verdict

PartBox = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright picture."""


@dataclass(frozen=True)
class Outside:
    """What hiding a part does to its score, what hiding all else does, and what hiding as much elsewhere does.

    Attributes:
        probability: of the part's name on the picture as it is.
        without_inside: the same with the part hidden.
        without_outside: the same with everything else hidden.
        fall_inside: of the logarithm of the odds, when the part is hidden.
        fall_outside: when everything else is hidden.
        falls_elsewhere: when the same shape is hidden in other places, one for each place.
        share_inside: part of what the picture does to the odds that is done inside, 0…1: Shapley values of the two
            halves, each by its size.
    """

    probability: float
    without_inside: float
    without_outside: float
    fall_inside: float
    fall_outside: float
    falls_elsewhere: tuple[float, ...]
    share_inside: float
    verdict: Verdict

    @property
    def fall_elsewhere(self) -> float:
        """Mean over places."""
        return sum(self.falls_elsewhere) / len(self.falls_elsewhere)

    def to_json(self) -> dict[str, Any]:
        return {
            "probability": round(self.probability, 6),
            "without_inside": round(self.without_inside, 6),
            "without_outside": round(self.without_outside, 6),
            "fall_inside": round(self.fall_inside, 4),
            "fall_outside": round(self.fall_outside, 4),
            "falls_elsewhere": [round(v, 4) for v in self.falls_elsewhere],
            "share_inside": round(self.share_inside, 4),
            "verdict": self.verdict.level,
        }


@dataclass(frozen=True, eq=False)
class Part:
    """What an explanation is of, where that is not the whole picture.

    Attributes:
        kind: ``"box"`` or ``"segment"``.
        number: its place among those of the picture, from 1: the surest box or the largest segment first.
        n: how many the picture has.
        label: the name it was given.
        score: how sure the method is of it, as it has it: not calibrated.
        box: the smallest around it.
        size: width and height of the upright picture.
        mask: of a segment, ``(height, width)`` of booleans.
        rle: the same as COCO writes it.
        picture: the whole picture, small, uint8 ``(h, w, 3)``.
        frame: what the card's view shows of the picture, in its pixels.
        outside: what was measured; ``None`` where it was not.
    """

    kind: Literal["box", "segment"]
    number: int
    n: int
    label: str
    score: float
    box: PartBox
    size: tuple[int, int]
    picture: np.ndarray = field(repr=False)
    frame: PartBox
    mask: np.ndarray | None = field(default=None, repr=False)
    rle: dict[str, Any] | None = field(default=None, repr=False)
    outside: Outside | None = None

    @property
    def name(self) -> str:
        """Which of those of the picture."""
        return f"{self.kind} {self.number} of {self.n}"

    @property
    def said(self) -> str:
        """One line for the card."""
        return f"{self.name}, found as {self.label} with a score of {self.score:.2f}"

    def inside(self, height: int, width: int, frame: PartBox) -> np.ndarray:
        """Which pixels are of the part, of a view of this size that shows what is in the frame."""
        left, top, right, bottom = frame
        x = left + (np.arange(width) + 0.5) / width * (right - left)
        y = top + (np.arange(height) + 0.5) / height * (bottom - top)
        if self.mask is not None:
            rows, columns = (v.astype(int).clip(0, n - 1) for v, n in ((y, self.size[1]), (x, self.size[0])))
            found: np.ndarray = self.mask[rows][:, columns]
            return found
        across, down = (x >= self.box[0]) & (x < self.box[2]), (y >= self.box[1]) & (y < self.box[3])
        return down[:, None] & across[None]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "number": self.number,
            "n": self.n,
            "label": self.label,
            "score": round(self.score, 6),
            "box": [round(float(v), 2) for v in self.box],
            "width": self.size[0],
            "height": self.size[1],
            **({} if self.rle is None else {"rle": self.rle}),
            "outside": None if self.outside is None else self.outside.to_json(),
        }
