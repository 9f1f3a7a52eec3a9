"""Reliability of similar patches, measured on held-out pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import torch

from ..attributions.base import Explainable
from ..attributions.shares import cell_evidence, shares, strongest_cells
from ..encoders.base import EncoderOutput
from ..encoders.stream import Encoded
from ..explanation.base import Subject
from ..explanation.result import EXACT, Result
from ..explanation.similar import Like, Likeness, NeighbourShare, PatchDeletion
from ..explanation.verdict import Level, Verdict
from ..heads.head import Target
from ..metrics.calibration import wilson
from ..printable import percent
from ..results import Count, Doc, Share
from .bank import Patches
from .base import Group, Prototypes, Query

WRONG = 0.05
"""Share of held-out pictures on which a wrong class may reach the limit."""
FAR = 0.05
"""Share of held-out pictures whose nearest patches count as too far."""
N_DRAWN = 1000
"""Largest number of wrong classes to test, with two to five per picture."""
LEAST = 10
"""Smallest number of pictures in a band."""
NEVER = 1.01
"""Limit that is higher than any share."""


class Band(NamedTuple):
    """Held-out pictures with a similar share of neighbours of the predicted class.

    Attributes:
        least: lowest share in the band.
        n: number of pictures.
        right: number of right predictions.
    """

    least: float
    n: int
    right: int

    def joined(self, higher: Band) -> Band:
        return Band(self.least, self.n + higher.n, self.right + higher.right)

    @property
    def lower(self) -> float:
        """Wilson's one-sided 95 % lower bound of the accuracy."""
        return float(wilson(self.right / self.n, self.n, 1.645)[0])


class Trial(NamedTuple):
    """The neighbours of a held-out picture.

    Attributes:
        share: share of the neighbours that have the predicted class.
        similarity: similarity of the nearest neighbour, averaged over regions.
        wrong: the same share for random classes that are neither the true nor the predicted class.
        chance: fraction of the bank that has the predicted class.
    """

    share: float
    right: bool
    similarity: float
    wrong: tuple[float, ...]
    chance: float


@dataclass(frozen=True)
class LikenessMeasure(Result):
    """The reliability of neighbours on held-out pictures."""

    precision: Annotated[Share, Doc("share of displayed prototypes with the predicted class"), EXACT]
    chance: Annotated[Share, Doc("share of random prototypes with the predicted class"), EXACT]
    n: Annotated[Count, Doc("number of pictures")]
    limit: Annotated[
        float | None,
        Doc("share of displayed prototypes that a wrong class reaches on at most 5 % of the pictures"),
        EXACT,
    ] = None
    near: Annotated[
        float | None, Doc("similarity of the first displayed prototype that 95 % of the pictures reach"), EXACT
    ] = None
    bands: Annotated[tuple[Band, ...], Doc("accuracy by share of prototypes with the predicted class"), EXACT] = ()

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> LikenessMeasure | None:
        """Combine the trials; return ``None`` if there are none."""
        if not trials:
            return None
        part, right, similarity, wrong, chance = zip(*trials, strict=True)
        near = torch.tensor(similarity, dtype=torch.float64).quantile(FAR).item()
        n = len(trials)
        return cls(sum(part) / n, sum(chance) / n, n, limit_of(wrong, part), near, bands_of(part, right))

    @classmethod
    def restore(cls, facts: Mapping[str, Any] | None) -> LikenessMeasure | None:
        """Rebuild a measure from :meth:`to_json`; raise ``ValueError`` or ``TypeError`` for invalid data."""
        if facts is None:
            return None
        found = cls(**{**facts, "bands": tuple(Band(*b) for b in facts["bands"])})
        counts = [found.n, *(count for band in found.bands for count in (band.n, band.right))]
        parts = [found.precision, found.chance, *(band.least for band in found.bands)]
        limits = [limit for limit in (found.limit, found.near) if limit is not None]
        if (
            not all(type(count) is int and count >= 0 for count in counts)
            or not all(isinstance(part, int | float) and 0 <= part <= 1 for part in parts)
            or not all(isinstance(limit, int | float) and abs(limit) <= NEVER for limit in limits)
            or any(not 0 < band.n >= band.right for band in found.bands)
            or (found.limit is not None and (not found.bands or found.near is None))
        ):
            raise ValueError(f"the likeness measures are invalid: {vars(found)}")
        return found

    def band(self, share: float) -> Band:
        return next((band for band in reversed(self.bands) if share >= band.least), self.bands[0])

    def rate(self, band: Band) -> float:
        """Return the accuracy in a band, smoothed by Laplace's rule."""
        in_all = sum(b.right for b in self.bands) / sum(b.n for b in self.bands)
        return (band.right + 2 * min(0.5, in_all)) / (band.n + 2)


