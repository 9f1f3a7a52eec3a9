"""Like what, as a card shows it: patches, channels or whole pictures of the user's, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from ..results import Count, Doc, Share
from ..types import FractionBox, PixelBox
from .result import EXACT, HIDDEN, INLINE, OPTIONAL, Json, Result
from .verdict import Verdict


@dataclass(frozen=True)
class NeighbourShare(Result):
    """The share of neighbours that have the class explained, beside the same on held-out pictures."""

    share: Annotated[Share, Doc("share of the neighbours shown that have the class")]
    limit: Annotated[float, Doc("share that a wrong class reaches on at most one held-out picture in twenty")]
    near: Annotated[float | None, Doc("mean similarity of the nearest; `null` with `epic`")] = None
    near_limit: Annotated[float | None, Doc("the similarity that 19 of 20 held-out pictures exceed")] = None
    n: Annotated[Count, Doc("held-out pictures with about as many neighbours of the class; 0 with `epic`")] = 0
    right: Annotated[Count, Doc("how many of these were predicted correctly")] = 0

    @property
    def far(self) -> bool:
        return self.near is not None and self.near_limit is not None and self.near < self.near_limit

    @property
    def reaches(self) -> bool:
        return self.share >= self.limit


@dataclass(frozen=True)
class PatchDeletion(Result):
    """The effect on the decision of hiding the places shown."""

    computed: ClassVar = ("fall_random",)

    lead: Annotated[float, Doc("if measured; the class's logit minus the mean over classes")]
    fall: Annotated[float, Doc("fall of the lead when the places shown are hidden together"), Json("deletion")]
    falls_random: Annotated[tuple[float, ...], HIDDEN]
    """The same for the same pattern elsewhere on the picture, one a placement."""
    area: Annotated[float, HIDDEN]
    """Hidden part of the picture, 0…1."""

    @property
    def fall_random(self) -> Annotated[float, Doc("the same elsewhere, mean of eight"), Json("deletion_random")]:
        return sum(self.falls_random) / len(self.falls_random)

    @property
    def matters(self) -> bool:
        """Whether the lead falls, and more than on average elsewhere; false if hiding any place raises it."""
        return self.fall > max(0.0, self.fall_random)

    @property
    def matters_most(self) -> bool:
        """Whether the lead falls, and more than at any other place that was tried."""
        return self.fall > max(0.0, *self.falls_random)


@dataclass(frozen=True)
class VoteRemoval(Result):
    """How a decision changes when the shown pictures that speak for the class lose their vote."""

    n: Annotated[Count, Doc("with `voters`; number of pictures removed"), Json("removed")]
    label: Annotated[str, Doc("with `voters`; the class predicted without them"), Json("without")]
    changed: Annotated[Share | None, Doc("held-out predictions that change without their voters"), EXACT] = None
    changed_random: Annotated[Share | None, Doc("the same for as many random voters"), EXACT] = None
    n_held_out: Annotated[Count, Doc("number of held-out pictures measured on"), Json("changed_on")] = 0


@dataclass(frozen=True)
class PrototypePurity(Result):
    """How pure channels are where they are strongest, -1…1; 1 means that no other channel is active there (EPIC)."""

    fit: Annotated[float, Doc("with `epic`; purity on the pictures fitted on"), Json("purity_fit", 17)]
    held_out: Annotated[float, Doc("with `epic`; purity on held-out pictures, −1…1"), Json("purity", 17)]
    before: Annotated[float, Doc("with `epic`; the same without a rotation"), Json("purity_before", 17)]
    random: Annotated[float, Doc("with `epic`; the same with a random rotation"), Json("purity_random", 17)]
    n: Annotated[int, HIDDEN]
    """Held-out pictures."""


@dataclass(frozen=True)
class Because(Result):
    """What a similarity depends on: how much of it is lost when one property of the picture is changed."""

    lost: Annotated[dict[str, float], Doc("for each property, the share of the similarity lost when it is changed")]
    phi: Annotated[dict[str, float], Doc("the same in units of the similarity")]
    change: Annotated[dict[str, float], Doc("size of the change of the picture, root mean square, 0…255")]
    strengths: Annotated[str, Doc("`calibrated` changes, or those of the `paper` (not comparable)")]
    sentence: Annotated[str, Doc("which properties matter; empty if they are not comparable")]


@dataclass(frozen=True)
class Display:
    """How a card shows similar parts; each way of finding them has its own."""

    title: str = "What it looks like, in your pictures"
    unit: str = "prototype"
    similarity: str = "similarity"
    votes: bool = False


@dataclass(frozen=True)
class Likeness(Result):
    """One similar patch of the user's own pictures, or one of the pictures that voted."""

    letter: Annotated[str, Doc("the region it resembles")]
    image: Annotated[str, Doc("file name of the similar picture")]
    label: Annotated[str, Doc("its class")]
    box: Annotated[PixelBox, Doc("the patch on the similar picture, in pixels")]
    query_box: Annotated[PixelBox, Doc("the region on this picture, in pixels")]
    similarity: Annotated[float, Doc("cosine of the two, −1…1; with `epic`, the patch's purity")]
    share: Annotated[float, Doc("share of the region or channel; for a voter, share of the vote")]
    patch: Annotated[np.ndarray | None, HIDDEN] = field(default=None, repr=False)
    """Thumbnail of the patch, or of its whole picture, uint8 ``(h, w, 3)``."""
    channel: Annotated[Count | None, Doc("with `epic`, the channel that both share"), OPTIONAL] = None
    contribution: Annotated[
        float | None,
        Doc("with `epic` and `protopnet`; what it adds to the class's logit minus the mean over classes"),
        OPTIONAL,
    ] = None
    frame: Annotated[FractionBox | None, HIDDEN] = None
    """Where the patch lies on a ``patch`` that shows more."""
    query_frame: Annotated[FractionBox | None, HIDDEN] = None
    """Where the region lies on this picture's view, if it is none of the lettered regions of *where*."""
    because: Annotated[Because | None, Doc("with `--because`; what the similarity depends on"), OPTIONAL] = None
    times: Annotated[Count, Doc("number of patches or prototypes that it represents on the card")] = 1


