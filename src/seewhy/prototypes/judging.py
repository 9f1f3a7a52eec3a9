"""What the likenesses of a card are judged from, and the verdict on neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..encoders.base import EncoderOutput
from ..explanation.base import Subject
from ..explanation.similar import Like, Likeness, NeighbourShare, PatchDeletion
from ..explanation.verdict import Level, Verdict
from .bank import Patches
from .base import Group, Prototypes
from .measure import LikenessMeasure, nearness, predicted_share

if TYPE_CHECKING:
    from typing import Protocol

    from ..attributions.base import Deciding

    class Judged(Deciding, Protocol):
        """A classifier with what was measured of it."""

        @property
        def likeness(self) -> LikenessMeasure | None: ...

        @property
        def measures(self) -> dict[str, Any]: ...


LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")
BELIEVABLE, PARTLY = 0.9, 0.5
"""Part of held-out pictures like this one that are right."""
UNKNOWN = "The picture is called unlike anything the classifier knows: this is the nearest there is, no likeness."


@dataclass(frozen=True)
class Showing:
    """What is shown on a card, before it is judged."""

    model: Judged
    bank: Patches
    look: EncoderOutput
    target: int
    subject: Subject
    groups: Sequence[Group]
    neighbours: tuple[Likeness, ...]
    deletion: PatchDeletion | None = None

    @property
    def share(self) -> float:
        """What the groups are together of what speaks for the class, 0…1."""
        return sum(group.share for group in self.groups)

    @property
    def of_target(self) -> float | None:
        """Part of the patches shown that carry the class explained; ``None`` without any."""
        return predicted_share(self.bank, self.groups, self.target)

    @property
    def logits(self) -> float:
        """What the groups bring to the class."""
        return sum(group.contribution or 0.0 for group in self.groups)

    @property
    def logits_in_all(self) -> float:
        """What everything brings that speaks for the class."""
        return self.logits / self.share if self.share else 0.0

    @property
    def matters(self) -> bool:
        """Whether hiding the places costs more than hiding others; so where it was not measured."""
        return self.deletion is None or self.deletion.matters

    @property
    def hidden(self) -> str:
        """What hiding the places did, as a sentence with a space before it; empty where it was not measured."""
        if self.deletion is None:
            return ""
        d = self.deletion
        figures = d.fall, d.fall_random, max(d.falls_random)
        apart = (n for n in range(1, 4) if round(figures[0], n) not in (round(v, n) for v in figures[1:]))
        digits = next(apart, 3)  # the verdict goes by which is larger: as many as tell that
        fall, elsewhere, most = (f"{v:.{digits}f}".replace("-", "−") for v in figures)
        return (
            f" Hiding these places takes {fall} from the lead of {self.subject.label}, {d.lead:.1f}, hiding as much "
            f"elsewhere {elsewhere} (at most {most})."
        )

    def like(self, method: Prototypes, verdict: Verdict, measure: LikenessMeasure | None = None, **more: Any) -> Like:
        """The evidence, with its verdict and the figure it rests on; ``more`` are further fields of it."""
        if self.subject.unknown:
            verdict = Verdict("do not rely", f"{UNKNOWN} {verdict.sentence}", verdict.rule)
        precision, chance = (None, None) if measure is None else (measure.precision, measure.chance)
        return Like(
            method.name,
            self.neighbours,
            self.share,
            None if precision is None else round(precision, 4),
            None if chance is None else round(chance, 4),
            verdict,
            deletion=self.deletion,
            display=method.display,
            **more,
        )


def judge_neighbours(method: Prototypes, showing: Showing) -> Like:
    """By how many of those shown are of the class explained, and how often held-out pictures with as many are right."""
    of_class = showing.subject.regions_are_of_class or all(g.whole for g in showing.groups)
    measure = showing.model.likeness
    here, found = showing.of_target, None
    if here is not None and measure is not None and measure.limit is not None and showing.subject.regions_are_of_class:
        band = measure.band(here)
        found = NeighbourShare(here, measure.limit, nearness(showing.groups), measure.near, band.n, band.right)
    verdict = neighbours_verdict(method.rule, showing, found)
    return showing.like(method, verdict, measure, of_class=of_class, of_target=found)


def neighbours_verdict(rule: str, showing: Showing, found: NeighbourShare | None) -> Verdict:
    """The verdict of :func:`judge_neighbours`, by a rule in words."""
    subject, measure, here = showing.subject, showing.model.likeness, showing.of_target
    part = f"these regions are {showing.share:.0%} of what speaks for {subject.of_regions}"
    if not subject.regions_are_of_class:
        figures = f"Which class patches like these should be of is not known: {part}."
        return Verdict("not measured", figures + showing.hidden, rule)
    if here is None:
        return Verdict("do not rely", f"No neighbour is left after near-duplicates; {part}.", rule)
    if found is None or measure is None:
        why = "too few pictures were held out, or an earlier version fitted this"
        return Verdict("not measured", f"Neighbours were not measured: {why}; {part}.", rule)
    rest = f" {part[0].upper()}{part[1:]}.{showing.hidden}"
    if found.far:
        figures = (
            f"Even the nearest patches are too far to be like these regions: a mean cosine of {found.near:.2f}, where "
            f"19 of 20 held-out pictures have {found.near_limit:.2f} or more. {here:.0%} of them are {subject.label}."
        )
        return Verdict("do not rely", figures + rest, rule)
    band = measure.band(found.share)
    rate, decided = measure.rate(band), subject.label == subject.decision
    level: Level = "believable" if decided and rate >= BELIEVABLE and showing.matters else "partly"
    if not found.reaches or rate < PARTLY or band.lower <= measure.chance:
        level = "do not rely"
    return Verdict(level, said_of_share(showing, found, "patches") + rest, rule)


def said_of_share(showing: Showing, found: NeighbourShare, what: str) -> str:
    """How many such things, ``"patches"`` say, are of the class, and how many of a wrong one; then how often right."""
    label, limit = showing.subject.label, f"has {found.limit:.0%} or more on 1 in 20 held-out pictures at most"
    if found.limit > 1:
        limit = "has all of them on more than 1 in 20 held-out pictures"
    said = f"{found.share:.0%} of the {what} shown are {label}; a wrong class {limit}."
    if label != showing.subject.decision:
        return f"{said} The decision is another class."
    if not found.n:
        return said
    right = f"{found.right / found.n:.0%} were right"
    return f"{said} Of {found.n} held-out pictures with about as many of the class decided for {right}."
