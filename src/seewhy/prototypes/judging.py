"""What the likenesses of a card are judged from, and the verdict on neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..encoders.base import EncoderOutput
from ..explanation.measures import PatchDeletion
from ..explanation.similar import Like, Likeness
from ..explanation.subject import Subject
from ..explanation.verdict import Level, Verdict
from .bank import Patches
from .base import Group, Prototypes
from .measure import LikenessMeasure, predicted_share

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


@dataclass(frozen=True)
class Showing:
    """What is shown on a card, before it is judged.

    Attributes:
        model: the classifier.
        bank: that was searched.
        look: of this picture alone.
        target: index of the class explained.
        subject: what all of this is about, in names.
        groups: what was found.
        neighbours: the same as the card shows it.
        deletion: what hiding the places shown does, where it was measured.
    """

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


def beats_chance(measure: LikenessMeasure) -> bool:
    """Whether the odds of carrying the class are three times those of chance: 3 % at 1 %, 75 % at 50 %."""
    return measure.precision * (1 - measure.chance) >= 3 * measure.chance * (1 - measure.precision)


def judge_neighbours(method: Prototypes, showing: Showing) -> Like:
    """By how often such neighbours carry the predicted class held out, and those shown the class explained."""
    of_class = showing.subject.regions_are_of_class or all(g.whole for g in showing.groups)
    verdict = neighbours_verdict(method.rule, showing)
    return showing.like(method, verdict, showing.model.likeness, of_class=of_class)


def neighbours_verdict(rule: str, showing: Showing) -> Verdict:
    """The verdict of :func:`judge_neighbours`, by a rule in words."""
    subject, measure, here = showing.subject, showing.model.likeness, showing.of_target
    part = f"these regions are {showing.share:.0%} of what speaks for {subject.of_regions}"
    if not subject.regions_are_of_class:
        figures = f"Which class patches like these should be of is not known: {part}."
        return Verdict("not measured", figures + showing.hidden, rule)
    if here is None:
        return Verdict("do not rely", f"No neighbour is left after near-duplicates; {part}.", rule)
    if measure is None:
        return Verdict("not measured", f"Too few pictures were held out to measure neighbours; {part}.", rule)
    figures = (
        f"On {measure.n} held-out pictures such neighbours carry the predicted class {measure.precision:.0%} of the "
        f"time (chance {measure.chance:.0%}); of those shown here {here:.0%} are {subject.label}; {part}."
        f"{showing.hidden}"
    )
    more = beats_chance(measure)
    if more and measure.precision >= 2 / 3 and here > 0.5:
        return Verdict("believable" if showing.matters else "partly", figures, rule)
    if more and measure.precision >= 1 / 3 and here > 0:
        return Verdict("partly", figures, rule)
    return Verdict("do not rely", figures, rule)