@dataclass(frozen=True)
class Like(Result):
    """What the strongest regions look like in the user's own pictures; the figures are beside them in its JSON."""

    computed: ClassVar = ("remainder",)

    method: Annotated[str, Doc("registered name")]
    neighbours: Annotated[tuple[Likeness, ...], HIDDEN]
    """Patches, grouped by region letter, nearest first."""
    share_shown: Annotated[float, Doc("sum of the shares shown")]
    held_out_precision: Annotated[Share | None, Doc("share of these with the predicted class, held out"), EXACT]
    chance: Annotated[Share | None, Doc("the same for random patches"), EXACT]
    verdict: Annotated[Verdict, Doc("as above")]
    deletion: Annotated[PatchDeletion | None, INLINE] = None
    of_target: Annotated[NeighbourShare | None, Doc("with `nearest` and `epic`, if measured"), OPTIONAL] = None
    purity: Annotated[PrototypePurity | None, INLINE] = None
    removal: Annotated[VoteRemoval | None, INLINE] = None
    logit_difference: Annotated[
        float | None,
        Doc("largest change of a logit by the rotation of channels, divided by the largest logit"),
        Json(digits=17, optional=True),
    ] = None
    target: Annotated[str | None, HIDDEN] = None
    """Class explained, which such patches should carry; ``None`` for the one decided for."""
    of_class: Annotated[bool, HIDDEN] = True
    """Whether they start from what speaks for that class, not from regions of a sentence or of what speaks against."""
    display: Annotated[Display, HIDDEN] = Display()

    @property
    def remainder(self) -> Annotated[float, Doc("the rest of what speaks for the class: elsewhere, or other channels")]:
        return 1 - self.share_shown