def limit_of(wrong: Sequence[Sequence[float]], own: Sequence[float], part: float = WRONG) -> float:
    """Return the smallest neighbour share that a wrong class reaches on at most a fraction ``part`` of pictures.

    One standard error is added to the measured fraction.

    Example:
        >>> limit_of([[0.0], [0.25], [0.5], [0.0]], [1.0, 0.5, 0.25, 0.75], part=0.3)
        0.75
    """
    asked = [some for some in wrong if some]
    found = NEVER
    for share in sorted({*own, 1.0}, reverse=True):
        reached = [sum(other >= share for other in some) / len(some) for some in asked]
        mean = sum(reached) / max(len(reached), 1)
        variance = sum((one - mean) ** 2 for one in reached) / max(len(reached), 1) ** 2
        if not share or mean + math.sqrt(variance) > part:
            break
        found = share
    return found


def bands_of(shares_of_class: Sequence[float], right: Sequence[bool], least: int = LEAST) -> tuple[Band, ...]:
    """Group pictures into bands of increasing accuracy by isotonic regression, with at least ``least`` pictures each.

    Example:
        >>> [tuple(band) for band in bands_of([0, 0, 0.5, 0.5, 1, 1], [0, 0, 1, 0, 1, 1], least=2)]
        [(0, 2, 0), (0.5, 2, 1), (1, 2, 2)]
    """
    found: list[Band] = []
    for share in sorted(set(shares_of_class)):
        mine = [ok for value, ok in zip(shares_of_class, right, strict=True) if value == share]
        found.append(Band(share, len(mine), sum(mine)))
        while len(found) > 1 and (
            found[-2].n < least or found[-2].right * found[-1].n >= found[-1].right * found[-2].n
        ):
            found[-2:] = [found[-2].joined(found[-1])]
    if len(found) > 1 and found[-1].n < least:
        found[-2:] = [found[-2].joined(found[-1])]
    return tuple(found)


def predicted_share(bank: Patches, groups: Sequence[Group], predicted: int) -> float | None:
    """Return the share of patches that have the predicted class, or ``None`` without patches."""
    labels = [bank.pictures[int(bank.owner[m.patch])].label for group in groups for m in group.matches]
    return sum(label == predicted for label in labels) / len(labels) if labels else None


def nearness(groups: Sequence[Group]) -> float:
    """Return the similarity of the nearest patch, averaged over regions."""
    best = [max(m.similarity for m in group.matches) for group in groups if group.matches]
    return sum(best) / len(best) if best else -1.0


class Labelled(NamedTuple):
    seen: Encoded
    label: int
    decided: int | None = None


def measure_likeness(
    model: Explainable, method: Prototypes, bank: Patches, held_out: Sequence[Labelled], n_regions: int = 3
) -> LikenessMeasure | None:
    """Measure the reliability of a method's neighbours on held-out pictures."""
    return LikenessMeasure.of(list(trials(model, method, bank, held_out, len(held_out), n_regions)))


