"""Like what, as a card shows it: patches, channels or whole pictures of the user's, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import FractionBox, PixelBox
from .measures import Because, NeighbourShare, PatchDeletion, PrototypePurity, VoteRemoval

if TYPE_CHECKING:
    from .verdict import Verdict


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
class Likeness:
    """One patch of the user's own pictures, or one of the pictures that voted.

    Attributes:
        letter: the region of this picture it resembles.
        image: file name of the training picture.
        label: its class.
        box: the patch on that (upright) picture, in pixels.
        query_box: the region on this picture, in pixels.
        similarity: cosine in -1…1.
        share: the region's, or the channel's, part of what speaks for the class, 0…1; the picture's own part of the
            whole vote, where pictures voted.
        patch: thumbnail of the patch, or of its whole picture, uint8 ``(h, w, 3)``.
        channel: what the two have in common, where it is one channel of the network.
        contribution: of that channel to the class's logit, less the mean over classes.
        frame: where the patch lies on a ``patch`` that shows more, as fractions.
        query_frame: where the region lies on this picture's view, if it is none of the lettered regions of *where*.
        because: what the likeness rests on, if it was asked for.
        times: how many patches it stands for on the card; 0 for one that another stands for.
    """

    letter: str
    image: str
    label: str
    box: PixelBox
    query_box: PixelBox
    similarity: float
    share: float
    patch: np.ndarray | None = field(default=None, repr=False)
    channel: int | None = None
    contribution: float | None = None
    frame: FractionBox | None = None
    query_frame: FractionBox | None = None
    because: Because | None = None
    times: int = 1

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "letter": self.letter,
            "image": self.image,
            "label": self.label,
            "box": list(self.box),
            "query_box": list(self.query_box),
            "similarity": round(self.similarity, 4),
            "share": round(self.share, 4),
        }
        if self.channel is not None and self.contribution is not None:
            data |= {"channel": self.channel, "contribution": round(self.contribution, 4)}
        if self.because is not None:
            data["because"] = self.because.to_json()
        return {**data, "times": self.times}


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
        data: dict[str, Any] = {
            "method": self.method,
            "share_shown": round(self.share_shown, 4),
            "remainder": round(1 - self.share_shown, 4),
            "held_out_precision": self.held_out_precision,
            "chance": self.chance,
            "verdict": self.verdict.level,
        }
        if self.of_target is not None:
            data["of_target"] = self.of_target.to_json()
        if self.deletion is not None:
            data |= {
                "lead": round(self.deletion.lead, 4),
                "deletion": round(self.deletion.fall, 4),
                "deletion_random": round(self.deletion.fall_random, 4),
            }
        if self.purity is not None:
            data |= {
                "purity": self.purity.held_out,
                "purity_fit": self.purity.fit,
                "purity_before": self.purity.before,
                "purity_random": self.purity.random,
            }
        if self.logit_difference is not None:
            data["logit_difference"] = self.logit_difference
        return data if self.removal is None else data | self.removal.to_json()
