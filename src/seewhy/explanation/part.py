"""A box or a segment of a picture that is explained by itself, and how much of its score comes from outside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ..results import Doc, Share
from .result import HIDDEN, OPTIONAL, Json, Result
from .verdict import Verdict

PartBox = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright picture."""


@dataclass(frozen=True)
class Outside(Result):
    """The effects on a score of hiding its object, of hiding everything else, and of hiding the same shape
    elsewhere.
    """

    probability: Annotated[Share, Doc("probability of its name on the whole picture"), Json(digits=6)]
    without_inside: Annotated[Share, Doc("the same with the part hidden"), Json(digits=6)]
    without_outside: Annotated[Share, Doc("the same with everything else hidden"), Json(digits=6)]
    fall_inside: Annotated[float, Doc("fall of the log-odds when the part is hidden")]
    fall_outside: Annotated[float, Doc("fall when everything else is hidden")]
    falls_elsewhere: Annotated[tuple[float, ...], Doc("falls when the same shape is hidden in other places")]
    share_inside: Annotated[
        float,
        Doc("share of the picture's effect on the log-odds that comes from inside (Shapley values of the two halves)"),
    ]
    verdict: Annotated[Verdict, Doc("believable, partly, do not rely or not measured")]

    @property
    def fall_elsewhere(self) -> float:
        return sum(self.falls_elsewhere) / len(self.falls_elsewhere)


@dataclass(frozen=True, eq=False)
class Part(Result):
    computed: ClassVar = ("width", "height")

    kind: Annotated[Literal["box", "segment"], Doc("box or segment")]
    number: Annotated[int, Doc("its position on the picture, by score for boxes and by size for segments")]
    n: Annotated[int, Doc("number of boxes or segments on the picture")]
    label: Annotated[str, Doc("its name")]
    score: Annotated[float, Doc("the method's own score; not calibrated"), Json(digits=6)]
    box: Annotated[PartBox, Doc("left, top, right, bottom in pixels"), Json(digits=2)]
    size: Annotated[tuple[int, int], HIDDEN]
    """Width and height of the upright picture."""
    picture: Annotated[np.ndarray, HIDDEN] = field(repr=False)
    """The whole picture, small, uint8 ``(h, w, 3)``."""
    frame: Annotated[PartBox, HIDDEN]
    """What the card's view shows of the picture, in its pixels."""
    mask: Annotated[np.ndarray | None, HIDDEN] = field(default=None, repr=False)
    rle: Annotated[dict[str, Any] | None, Doc("the mask in COCO's form"), OPTIONAL] = field(default=None, repr=False)
    outside: Annotated[Outside | None, Doc("what hiding the inside and the outside does; `null` if not measured")] = (
        None
    )

    @property
    def width(self) -> Annotated[int, Doc("of the picture")]:
        return self.size[0]

    @property
    def height(self) -> Annotated[int, Doc("of the picture")]:
        return self.size[1]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number} of {self.n}"

    @property
    def said(self) -> str:
        return f"{self.name}, found as {self.label} with a score of {self.score:.2f}"

    def inside(self, height: int, width: int, frame: PartBox) -> np.ndarray:
        """A mask of the object's pixels in a view of this size that shows the frame."""
        left, top, right, bottom = frame
        x = left + (np.arange(width) + 0.5) / width * (right - left)
        y = top + (np.arange(height) + 0.5) / height * (bottom - top)
        if self.mask is not None:
            rows, columns = (v.astype(int).clip(0, n - 1) for v, n in ((y, self.size[1]), (x, self.size[0])))
            found: np.ndarray = self.mask[rows][:, columns]
            return found
        across, down = (x >= self.box[0]) & (x < self.box[2]), (y >= self.box[1]) & (y < self.box[3])
        return down[:, None] & across[None]
