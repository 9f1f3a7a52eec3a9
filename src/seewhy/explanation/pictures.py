"""What a perceiver saw of a picture, and what a generator made for its class, as a card shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ..results import Count, Doc, Share
from .result import HIDDEN, Json, Result
from .verdict import Verdict


@dataclass(frozen=True)
class Memorised(Result):
    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its class")]
    distance: Annotated[
        float | None, Doc("how far, root mean square over pixels, black to white being 1"), Json(digits=5)
    ]
    picture: Annotated[np.ndarray, HIDDEN]
    """As it was memorised, grey, uint8 ``(h, w)``."""


@dataclass(frozen=True)
class Perceived(Result):
    computed: ClassVar = ("picture", "n_loops")

    path: Annotated[tuple[np.ndarray, ...], HIDDEN]
    """What was seen on the way, the observed picture first and the seen one last, grey, uint8 ``(h, w)``."""
    loops: Annotated[tuple[int, ...], HIDDEN]
    """After how many loops each of ``path`` was seen."""
    moved: Annotated[float, Doc("by how much the last loop moved it, black to white being 1"), Json(digits=5)]
    spread: Annotated[float, Doc("how far the copies end from their mean, in the same unit"), Json(digits=5)]
    n_copies: Annotated[Count, Doc("disturbed copies that were redrawn, of which it is the mean")]
    nearest: Annotated[Memorised, Doc("the memorised picture nearest to it")]
    verdict: Annotated[Verdict, Doc("as above")]

    @property
    def picture(self) -> Annotated[np.ndarray, Doc("that picture, rows from top to bottom, grey, 0…255")]:
        return self.path[-1]

    @property
    def n_loops(self) -> Annotated[int, Doc("how often it was redrawn"), Json("loops")]:
        return self.loops[-1]


@dataclass(frozen=True, eq=False)
class MadePicture(Result):
    pixels: Annotated[np.ndarray, HIDDEN]
    value: Annotated[Share, Doc("the climbed classifier's own probability, which proves nothing"), Json(digits=5)]
    seen: Annotated[str | None, Doc("the class that the second network sees; `null` where none was named")] = None
    agrees: Annotated[bool | None, Doc("whether that is the class; `null` where it has no such class")] = None


@dataclass(frozen=True, eq=False)
class Typical(Result):
    """Pictures of a class that a generator made; they are of the class and not of the picture that is explained."""

    label: Annotated[str, Doc("the class")]
    climbed: Annotated[str, Doc("the network that they were made for")]
    pictures: Annotated[tuple[MadePicture, ...], Doc("different ones")]
    judge: Annotated[str | None, Doc("the second network; `null` where none was named")]
    drawn: Annotated[str, Doc("how well the generator draws"), Json("generator")]
    verdict: Annotated[Verdict, Doc("as above")]
