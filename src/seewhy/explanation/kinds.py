"""Results of single kinds of evidence."""

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
    """A lettered region of the picture."""

    letter: Annotated[str, Doc('`"A"`, `"B"`, …')]
    box: Annotated[FractionBox, HIDDEN]
    """Box in the network's input, as fractions."""
    query_box: Annotated[PixelBox, Doc("box on this picture, in pixels"), Json("box")]
    share: Annotated[Share, Doc("share of the evidence for the class ([definition](concepts.md#share))")]


@dataclass(frozen=True)
class Neuron(Result):
    """A channel of the last feature map that contributes to the decision."""

    channel: Annotated[Count, Doc("index of the channel")]
    share: Annotated[float, Doc("share of the positive contributions to the class's logit")]
    name: Annotated[str | None, Doc("the word that depends most on the channel, if significant")]
    strength: Annotated[
        float, Doc("dependence of the nearest word, in standard deviations over the channels"), Json(digits=2)
    ]
    box: Annotated[PixelBox, Doc("box where the channel is strongest, in pixels")]

    def __str__(self) -> str:
        name = self.name or "no name beyond chance"
        return f"neuron {self.channel} {100 * self.share:+.1f} % {name}, strongest at {self.box}"


@dataclass(frozen=True)
class Outside(Result):
    """The share of a map's positive heat outside the object."""

    masks: Annotated[str, Doc("source of the masks")]
    share: Annotated[Share | None, Doc("share of the positive heat outside the object")] = None
    area: Annotated[Share | None, Doc("share of the picture outside the object, which a random map would give")] = None
    why: Annotated[str | None, Doc("why it was not measured")] = None

    @property
    def sentence(self) -> str:
        if self.share is None or self.area is None:
            return f"How much of the heat lies outside the object was not measured: {self.why}."
        by_chance = f"by chance it would be {100 * self.area:.0f} %."
        return f"{100 * self.share:.0f} % of the heat lies outside the object; {by_chance}"


Curve = Annotated[tuple[float, ...], HIDDEN]
Area = Annotated[Share | None, Json(digits=17)]
Cosine = Annotated[float | None, Json(digits=17)]


@dataclass(frozen=True)
class Where(Result):
    """A heat map with its faithfulness on the picture."""

    computed: ClassVar = ("is_zero", "coarse")

    method: Annotated[str, Doc("registered name")]
    target: Annotated[str, Doc("the class that the map supports; `anything but …` for a counterfactual map")]
    contrast: Annotated[str | None, Doc("the contrast class")]
    heat: Annotated[np.ndarray, HIDDEN] = field(repr=False)
    """Signed map ``(h, w)`` at the network's resolution; positive values support the target."""
    regions: Annotated[tuple[Region, ...], Doc("the lettered regions")]
    verdict: Annotated[Verdict, Doc("the verdict on the map")]
    steps: Curve = field(default=(), repr=False)
    deletion_curve: Curve = field(default=(), repr=False)
    insertion_curve: Curve = field(default=(), repr=False)
    deletion_random_curve: Curve = field(default=(), repr=False)
    insertion_random_curve: Curve = field(default=(), repr=False)
    deletion: Annotated[
        Area, Doc("area under the probability curve when the hottest pixels are removed first; lower is better")
    ] = None
    insertion: Annotated[
        Area, Doc("area under the probability curve when the hottest pixels are restored first; higher is better")
    ] = None
    deletion_random: Annotated[Area, Doc("`deletion` of a randomly shuffled map")] = None
    insertion_random: Annotated[Area, Doc("`insertion` of a randomly shuffled map")] = None
    match: Annotated[
        Cosine, Doc("agreement of the heat with the effect of hiding random halves of the picture, −1…1")
    ] = None
    match_centre: Annotated[Cosine, Doc("the same agreement of a spot in the centre of the picture")] = None
    rival: Annotated[str | None, Doc("the most probable class besides the explained classes")] = None
    match_lead: Annotated[Cosine, Doc("the same agreement for the difference from the rival's map and logit")] = None
    neurons: Annotated[tuple[Neuron, ...], Doc("with `--set neurons`"), OPTIONAL] = ()
    outside: Annotated[Outside | None, Doc("heat outside the object"), OPTIONAL] = None

    @property
    def is_zero(
        self,
    ) -> Annotated[
        bool, Doc("whether the map is zero everywhere, because no evidence supports the class"), Json("all_zero")
    ]:
        return not bool((self.heat > 0).any())

    @property
    def coarse(self) -> Annotated[list[list[float]], Doc("the signed map, rows from top to bottom"), Json("heat", 5)]:
        """The map averaged to at most 32 rows and columns."""
        rows, columns = (min(side, 32) for side in self.heat.shape)
        blocks = [np.array_split(row, columns, 1) for row in np.array_split(self.heat, rows, 0)]
        return [[float(block.mean()) for block in row] for row in blocks]

    @property
    def remarks(self) -> tuple[str, ...]:
        outside = () if self.outside is None else (self.outside.sentence,)
        return (*outside, *map(str, self.neurons))


