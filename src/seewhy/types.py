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
