"""The words every room uses: axis letters, transforms, looks, predictions.

Axis letters in shape annotations: b batch, c channel, h w image or map, t token, d width, k class, n sample.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

PixelBox = tuple[int, int, int, int]
"""``(left, top, right, bottom)`` in pixels of the upright picture (EXIF applied), right and bottom exclusive."""

FractionBox = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` as fractions 0…1 of whatever it lies on."""


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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Transform:
        resize = data["resize"]
        return cls(
            tuple(data["input_size"]),
            resize if isinstance(resize, int) else tuple(resize),
            data["interpolation"],
            tuple(data["mean"]),
            tuple(data["std"]),
        )

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


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
    """

    image: str
    top: tuple[Ranked, ...]

    @property
    def label(self) -> str:
        return self.top[0].label

    @property
    def score(self) -> float:
        return self.top[0].score

    def to_json(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "label": self.label,
            "score": round(self.score, 6),
            "top": [{"label": r.label, "score": round(r.score, 6)} for r in self.top],
        }


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
    """

    lost: dict[str, float]
    phi: dict[str, float]
    change: dict[str, float]
    strengths: str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        parts = {name: {k: round(v, 4) for k, v in getattr(self, name).items()} for name in ("lost", "phi", "change")}
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
