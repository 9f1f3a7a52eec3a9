"""Where it looked, as a card shows it: the heat, its regions, the neurons behind it, and how faithful it is."""

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
    """A lettered part of the picture, the same letter in every evidence."""

    letter: Annotated[str, Doc('`"A"`, `"B"`, …')]
    box: Annotated[FractionBox, HIDDEN]
    """On the view, as fractions."""
    query_box: Annotated[PixelBox, Doc("on this picture, pixels"), Json("box")]
    share: Annotated[Share, Doc("part of what speaks for the class ([definition](concepts.md#share))")]


@dataclass(frozen=True)
class Neuron(Result):
    """One channel of the last feature map that the decision rests on."""

    channel: Annotated[Count, Doc("its number")]
    share: Annotated[float, Doc("what it adds to the class's logit as a part of all that is added")]
    name: Annotated[str | None, Doc("the word that leans on it most, where it does so by more than chance")]
    strength: Annotated[
        float, Doc("how much the nearest word leans on it, in standard deviations over the channels"), Json(digits=2)
    ]
    box: Annotated[PixelBox, Doc("where it is strongest, pixels")]

    def __str__(self) -> str:
        name = self.name or "no name beyond chance"
        return f"neuron {self.channel} {self.share:+.1%} {name}, strongest at {self.box}"


@dataclass(frozen=True)
class Outside(Result):
    """How much of a map lies outside the object, beside what chance would put there."""

    masks: Annotated[str, Doc("who drew them")]
    share: Annotated[Share | None, Doc("part of the positive heat outside the object")] = None
    area: Annotated[Share | None, Doc("part of the view outside it, which is the share by chance")] = None
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
    """A heat map and how faithful it is on this very picture; ``steps`` are the fractions changed of the curves."""

    computed: ClassVar = ("is_zero", "coarse")

    method: Annotated[str, Doc("registered name")]
    target: Annotated[str, Doc("the class the map speaks for; `anything but …` for a counterfactual map")]
    contrast: Annotated[str | None, Doc("the class it speaks against")]
    heat: Annotated[np.ndarray, HIDDEN] = field(repr=False)
    """Signed, at the network's own resolution, ``(h, w)``; positive speaks for the target."""
    regions: Annotated[tuple[Region, ...], Doc("the strongest cells")]
    verdict: Annotated[Verdict, Doc("whether to believe it")]
    steps: Curve = field(default=(), repr=False)
    deletion_curve: Curve = field(default=(), repr=False)
    insertion_curve: Curve = field(default=(), repr=False)
    deletion_random_curve: Curve = field(default=(), repr=False)
    insertion_random_curve: Curve = field(default=(), repr=False)
    deletion: Annotated[Area, Doc("area under the probability as the hottest pixels go")] = None
    insertion: Annotated[Area, Doc("the same as the hottest pixels come first; high is good")] = None
    deletion_random: Annotated[Area, Doc("the same for the map with its cells shuffled once")] = None
    insertion_random: Annotated[Area, Doc("the same for the map with its cells shuffled once")] = None
    match: Annotated[Cosine, Doc("how well the heat goes with what hiding halves of the picture does, −1…1")] = None
    match_centre: Annotated[Cosine, Doc("the same of a bump in the middle of the picture")] = None
    rival: Annotated[str | None, Doc("the most probable class beside those explained")] = None
    match_lead: Annotated[
        Cosine, Doc("how well what the map has more than the rival's goes with what hiding does to the lead over it")
    ] = None
    neurons: Annotated[tuple[Neuron, ...], Doc("with `--set neurons`"), OPTIONAL] = ()
    outside: Annotated[Outside | None, Doc("heat outside the object"), OPTIONAL] = None

    @property
    def is_zero(
        self,
    ) -> Annotated[bool, Doc("true when nothing speaks for the class"), Json("all_zero")]:
        """Said on the card, never drawn."""
        return not bool((self.heat > 0).any())

    @property
    def coarse(self) -> Annotated[list[list[float]], Doc("the signed map, rows from top to bottom"), Json("heat", 5)]:
        """At most 32 rows and columns, by the mean of blocks as equal as may be: a pixel map would drown the JSON."""
        rows, columns = (min(side, 32) for side in self.heat.shape)
        blocks = [np.array_split(row, columns, 1) for row in np.array_split(self.heat, rows, 0)]
        return [[float(block.mean()) for block in row] for row in blocks]

    @property
    def remarks(self) -> tuple[str, ...]:
        outside = () if self.outside is None else (self.outside.sentence,)
        return (*outside, *map(str, self.neurons))
