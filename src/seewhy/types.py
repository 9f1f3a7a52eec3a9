"""The words every room uses: axis letters, transforms, looks, predictions.

Axis letters in shape annotations: b batch, c channel, h w image or map, t token, d width, k class, n sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

from .decision import UNKNOWN, Decision
from .errors import InputError

PixelBox = tuple[int, int, int, int]
"""``(left, top, right, bottom)`` in pixels of the upright picture (EXIF applied), right and bottom exclusive."""

FractionBox = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` as fractions 0…1 of whatever it lies on."""


INTERPOLATIONS = ("bicubic", "bilinear", "lanczos")


@dataclass(frozen=True)
class Transform:
    """How a picture becomes a network's input; always the model's own, never guessed.

    Attributes:
        input_size: ``(height, width)`` the network takes, in pixels.
        resize: short side in pixels before the centre crop, or ``(height, width)`` to stretch to.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased.
        mean: per channel, in 0…1 units of RGB.
        std: per channel, in 0…1 units of RGB.
    """

    input_size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Refuses what no network was trained with, above all numbers of 0…255.

        Raises:
            InputError: a size is not made of whole numbers above 0, the interpolation is another, ``mean`` or ``std``
                is not three numbers of 0…1, or ``std`` holds a 0.
        """
        if not _are_sizes(self.input_size):
            raise InputError(
                f"The transform's input_size is {self.input_size!r}. Two whole numbers of pixels above 0 were "
                "expected. Write (height, width), for example (224, 224)."
            )
        if not _are_sizes((self.resize, self.resize) if _is_size(self.resize) else self.resize):
            raise InputError(
                f"The transform's resize is {self.resize!r}. One whole number of pixels above 0, or two, were "
                "expected. Write the short side, for example 256, or (height, width)."
            )
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"The transform interpolates by {self.interpolation!r}. Expected {known}. Choose one.")
        for name, values, above in (("mean", self.mean, False), ("std", self.std, True)):
            if not _are_units(values, above=above):
                raise InputError(
                    f"The transform's {name} is {values!r}. Three numbers {'above 0' if above else 'from 0'} to 1, in "
                    "units of RGB, were expected. Divide numbers of 0 to 255 by 255."
                )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Transform:
        """What :meth:`to_json` gave, or the same as read from a file.

        Raises:
            KeyError: a key is missing.
            InputError: a value cannot be.
        """
        keys = ("input_size", "resize", "interpolation", "mean", "std")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v := data[k], list) else v for k in keys}
        return cls(**values)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def _are_sizes(values: object) -> bool:
    return isinstance(values, Sequence) and len(values) == 2 and all(map(_is_size, values))


def _are_units(values: object, *, above: bool) -> bool:
    """Three numbers of 0…1; the comparisons leave out what is not a number."""
    if not isinstance(values, Sequence) or len(values) != 3 or not all(isinstance(v, Real) for v in values):
        return False
    return all(0 < v <= 1 if above else 0 <= v <= 1 for v in values)


@dataclass(frozen=True)
class Crop:
    """One way of cutting a picture instead of the transform's own centre crop.

    Attributes:
        box: part of the upright picture to take, as fractions; it is resized to the input size.
        flip: mirror left to right after cutting.
    """

    box: FractionBox
    flip: bool = False


class Ranked(NamedTuple):
    """A class and its probability in 0…1."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The decision on one picture.

    Attributes:
        image: file name as given.
        top: classes by falling probability, the decision first.
        n_classes: those the classifier knows; left out, those in ``top``.
        decision: how far to trust it, where that was asked.
        rejected: whether it goes out as unknown, since the picture is unlike all that was trained on.
    """

    image: str
    top: tuple[Ranked, ...]
    n_classes: int = 0
    decision: Decision | None = None
    rejected: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_classes", self.n_classes or len(self.top))

    @property
    def label(self) -> str:
        return self.top[0].label

    @property
    def score(self) -> float:
        return self.top[0].score

    def __repr__(self) -> str:
        told = ", ".join(f"{r.label[:40]} {r.score:.1%}" for r in self.top[:3])
        rest = "" if self.n_classes <= 3 else f", … of {self.n_classes:,} classes"
        judged = "" if self.decision is None else f"; {self.decision.verdict}"
        return f"Prediction({self.image[-80:]!r}: {told}{rest}{judged})"

    def to_json(self) -> dict[str, Any]:
        data = {
            "image": self.image,
            "label": UNKNOWN if self.rejected else self.label,
            "score": round(self.score, 6),
            "top": [{"label": r.label, "score": round(r.score, 6)} for r in self.top],
        }
        return data if self.decision is None else data | {"decision": self.decision.to_json()}


@dataclass(frozen=True)
class Failure:
    """One picture that could not be read; it never stops the others."""

    image: str
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "error": self.error}


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