@dataclass(frozen=True)
class WordOrigin(Result):
    """The class for which a description was written."""

    attribute: Annotated[str | None, Doc("the attribute, if the description distinguishes two classes"), OPTIONAL] = (
        None
    )
    against: Annotated[str | None, Doc("the class from which it distinguishes"), OPTIONAL] = None
    written_for: Annotated[
        str | None, Doc("the class for which it was written, if another class uses it"), OPTIONAL
    ] = None

    def __str__(self) -> str:
        if self.written_for is not None:
            return f"written for {self.written_for}"
        against = None if self.against is None else f"against {self.against}"
        return ", ".join(part for part in (self.attribute, against) if part)


@dataclass(frozen=True)
class WordControl(Result):
    """A comparison of a class's descriptions with descriptions of other classes."""

    as_good: Annotated[
        Share, Doc("share of wrong assignments of descriptions that fit held-out pictures equally well or better")
    ]
    class_beats: Annotated[Share | None, Doc("share of other lists that fit the class's held-out pictures less well")]
    picture_beats: Annotated[Share, Doc("share of other lists that fit this picture less well")]


@dataclass(frozen=True)
class Word(Result):
    text: Annotated[str, Doc("text of the description")]
    label: Annotated[str, Doc("class of the description")]
    score: Annotated[float, Doc("cosine of picture and text, −1…1")]
    score_other: Annotated[float, Doc("mean cosine of the picture with the other class's texts, −1…1")]
    separates: Annotated[
        Share | None,
        Doc("area under the ROC curve of the description between the two classes, on held-out pictures"),
        OPTIONAL,
    ] = None
    origin: Annotated[WordOrigin | None, Json(inline=True)] = None
    adds: Annotated[float | None, Doc("contribution to the difference of logits, for additive models"), OPTIONAL] = None

    def __str__(self) -> str:
        beside = f"other class {self.score_other:+.2f}" if self.adds is None else f"adds {self.adds:.2f}"
        return f"{self.label}: {self.text} ({self.score:+.2f}, {beside})"


@dataclass(frozen=True)
class Words(Result):
    """The descriptions of the predicted class and of the runner-up, with their similarities."""

    method: Annotated[str, Doc("registered name")]
    words: Annotated[tuple[Word, ...], Json(hidden=True)]
    decision: Annotated[str, Doc("the class that the descriptions choose")]
    accuracy: Annotated[Share | None, Doc("accuracy of the descriptions"), Json(digits=17)]
    accuracy_on: Annotated[str, Doc("pictures on which the accuracy was measured")]
    would_change: Annotated[str, Json(hidden=True)]
    verdict: Annotated[Verdict, Doc("the verdict on the descriptions")]
    control: Annotated[
        WordControl | None, Doc("comparison with wrong descriptions; `null` without held-out pictures")
    ] = None

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(map(str, self.words[:3]))


@dataclass(frozen=True)
class Memorised(Result):
    image: Annotated[str, Doc("file name of the picture")]
    label: Annotated[str, Doc("class of the picture")]
    distance: Annotated[
        float | None, Doc("root mean square difference of the pixels, with black 0 and white 1"), Json(digits=5)
    ]
    picture: Annotated[np.ndarray, HIDDEN]
    """Memorised picture, grey, uint8 ``(h, w)``."""


@dataclass(frozen=True)
class Perceived(Result):
    computed: ClassVar = ("picture", "n_loops")

    path: Annotated[tuple[np.ndarray, ...], HIDDEN]
    """Intermediate pictures from the observed to the reconstructed one, grey, uint8 ``(h, w)``."""
    loops: Annotated[tuple[int, ...], HIDDEN]
    """Number of iterations before each picture of ``path``."""
    moved: Annotated[float, Doc("change by the last loop, with black 0 and white 1"), Json(digits=5)]
    spread: Annotated[float, Doc("distance of the copies from their mean, with black 0 and white 1"), Json(digits=5)]
    n_copies: Annotated[Count, Doc("number of noisy copies that were reconstructed and averaged")]
    nearest: Annotated[Memorised, Doc("the most similar memorised picture")]
    verdict: Annotated[Verdict, Doc("the verdict on the reconstruction")]

    @property
    def picture(self) -> Annotated[np.ndarray, Doc("the reconstructed picture, rows from top to bottom, grey, 0…255")]:
        return self.path[-1]

    @property
    def n_loops(self) -> Annotated[int, Doc("number of reconstructions"), Json("loops")]:
        return self.loops[-1]


@dataclass(frozen=True, eq=False)
class MadePicture(Result):
    pixels: Annotated[np.ndarray, HIDDEN]
    value: Annotated[
        Share, Doc("probability by the classifier that guided the generation, which is no evidence"), Json(digits=5)
    ]
    seen: Annotated[str | None, Doc("the class predicted by the judge; `null` without a judge")] = None
    agrees: Annotated[bool | None, Doc("whether the judge agrees; `null` if the judge lacks the class")] = None


@dataclass(frozen=True, eq=False)
class Typical(Result):
    """Generated typical pictures of a class."""

    label: Annotated[str, Doc("the class")]
    climbed: Annotated[str, Doc("the network that guided the generation")]
    pictures: Annotated[tuple[MadePicture, ...], Doc("the generated pictures")]
    judge: Annotated[str | None, Doc("the judge; `null` without one")]
    drawn: Annotated[str, Doc("the error of the generator, in words"), Json("generator")]
    verdict: Annotated[Verdict, Doc("the verdict on the generated pictures")]
