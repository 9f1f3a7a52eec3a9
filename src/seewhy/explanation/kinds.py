"""The kinds of evidence as a card shows them: where, in words, what a perceiver saw, what a generator made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from ..results import Count, Doc, Share
from ..types import FractionBox, PixelBox
from .result import HIDDEN, OPTIONAL, Json, Result
from .verdict import Verdict


@dataclass(frozen=True)
class Region(Result):
    """A lettered place on the picture, with the same letter in every kind of evidence."""

    letter: Annotated[str, Doc('`"A"`, `"B"`, …')]
    box: Annotated[FractionBox, HIDDEN]
    """On the view, as fractions."""
    query_box: Annotated[PixelBox, Doc("box on this picture, in pixels"), Json("box")]
    share: Annotated[Share, Doc("share of the evidence for the class ([definition](concepts.md#share))")]


@dataclass(frozen=True)
class Neuron(Result):
    """A channel of the last feature map on which the decision depends."""

    channel: Annotated[Count, Doc("number of the channel")]
    share: Annotated[float, Doc("its part of everything that is added to the class's logit")]
    name: Annotated[str | None, Doc("the word that depends on it most, if more than by chance")]
    strength: Annotated[
        float, Doc("how much the nearest word depends on it, in standard deviations over the channels"), Json(digits=2)
    ]
    box: Annotated[PixelBox, Doc("where it is strongest, in pixels")]

    def __str__(self) -> str:
        name = self.name or "no name beyond chance"
        return f"neuron {self.channel} {self.share:+.1%} {name}, strongest at {self.box}"


@dataclass(frozen=True)
class Outside(Result):
    """How much of a map's heat lies outside the object, and what chance would put there."""

    masks: Annotated[str, Doc("source of the masks")]
    share: Annotated[Share | None, Doc("share of the positive heat outside the object")] = None
    area: Annotated[Share | None, Doc("share of the picture outside the object: what chance gives")] = None
    why: Annotated[str | None, Doc("why it was not measured")] = None

    @property
    def sentence(self) -> str:
        if self.share is None or self.area is None:
            return f"How much of the heat lies outside the object was not measured: {self.why}."
        return f"{self.share:.0%} of the heat lies outside the object; by chance it would be {self.area:.0%}.".replace(
            "%", " %"
        )


Curve = Annotated[tuple[float, ...], HIDDEN]
Area = Annotated[Share | None, Json(digits=17)]
Cosine = Annotated[float | None, Json(digits=17)]


@dataclass(frozen=True)
class Where(Result):
    """A heat map and its faithfulness on this picture; ``steps`` are the changed fractions on the curves."""

    computed: ClassVar = ("is_zero", "coarse")

    method: Annotated[str, Doc("registered name")]
    target: Annotated[str, Doc("the class the map speaks for; `anything but …` for a counterfactual map")]
    contrast: Annotated[str | None, Doc("the class it speaks against")]
    heat: Annotated[np.ndarray, HIDDEN] = field(repr=False)
    """Signed, at the network's own resolution, ``(h, w)``; positive speaks for the target."""
    regions: Annotated[tuple[Region, ...], Doc("the lettered cells")]
    verdict: Annotated[Verdict, Doc("how far to believe it")]
    steps: Curve = field(default=(), repr=False)
    deletion_curve: Curve = field(default=(), repr=False)
    insertion_curve: Curve = field(default=(), repr=False)
    deletion_random_curve: Curve = field(default=(), repr=False)
    insertion_random_curve: Curve = field(default=(), repr=False)
    deletion: Annotated[Area, Doc("area under the probability, hottest pixels removed first; low is good")] = None
    insertion: Annotated[Area, Doc("the same while the hottest pixels are restored first; high is good")] = None
    deletion_random: Annotated[Area, Doc("the same for the map with its cells shuffled once")] = None
    insertion_random: Annotated[Area, Doc("the same for the map with its cells shuffled once")] = None
    match: Annotated[Cosine, Doc("how well the heat predicts the effect of hiding halves of the picture, −1…1")] = None
    match_centre: Annotated[Cosine, Doc("the same for a spot in the centre of the picture")] = None
    rival: Annotated[str | None, Doc("the most probable class beside those explained")] = None
    match_lead: Annotated[Cosine, Doc("the same for the difference from the rival's map and logit")] = None
    neurons: Annotated[tuple[Neuron, ...], Doc("with `--set neurons`"), OPTIONAL] = ()
    outside: Annotated[Outside | None, Doc("heat outside the object"), OPTIONAL] = None

    @property
    def is_zero(self) -> Annotated[bool, Doc("true when nothing speaks for the class"), Json("all_zero")]:
        """Whether nothing speaks for the class; the card then says so instead of drawing a map."""
        return not bool((self.heat > 0).any())

    @property
    def coarse(self) -> Annotated[list[list[float]], Doc("the signed map, rows from top to bottom"), Json("heat", 5)]:
        """At most 32 rows and columns, as means of nearly equal blocks, because a pixel map would make the JSON too
        large.
        """
        rows, columns = (min(side, 32) for side in self.heat.shape)
        blocks = [np.array_split(row, columns, 1) for row in np.array_split(self.heat, rows, 0)]
        return [[float(block.mean()) for block in row] for row in blocks]

    @property
    def remarks(self) -> tuple[str, ...]:
        outside = () if self.outside is None else (self.outside.sentence,)
        return (*outside, *map(str, self.neurons))


