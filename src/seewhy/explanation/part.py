"""A box or segment to explain, and the influence of the pixels outside it."""

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
    """The effect on a score of hiding the object, its surroundings, or the same shape elsewhere."""

    probability: Annotated[Share, Doc("probability of its name on the whole picture"), Json(digits=6)]
    without_inside: Annotated[Share, Doc("probability with the box or segment hidden"), Json(digits=6)]
    without_outside: Annotated[Share, Doc("probability with everything else hidden"), Json(digits=6)]
    fall_inside: Annotated[float, Doc("decrease of the log-odds when the box or segment is hidden")]
    fall_outside: Annotated[float, Doc("decrease of the log-odds when everything else is hidden")]
    falls_elsewhere: Annotated[
        tuple[float, ...], Doc("decreases of the log-odds when the same shape is hidden elsewhere")
    ]
    share_inside: Annotated[float, Doc("share of the effect on the log-odds that comes from inside (Shapley values)")]
    verdict: Annotated[Verdict, Doc("believable, partly, do not rely or not measured")]

    @property
    def fall_elsewhere(self) -> float:
        return sum(self.falls_elsewhere) / len(self.falls_elsewhere)


@dataclass(frozen=True, eq=False)
class Part(Result):
    computed: ClassVar = ("width", "height")

    kind: Annotated[Literal["box", "segment"], Doc("box or segment")]
    number: Annotated[int, Doc("rank in the picture, by score for boxes and by size for segments")]
    n: Annotated[int, Doc("number of boxes or segments on the picture")]
    label: Annotated[str, Doc("name of the object")]
    score: Annotated[float, Doc("the method's score, not calibrated"), Json(digits=6)]
    box: Annotated[PartBox, Doc("left, top, right, bottom in pixels"), Json(digits=2)]
    size: Annotated[tuple[int, int], HIDDEN]
    """Width and height of the upright picture."""
    picture: Annotated[np.ndarray, HIDDEN] = field(repr=False)
    """Thumbnail of the whole picture, uint8 ``(h, w, 3)``."""
    frame: Annotated[PartBox, HIDDEN]
    """Displayed crop, in pixels of the upright picture."""
    mask: Annotated[np.ndarray | None, HIDDEN] = field(default=None, repr=False)
    rle: Annotated[dict[str, Any] | None, Doc("COCO run-length encoding of the mask"), OPTIONAL] = field(
        default=None, repr=False
    )
    outside: Annotated[Outside | None, Doc("effect of hiding the inside and the outside; `null` if not measured")] = (
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
        """Return the mask of the object's pixels in a view of this size."""
        left, top, right, bottom = frame
        x = left + (np.arange(width) + 0.5) / width * (right - left)
        y = top + (np.arange(height) + 0.5) / height * (bottom - top)
        if self.mask is not None:
            rows, columns = (v.astype(int).clip(0, n - 1) for v, n in ((y, self.size[1]), (x, self.size[0])))
            return self.mask[rows][:, columns]
        across, down = (x >= self.box[0]) & (x < self.box[2]), (y >= self.box[1]) & (y < self.box[3])
        return down[:, None] & across[None]
