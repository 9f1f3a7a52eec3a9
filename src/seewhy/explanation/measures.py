"""Figures beside a likeness or a sentence: what hiding costs, how pure, because of what, where from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NeighbourShare:
    """How many neighbours carry the class explained, beside those of held-out pictures.

    Attributes:
        share: part of the neighbours shown that does, 0…1.
        limit: the part that a wrong class reaches on one held-out picture in twenty at most; above 1 where none is.
        near: similarity of the nearest neighbours, the mean over regions; ``None`` for channels, which are not near.
        near_limit: what nineteen held-out pictures in twenty have at least.
        n: held-out pictures with about as many neighbours of the class decided for; 0 where the classifier knew them.
        right: of these, decided rightly.
    """

    share: float
    limit: float
    near: float | None = None
    near_limit: float | None = None
    n: int = 0
    right: int = 0

    @property
    def far(self) -> bool:
        """Whether even the nearest patches are farther than neighbours are."""
        return self.near is not None and self.near_limit is not None and self.near < self.near_limit

    @property
    def reaches(self) -> bool:
        """Whether so many are more than a wrong class has."""
        return self.share >= self.limit

    def to_json(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(self).items()}


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

    def to_json(self) -> dict[str, Any]:
        return {
            "removed": self.n,
            "without": self.label,
            "changed": self.changed,
            "changed_random": self.changed_random,
            "changed_on": self.n_held_out,
        }


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
class Because:
    """What a likeness rests on: how much of it is lost when one property of the picture is changed.

    Attributes:
        lost: property → part of the similarity that is lost, negative where it is gained; the place stays the same.
        phi: the same in units of the similarity.
        change: how much the picture was changed, root mean square over the view, 0…255.
        strengths: ``"calibrated"``, when every property is changed equally, or ``"paper"``.
        sentence: which properties matter; empty where they may not be compared.
        overall: as ``lost``, over all pictures it was measured on, the more alike the heavier (the paper's global
            influence); ``None`` where that was not measured.
    """

    lost: dict[str, float]
    phi: dict[str, float]
    change: dict[str, float]
    strengths: str
    sentence: str
    overall: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        named = ("lost", "phi", "change") if self.overall is None else ("lost", "phi", "change", "overall")
        parts = {name: {k: round(v, 4) for k, v in getattr(self, name).items()} for name in named}
        return {**parts, "strengths": self.strengths, "sentence": self.sentence}


@dataclass(frozen=True)
class WordOrigin:
    """What a description was written for, where that is not simply its class.

    Attributes:
        attribute: what it is about, where it was written to part two classes.
        against: the class it was written to be told apart from.
        written_for: the class it was written for, where it was chosen for another.

    Example:
        >>> str(WordOrigin("beak", "wren")), str(WordOrigin(written_for="robin"))
        ('beak, against wren', 'written for robin')
    """

    attribute: str | None = None
    against: str | None = None
    written_for: str | None = None

    def __str__(self) -> str:
        if self.written_for is not None:
            return f"written for {self.written_for}"
        against = None if self.against is None else f"against {self.against}"
        return ", ".join(part for part in (self.attribute, against) if part)

    def to_json(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class WordControl:
    """How the words of a class do beside lists that were written about something else.

    Attributes:
        as_good: part of the wrong assignments, of lists to classes, that fit the held-out pictures as well as the
            true one.
        class_beats: part of other lists that fit the class's held-out pictures less well than its own; ``None``
            where it has none.
        picture_beats: the same of the picture explained.
    """

    as_good: float
    class_beats: float | None
    picture_beats: float

    def to_json(self) -> dict[str, Any]:
        return {
            "as_good": round(self.as_good, 4),
            "class_beats": None if self.class_beats is None else round(self.class_beats, 4),
            "picture_beats": round(self.picture_beats, 4),
        }