def trials(
    model: Explainable, method: Prototypes, bank: Patches, held_out: Iterable[Labelled], n: int, n_regions: int = 3
) -> Iterator[Trial]:
    """Yield one trial per held-out picture with neighbours; ``n`` is the number of pictures."""
    n_classes = len(model.head.bias)
    frequency = torch.bincount(bank.labels, minlength=n_classes).float()
    frequency /= frequency.sum()
    n_wrong = min(5, max(2, math.ceil(N_DRAWN / max(n, 1))))
    for seen, label, known in held_out:
        if seen.features is None:
            continue
        look = EncoderOutput(seen.features[None], seen.pooled[:1])
        decided = int(model.head.probabilities(look.pooled).argmax()) if known is None else known
        others = [k for k in range(n_classes) if k not in (label, decided)]
        drawn = random.Random(seen.digest).sample(others, min(n_wrong, len(others)))
        found: dict[int, list[Group]] = {}
        asked = [decided, *(k for k in drawn if k != decided)]
        alike = EncoderOutput(*(part.expand(len(asked), *part.shape[1:]) for part in (look.features, look.pooled)))
        speaks = shares(cell_evidence(model, alike, Target(torch.tensor(asked))))
        for k, share in zip(asked, speaks, strict=True):
            cells = strongest_cells(share, n_regions)
            found[k] = method(model, bank, Query(look, Target(torch.tensor([k])), cells, seen.digest, share))
        share = predicted_share(bank, found[decided], decided)
        if share is not None:
            wrong = tuple(predicted_share(bank, found[k], k) or 0.0 for k in drawn)
            near = nearness(found[decided])
            yield Trial(share, decided == label, near, wrong, float(frequency[decided]))


LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")
BELIEVABLE, PARTLY = 0.9, 0.5
"""Smallest accuracies of the verdicts believable and partly believable."""
UNKNOWN = "The picture is unlike anything the classifier knows: even the most similar parts are not similar."


@dataclass(frozen=True)
class Showing:
    """The prototypes of an explanation, with the measures from which their verdict is computed."""

    model: Any
    bank: Patches
    look: EncoderOutput
    target: int
    subject: Subject
    groups: Sequence[Group]
    neighbours: tuple[Likeness, ...]
    deletion: PatchDeletion | None = None

    @property
    def share(self) -> float:
        """The fraction of the evidence that comes from the displayed groups, 0 to 1."""
        return sum(group.share for group in self.groups)

    @property
    def of_target(self) -> float | None:
        """The share of displayed patches of the explained class, or ``None`` without patches."""
        return predicted_share(self.bank, self.groups, self.target)

    def contribution(self, parts: str) -> str:
        """Return the contribution of the displayed groups, named ``parts``, to the class's logit, in words."""
        logits = sum(group.contribution or 0.0 for group in self.groups)
        return (
            f"These {len(self.groups)} {parts} contribute {logits:.1f} of the "
            f"{logits / self.share if self.share else 0.0:.1f} logits of evidence for {self.subject.of_class} "
            f"({100 * self.share:.0f} %)"
        )

    @property
    def matters(self) -> bool:
        """Whether hiding the regions lowers the score more than hiding other regions; true if not measured."""
        return self.deletion is None or self.deletion.matters

    @property
    def hidden(self) -> str:
        """The effect of hiding the regions, as a sentence; empty if not measured."""
        if self.deletion is None:
            return ""
        d = self.deletion
        figures = d.fall, d.fall_random, max(d.falls_random)
        apart = (n for n in range(1, 4) if round(figures[0], n) not in (round(v, n) for v in figures[1:]))
        digits = next(apart, 3)  # enough digits to tell the numbers of the verdict apart
        fall, elsewhere, most = (f"{v:.{digits}f}".replace("-", "−") for v in figures)
        return (
            f" Hiding these parts lowers the lead of {self.subject.label} (logit minus the mean logit, {d.lead:.1f}) "
            f"by {fall}; hiding other parts of the same size lowers it by {elsewhere} (at most {most})."
        )

    def like(self, method: Prototypes, verdict: Verdict, measure: LikenessMeasure | None = None, **more: Any) -> Like:
        """Return the evidence with its verdict; ``more`` are additional fields of :class:`Like`."""
        if self.subject.unknown:
            verdict = replace(verdict, level="do not rely", sentence=UNKNOWN)
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
    """Return the evidence with a verdict that rests on held-out pictures with a similar share of neighbours."""
    of_class = showing.subject.regions_are_of_class or all(g.whole for g in showing.groups)
    measure = showing.model.likeness
    here, found = showing.of_target, None
    if here is not None and measure is not None and measure.limit is not None and showing.subject.regions_are_of_class:
        band = measure.band(here)
        found = NeighbourShare(here, measure.limit, nearness(showing.groups), measure.near, band.n, band.right)
    verdict = neighbours_verdict(method.rule, showing, found)
    return showing.like(method, verdict, measure, of_class=of_class, of_target=found)