@dataclass(frozen=True)
class WordOrigin(Result):
    """The class for which a description was written, if that is not simply its own."""

    attribute: Annotated[str | None, Doc("what it is about, if it distinguishes two classes"), OPTIONAL] = None
    against: Annotated[str | None, Doc("the class it should distinguish from"), OPTIONAL] = None
    written_for: Annotated[str | None, Doc("the class it was written for, if another class uses it"), OPTIONAL] = None

    def __str__(self) -> str:
        if self.written_for is not None:
            return f"written for {self.written_for}"
        against = None if self.against is None else f"against {self.against}"
        return ", ".join(part for part in (self.attribute, against) if part)


@dataclass(frozen=True)
class WordControl(Result):
    """How the descriptions of a class compare with lists that were written about something else."""

    as_good: Annotated[Share, Doc("share of wrong assignments that fit held-out pictures as well")]
    class_beats: Annotated[Share | None, Doc("share of other lists that fit its held-out pictures less well")]
    picture_beats: Annotated[Share, Doc("share of other lists that fit this picture less well")]


@dataclass(frozen=True)
class Word(Result):
    text: Annotated[str, Doc("as written")]
    label: Annotated[str, Doc("its class")]
    score: Annotated[float, Doc("cosine of picture and text, −1…1")]
    score_other: Annotated[float, Doc("mean cosine of the picture with the other class's texts, −1…1")]
    separates: Annotated[
        Share | None,
        Doc("area under the ROC curve of this text between the two classes on held-out pictures"),
        OPTIONAL,
    ] = None
    origin: Annotated[WordOrigin | None, Json(inline=True)] = None
    adds: Annotated[float | None, Doc("what it adds to the difference of logits, if a sum decides"), OPTIONAL] = None

    def __str__(self) -> str:
        beside = f"other class {self.score_other:+.2f}" if self.adds is None else f"adds {self.adds:.2f}"
        return f"{self.label}: {self.text} ({self.score:+.2f}, {beside})"


@dataclass(frozen=True)
class Words(Result):
    """Descriptions of the predicted class and of the runner-up; the measures are beside them in its JSON."""

    method: Annotated[str, Doc("registered name")]
    words: Annotated[tuple[Word, ...], Json(hidden=True)]
    decision: Annotated[str, Doc("the class that the descriptions alone choose")]
    accuracy: Annotated[Share | None, Doc("accuracy of the descriptions alone"), Json(digits=17)]
    accuracy_on: Annotated[str, Doc("the pictures of that accuracy")]
    would_change: Annotated[str, Json(hidden=True)]
    verdict: Annotated[Verdict, Doc("as above")]
    control: Annotated[WordControl | None, Doc("descriptions beside wrong ones; `null` without held-out pictures")] = (
        None
    )

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(map(str, self.words[:3]))


@dataclass(frozen=True)
class Memorised(Result):
    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its class")]
    distance: Annotated[float | None, Doc("root mean square over pixels; black to white is 1"), Json(digits=5)]
    picture: Annotated[np.ndarray, HIDDEN]
    """As it was memorised, grey, uint8 ``(h, w)``."""


@dataclass(frozen=True)
class Perceived(Result):
    computed: ClassVar = ("picture", "n_loops")

    path: Annotated[tuple[np.ndarray, ...], HIDDEN]
    """What was seen on the way, the observed picture first and the seen one last, grey, uint8 ``(h, w)``."""
    loops: Annotated[tuple[int, ...], HIDDEN]
    """After how many loops each of ``path`` was seen."""
    moved: Annotated[float, Doc("change by the last loop, where black to white is 1"), Json(digits=5)]
    spread: Annotated[float, Doc("distance of the copies from their mean, in the same unit"), Json(digits=5)]
    n_copies: Annotated[Count, Doc("disturbed copies that were redrawn and averaged")]
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
    value: Annotated[Share, Doc("the guiding classifier's own probability, which proves nothing"), Json(digits=5)]
    seen: Annotated[str | None, Doc("the class that the judge predicts; `null` without a judge")] = None
    agrees: Annotated[bool | None, Doc("whether that is the class; `null` if the judge has no such class")] = None


@dataclass(frozen=True, eq=False)
class Typical(Result):
    """Generated pictures of a class. They show the class, not the picture that is explained."""

    label: Annotated[str, Doc("the class")]
    climbed: Annotated[str, Doc("the network that guided the pictures")]
    pictures: Annotated[tuple[MadePicture, ...], Doc("the pictures, all different")]
    judge: Annotated[str | None, Doc("the second network; `null` without one")]
    drawn: Annotated[str, Doc("how well the generator draws"), Json("generator")]
    verdict: Annotated[Verdict, Doc("as above")]
