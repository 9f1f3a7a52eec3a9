"""Similar parts of the user's pictures, with their reliability."""

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
    """The share of neighbours that have the explained class, with the same share on held-out pictures."""

    share: Annotated[Share, Doc("share of the displayed neighbours that have the class")]
    limit: Annotated[float, Doc("share that a wrong class reaches on at most one held-out picture in twenty")]
    near: Annotated[float | None, Doc("mean similarity of the nearest neighbour; `null` with `epic`")] = None
    near_limit: Annotated[float | None, Doc("similarity that 19 of 20 held-out pictures exceed")] = None
    n: Annotated[Count, Doc("number of held-out pictures with a similar share of the class; 0 with `epic`")] = 0
    right: Annotated[Count, Doc("number of these that were predicted correctly")] = 0

    @property
    def far(self) -> bool:
        return self.near is not None and self.near_limit is not None and self.near < self.near_limit

    @property
    def reaches(self) -> bool:
        return self.share >= self.limit


@dataclass(frozen=True)
class PatchDeletion(Result):
    """The effect of hiding the displayed regions on the decision."""

    computed: ClassVar = ("fall_random",)

    lead: Annotated[float, Doc("if measured; the class's logit minus the mean over classes")]
    fall: Annotated[float, Doc("decrease of `lead` when all displayed regions are hidden"), Json("deletion")]
    falls_random: Annotated[tuple[float, ...], HIDDEN]
    """Decrease of ``lead`` for each random position of the hidden regions."""
    area: Annotated[float, HIDDEN]
    """Hidden share of the picture, 0 to 1."""

    @property
    def fall_random(
        self,
    ) -> Annotated[
        float,
        Doc("mean decrease of `lead` when the same shape is hidden at eight other positions"),
        Json("deletion_random"),
    ]:
        return sum(self.falls_random) / len(self.falls_random)

    @property
    def matters(self) -> bool:
        """Whether hiding the regions lowers the score more than the average random position."""
        return self.fall > max(0.0, self.fall_random)

    @property
    def matters_most(self) -> bool:
        """Whether hiding the regions lowers the score more than every random position."""
        return self.fall > max(0.0, *self.falls_random)


@dataclass(frozen=True)
class VoteRemoval(Result):
    """The change of a prediction when the displayed pictures do not vote."""

    n: Annotated[Count, Doc("with `voters`; number of removed pictures"), Json("removed")]
    label: Annotated[str, Doc("with `voters`; prediction without the removed pictures"), Json("without")]
    changed: Annotated[Share | None, Doc("share of held-out predictions that change without their voters"), EXACT] = (
        None
    )
    changed_random: Annotated[Share | None, Doc("the same share without as many random voters"), EXACT] = None
    n_held_out: Annotated[Count, Doc("number of held-out pictures"), Json("changed_on")] = 0


@dataclass(frozen=True)
class PrototypePurity(Result):
    """The purity of EPIC's channels, -1 to 1."""

    fit: Annotated[float, Doc("with `epic`; purity on the training pictures"), Json("purity_fit", 17)]
    held_out: Annotated[float, Doc("with `epic`; purity on held-out pictures, −1…1"), Json("purity", 17)]
    before: Annotated[float, Doc("with `epic`; purity without a rotation"), Json("purity_before", 17)]
    random: Annotated[float, Doc("with `epic`; purity with a random rotation"), Json("purity_random", 17)]
    n: Annotated[int, HIDDEN]
    """Number of held-out pictures."""


@dataclass(frozen=True)
class Because(Result):
    """The loss of similarity when a property of the picture is changed."""

    lost: Annotated[
        dict[str, float],
        Doc("for each property, the share of the similarity that is lost when the property is changed"),
    ]
    phi: Annotated[dict[str, float], Doc("the lost similarity, absolute")]
    change: Annotated[dict[str, float], Doc("root mean square difference of the changed picture, 0…255")]
    strengths: Annotated[str, Doc("`calibrated` changes, or the `paper`'s changes, which are not comparable")]
    sentence: Annotated[str, Doc("properties that matter; empty if they are not comparable")]


@dataclass(frozen=True)
class Display:
    """How a card displays similar parts."""

    title: str = "What it looks like, in your pictures"
    unit: str = "prototype"
    similarity: str = "similarity"
    votes: bool = False


@dataclass(frozen=True)
class Likeness(Result):
    """A similar patch of the user's pictures, or a picture that voted."""

    letter: Annotated[str, Doc("letter of the similar region")]
    image: Annotated[str, Doc("file name of the similar picture")]
    label: Annotated[str, Doc("class of the similar picture")]
    box: Annotated[PixelBox, Doc("the patch on the similar picture, in pixels")]
    query_box: Annotated[PixelBox, Doc("the region on this picture, in pixels")]
    similarity: Annotated[float, Doc("cosine similarity, −1…1; with `epic`, the patch's purity")]
    share: Annotated[float, Doc("share of the region or channel in the evidence; for a voter, its share of the vote")]
    patch: Annotated[np.ndarray | None, HIDDEN] = field(default=None, repr=False)
    """Thumbnail of the patch or of its whole picture, uint8 ``(h, w, 3)``."""
    channel: Annotated[Count | None, Doc("with `epic`, index of the channel"), OPTIONAL] = None
    contribution: Annotated[
        float | None,
        Doc("with `epic` and `protopnet`; contribution to the class's logit minus the mean over classes"),
        OPTIONAL,
    ] = None
    frame: Annotated[FractionBox | None, HIDDEN] = None
    """Position of the patch in the thumbnail, if the thumbnail shows more than the patch."""
    query_frame: Annotated[FractionBox | None, HIDDEN] = None
    """Position of the region in this picture's view, if it is not a lettered region."""
    because: Annotated[
        Because | None, Doc("with `--because`; influence of picture properties on the similarity"), OPTIONAL
    ] = None
    times: Annotated[Count, Doc("number of patches or prototypes that this one represents")] = 1


@dataclass(frozen=True)
class Like(Result):
    """Similar parts of the user's pictures for the strongest regions."""

    computed: ClassVar = ("remainder",)

    method: Annotated[str, Doc("registered name")]
    neighbours: Annotated[tuple[Likeness, ...], HIDDEN]
    """Patches by region letter, most similar first."""
    share_shown: Annotated[float, Doc("sum of the displayed shares")]
    held_out_precision: Annotated[
        Share | None, Doc("share of the neighbours that have the predicted class, on held-out pictures"), EXACT
    ]
    chance: Annotated[Share | None, Doc("the same share of random patches"), EXACT]
    verdict: Annotated[Verdict, Doc("as above")]
    deletion: Annotated[PatchDeletion | None, INLINE] = None
    of_target: Annotated[NeighbourShare | None, Doc("with `nearest` and `epic`, if measured"), OPTIONAL] = None
    purity: Annotated[PrototypePurity | None, INLINE] = None
    removal: Annotated[VoteRemoval | None, INLINE] = None
    logit_difference: Annotated[
        float | None,
        Doc("largest change of a logit by the rotation, divided by the largest logit"),
        Json(digits=17, optional=True),
    ] = None
    target: Annotated[str | None, HIDDEN] = None
    """The explained class; ``None`` for the decision."""
    of_class: Annotated[bool, HIDDEN] = True
    """Whether the regions support the explained class."""
    display: Annotated[Display, HIDDEN] = Display()

    @property
    def remainder(self) -> Annotated[float, Doc("share of the evidence in other regions or channels")]:
        return 1 - self.share_shown