def neighbours_verdict(rule: str, showing: Showing, found: NeighbourShare | None) -> Verdict:
    subject, measure, here = showing.subject, showing.model.likeness, showing.of_target
    part = f"These parts hold {percent(showing.share, ' ')} of the evidence for {subject.of_regions}.{showing.hidden}"
    if not subject.regions_are_of_class:
        return Verdict(
            "not measured",
            "The classes of the similar parts were not checked, because the map does not show evidence for a class.",
            rule,
            part,
        )
    if here is None:
        return Verdict(
            "do not rely", "Only near-copies of this picture are similar, and near-copies do not count.", rule, part
        )
    if found is None or measure is None:
        why = "SeeWhy has not measured how often such a decision is right: too few pictures are held out"
        return Verdict("not measured", f"{_share_said(here, subject.label)}.", rule, f"{why}. {part}")
    if found.far:
        figures = (
            f"The nearest parts have a mean cosine of {found.near:.2f}; 19 of 20 held-out pictures have "
            f"{found.near_limit:.2f} or more. {_share_said(here, subject.label)}. {part}"
        )
        return Verdict("do not rely", "Even the most similar parts of your pictures look different.", rule, figures)
    band = measure.band(found.share)
    rate, decided = measure.rate(band), subject.label == subject.decision
    level: Level = "believable" if decided and rate >= BELIEVABLE and showing.matters else "partly"
    if not found.reaches or rate < PARTLY or band.lower <= measure.chance:
        level = "do not rely"
    said = f"{_share_said(here, subject.label)}{_but(found, showing, rate)}."
    return Verdict(level, said, rule, f"{said_of_share(showing, found, 'parts')} {part}")


def _share_said(share: float, label: str) -> str:
    return f"{percent(share, ' ')} of the most similar parts are {label}"


def _but(found: NeighbourShare, showing: Showing, rate: float) -> str:
    """Return a caveat, or an empty text."""
    if not found.reaches:
        return ", a share that a wrong class often reaches too"
    if showing.subject.label != showing.subject.decision:
        return ", but the decision is another class"
    if not showing.matters:
        return ", but hiding these parts changes the prediction no more than hiding others"
    if found.right >= BELIEVABLE * found.n:
        return "" if rate >= BELIEVABLE else ", but few held-out pictures have such a share"
    return ", which leaves the decision uncertain" if rate >= PARTLY else ", and such decisions are mostly wrong"


def said_of_share(showing: Showing, found: NeighbourShare, what: str) -> str:
    """Return a sentence on the share of neighbours that have the class."""
    label, limit = showing.subject.label, percent(found.limit, " ")
    wrong = f"For a wrong class, this share is {limit} or more on at most 1 in 20 held-out pictures."
    if found.limit > 1:
        wrong = "On more than 1 in 20 held-out pictures, all of the parts shown are of one wrong class."
    said = f"{percent(found.share, ' ')} of the {what} shown are {label}. {wrong}"
    if label != showing.subject.decision:
        return f"{said} The decision is another class."
    if not found.n:
        return said
    right = f"{percent(found.right / found.n, ' ')} were predicted correctly"
    return f"{said} Of {found.n} held-out pictures with about as many matches, {right}."
