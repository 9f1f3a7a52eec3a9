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
    """How many neighbours carry the class explained, beside those of held-out pictures."""

    share: Annotated[Share, Doc("part of the neighbours shown that does")]
    limit: Annotated[float, Doc("the part that a wrong class reaches on one held-out picture in twenty at most")]
    near: Annotated[float | None, Doc("similarity of the nearest ones, mean over regions; `null` with `epic`")] = None
    near_limit: Annotated[float | None, Doc("what nineteen held-out pictures in twenty have at least")] = None
    n: Annotated[Count, Doc("held-out pictures with about as many neighbours of the class; 0 with `epic`")] = 0
    right: Annotated[Count, Doc("of these, decided rightly")] = 0

    @property
    def far(self) -> bool:
        return self.near is not None and self.near_limit is not None and self.near < self.near_limit

    @property
    def reaches(self) -> bool:
        return self.share >= self.limit


@dataclass(frozen=True)
class PatchDeletion(Result):
    """What hiding the places shown does to the decision."""

    computed: ClassVar = ("fall_random",)

    lead: Annotated[float, Doc("when measured; the class's logit, less the mean over classes")]
    fall: Annotated[float, Doc("what the lead loses when the places shown are hidden at once"), Json("deletion")]
    falls_random: Annotated[tuple[float, ...], HIDDEN]
    """The same for the same pattern elsewhere on the picture, one a placement."""
    area: Annotated[float, HIDDEN]
    """Hidden part of the picture, 0…1."""

    @property
    def fall_random(self) -> Annotated[float, Doc("the same elsewhere, mean of eight"), Json("deletion_random")]:
        return sum(self.falls_random) / len(self.falls_random)

    @property
    def matters(self) -> bool:
        """The lead falls, and more than on average elsewhere; where hiding anything raises it, nothing matters."""
        return self.fall > max(0.0, self.fall_random)

    @property
    def matters_most(self) -> bool:
        """The lead falls, and more than at any other placement that was tried."""
        return self.fall > max(0.0, *self.falls_random)


@dataclass(frozen=True)
class VoteRemoval(Result):
    """What becomes of a decision when the pictures shown that speak for the class are taken out of the vote."""

    n: Annotated[Count, Doc("with `voters`; pictures taken out"), Json("removed")]
    label: Annotated[str, Doc("with `voters`; the class that is then decided for"), Json("without")]
    changed: Annotated[
        Share | None, Doc("part of held-out pictures whose decision changes when theirs are taken out"), EXACT
    ] = None
    changed_random: Annotated[Share | None, Doc("the same for as many drawn at random"), EXACT] = None
    n_held_out: Annotated[Count, Doc("held-out pictures that was measured on"), Json("changed_on")] = 0


@dataclass(frozen=True)
class PrototypePurity(Result):
    """How alone channels are where they are strongest, -1…1; 1 is nothing but that channel (EPIC)."""

    fit: Annotated[float, Doc("with `epic`; on the pictures they were fitted to"), Json("purity_fit", 17)]
    held_out: Annotated[float, Doc("with `epic`; of the channels on pictures held out, −1…1"), Json("purity", 17)]
    before: Annotated[float, Doc("with `epic`; on those, without a rotation"), Json("purity_before", 17)]
    random: Annotated[float, Doc("with `epic`; on those, with a random rotation"), Json("purity_random", 17)]
    n: Annotated[int, HIDDEN]
    """Held-out pictures."""


@dataclass(frozen=True)
class Because(Result):
    """What a likeness rests on: how much of it is lost when one property of the picture is changed."""

    lost: Annotated[dict[str, float], Doc("property → part of the similarity that is lost when it is changed")]
    phi: Annotated[dict[str, float], Doc("the same in units of the similarity")]
    change: Annotated[dict[str, float], Doc("how much the picture was changed for it, root mean square, 0…255")]
    strengths: Annotated[str, Doc("of the changes: `calibrated`, or `paper`, which may not be compared")]
    sentence: Annotated[str, Doc("which properties matter; empty where they may not be compared")]


@dataclass(frozen=True)
class Display:
    """How likenesses are put on a card; each way of finding them has its own."""

    title: str = "What it looks like, in your pictures"
    unit: str = "prototype"
    similarity: str = "similarity"
    votes: bool = False


@dataclass(frozen=True)
class Likeness(Result):
    """One patch of the user's own pictures, or one of the pictures that voted."""

    letter: Annotated[str, Doc("the region it resembles")]
    image: Annotated[str, Doc("file name of that picture")]
    label: Annotated[str, Doc("its class")]
    box: Annotated[PixelBox, Doc("the patch on that picture, pixels")]
    query_box: Annotated[PixelBox, Doc("the region on this picture, pixels")]
    similarity: Annotated[float, Doc("cosine of the two, −1…1; with `epic`, the patch's purity")]
    share: Annotated[float, Doc("the region's share, or the channel's; of a picture that voted, of the whole vote")]
    patch: Annotated[np.ndarray | None, HIDDEN] = field(default=None, repr=False)
    """Thumbnail of the patch, or of its whole picture, uint8 ``(h, w, 3)``."""
    channel: Annotated[Count | None, Doc("with `epic`, the channel the two have in common"), OPTIONAL] = None
    contribution: Annotated[
        float | None, Doc("with `epic` and `protopnet`; to the class's logit, less the mean over classes"), OPTIONAL
    ] = None
    frame: Annotated[FractionBox | None, HIDDEN] = None
    """Where the patch lies on a ``patch`` that shows more."""
    query_frame: Annotated[FractionBox | None, HIDDEN] = None
    """Where the region lies on this picture's view, if it is none of the lettered regions of *where*."""
    because: Annotated[Because | None, Doc("with `--because`; what the likeness rests on"), OPTIONAL] = None
    times: Annotated[Count, Doc("how many patches or prototypes it stands for on the card")] = 1


@dataclass(frozen=True)
class Like(Result):
    """What the strongest regions look like in the user's own pictures; its JSON is the figures beside them."""

    computed: ClassVar = ("remainder",)

    method: Annotated[str, Doc("registered name")]
    neighbours: Annotated[tuple[Likeness, ...], HIDDEN]
    """Patches, grouped by region letter, nearest first."""
    share_shown: Annotated[float, Doc("sum of the shares shown")]
    held_out_precision: Annotated[
        Share | None, Doc("how often such neighbours carry the predicted class on held-out pictures"), EXACT
    ]
    chance: Annotated[Share | None, Doc("the same for patches drawn at random"), EXACT]
    verdict: Annotated[Verdict, Doc("as above")]
    deletion: Annotated[PatchDeletion | None, INLINE] = None
    of_target: Annotated[NeighbourShare | None, Doc("with `nearest` and `epic`, where it was measured"), OPTIONAL] = (
        None
    )
    purity: Annotated[PrototypePurity | None, INLINE] = None
    removal: Annotated[VoteRemoval | None, INLINE] = None
    logit_difference: Annotated[
        float | None,
        Doc("largest change of a logit by the rotation of the channels, as a part of the largest logit"),
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
