"""Like what, as a card shows it: patches, channels or whole pictures of the user's, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from ..results import Count, Doc, Share
from ..types import FractionBox, PixelBox
from .result import HIDDEN, OPTIONAL, Result
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
        """Whether even the nearest patches are farther than neighbours are."""
        return self.near is not None and self.near_limit is not None and self.near < self.near_limit

    @property
    def reaches(self) -> bool:
        """Whether so many are more than a wrong class has."""
        return self.share >= self.limit


@dataclass(frozen=True)
class PatchDeletion:
    """What hiding the places shown does to the decision.

    Attributes:
        lead: the class's logit, less the mean over classes.
        fall: of the lead, when all places shown are hidden at once.
        falls_random: the same for the same pattern elsewhere on the picture, one a placement.
        area: hidden part of the picture, 0…1.
    """

    lead: float
    fall: float
    falls_random: tuple[float, ...]
    area: float

    @property
    def fall_random(self) -> float:
        """Mean over placements."""
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
class VoteRemoval:
    """What becomes of a decision when pictures are taken out of the vote that made it.

    Attributes:
        n: pictures taken out: those shown that speak for the class explained.
        label: the class that is then decided for.
        changed: part of held-out pictures whose decision changes when theirs are taken out, or ``None``.
        changed_random: the same for as many drawn at random among all that voted.
        n_held_out: held-out pictures.
    """

    n: int
    label: str
    changed: float | None = None
    changed_random: float | None = None
    n_held_out: int = 0


@dataclass(frozen=True)
class PrototypePurity:
    """How alone channels are where they are strongest, -1…1; 1 is nothing but that channel (EPIC).

    Attributes:
        fit: on the pictures it was fitted to.
        held_out: on pictures that neither fitted nor chose the rotation.
        before: there, without rotating.
        random: there, with a random rotation.
        n: held-out pictures.
    """

    fit: float
    held_out: float
    before: float
    random: float
    n: int


@dataclass(frozen=True)
class Because(Result):
    """What a likeness rests on: how much of it is lost when one property of the picture is changed."""

    lost: Annotated[dict[str, float], Doc("property → part of the similarity that is lost when it is changed")]
    phi: Annotated[dict[str, float], Doc("the same in units of the similarity")]
    change: Annotated[dict[str, float], Doc("how much the picture was changed for it, root mean square, 0…255")]
    strengths: Annotated[str, Doc("of the changes: `calibrated`, or `paper`, which may not be compared")]
    sentence: Annotated[str, Doc("which properties matter; empty where they may not be compared")]
    overall: Annotated[
        dict[str, float] | None, Doc("as `lost`, over many pictures, after `fit-prototypes --because`"), OPTIONAL
    ] = None


@dataclass(frozen=True)
class Display:
    """How likenesses are put on a card; each way of finding them has its own.

    Attributes:
        title: of the section; what stands before its first comma names it in the summary.
        unit: what the number of a group is of.
        similarity: term of the glossary that says what the figure of a likeness is.
        votes: whether the pictures shown made the decision, each with its part of the vote.
    """

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
class Like:
    """What the strongest regions look like in the user's own pictures.

    Attributes:
        neighbours: patches, grouped by region letter, nearest first.
        share_shown: sum of the shown regions' shares, 0…1; the rest is the remainder.
        held_out_precision: how often such neighbours carry the predicted class on held-out pictures.
        chance: the same figure for patches drawn at random.
        deletion: what hiding the places shown does, where it was measured.
        of_target: how many of them carry the class explained, beside held-out pictures, where that decides.
        purity: of the channels, for methods that show channels.
        removal: what taking the pictures shown out of the vote does, where pictures voted.
        logit_difference: largest change of a logit by the rotation of the channels, as a part of the largest logit, for
            methods that rotate.
        target: class explained, which such patches should carry; ``None`` for the one decided for.
        of_class: whether they start from what speaks for that class; not so for regions of a sentence, or of what
            speaks against the class.
        display: how a card shows them.
    """

    method: str
    neighbours: tuple[Likeness, ...]
    share_shown: float
    held_out_precision: float | None
    chance: float | None
    verdict: Verdict
    deletion: PatchDeletion | None = None
    of_target: NeighbourShare | None = None
    purity: PrototypePurity | None = None
    removal: VoteRemoval | None = None
    logit_difference: float | None = None
    target: str | None = None
    of_class: bool = True
    display: Display = Display()

    def measured(self) -> dict[str, Any]:
        """The figures, for JSON."""
        shown = round(self.share_shown, 4)
        data: dict[str, Any] = {
            "method": self.method,
            "share_shown": shown,
            "remainder": round(1 - self.share_shown, 4),
            "held_out_precision": self.held_out_precision,
            "chance": self.chance,
            "verdict": self.verdict.level,
        }
        if self.of_target is not None:
            data["of_target"] = self.of_target.to_json()
        if (hidden := self.deletion) is not None:
            falls = {"lead": hidden.lead, "deletion": hidden.fall, "deletion_random": hidden.fall_random}
            data |= {name: round(value, 4) for name, value in falls.items()}
        if (purity := self.purity) is not None:
            data |= {"purity": purity.held_out, "purity_fit": purity.fit}
            data |= {"purity_before": purity.before, "purity_random": purity.random}
        if self.logit_difference is not None:
            data["logit_difference"] = self.logit_difference
        if (removal := self.removal) is not None:
            data |= {"removed": removal.n, "without": removal.label, "changed_on": removal.n_held_out}
            data |= {"changed": removal.changed, "changed_random": removal.changed_random}
        return data
