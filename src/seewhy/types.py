"""The words every room uses: axis letters, transforms, looks, predictions.

Axis letters in shape annotations: b batch, c channel, h w image or map, t token, d width, k class, n sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

from .errors import InputError

PixelBox = tuple[int, int, int, int]
"""``(left, top, right, bottom)`` in pixels of the upright picture (EXIF applied), right and bottom exclusive."""

FractionBox = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` as fractions 0…1 of whatever it lies on."""


INTERPOLATIONS = ("bicubic", "bilinear", "lanczos")


@dataclass(frozen=True)
class Transform:
    """How a picture becomes a network's input. SeeWhy always uses the model's own transform, never a guess.

    Attributes:
        input_size: ``(height, width)`` the network takes, in pixels.
        resize: short side in pixels before the centre crop, or ``(height, width)`` to stretch to.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased.
        mean: mean of each RGB channel, for pixels from 0 to 1.
        std: standard deviation of each RGB channel, for pixels from 0 to 1.
    """

    input_size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not _are_sizes(self.input_size):
            raise InputError(
                f"The transform's input_size is {self.input_size!r}. Expected two whole numbers of pixels above 0. "
                "Write (height, width), for example (224, 224)."
            )
        if not _are_sizes((self.resize, self.resize) if _is_size(self.resize) else self.resize):
            raise InputError(
                f"The transform's resize is {self.resize!r}. Expected one or two whole numbers of pixels above 0. "
                "Write the short side, for example 256, or (height, width)."
            )
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"The transform's interpolation is {self.interpolation!r}. Expected {known}. Choose one.")
        for name, values, above in (("mean", self.mean, False), ("std", self.std, True)):
            if not _are_units(values, above=above):
                raise InputError(
                    f"The transform's {name} is {values!r}. Expected three numbers "
                    f"{'above 0 and at most' if above else 'from 0 to'} 1, one for each of R, G and B. Divide numbers "
                    "from 0 to 255 by 255."
                )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Transform:
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
    """A way to cut a picture instead of the transform's own centre crop.

    Attributes:
        box: area of the upright picture to take, as fractions; it is resized to the input size.
        flip: mirror left to right after cutting.
    """

    box: FractionBox
    flip: bool = False


@dataclass(frozen=True)
class Failure:
    """A picture that could not be read; it never stops the others."""

    image: str
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "error": self.error}
