"""Transforms, crops, boxes and failures.

Axis letters in shape annotations: b batch, c channel, h height, w width, t token, d feature, k class, n sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Annotated, Any

from .errors import InputError
from .results import Doc

PixelBox = tuple[int, int, int, int]
"""``(left, top, right, bottom)`` in pixels of the upright picture, with right and bottom exclusive."""

FractionBox = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` as fractions from 0 to 1."""


INTERPOLATIONS = ("bicubic", "bilinear", "lanczos")


@dataclass(frozen=True)
class Transform:
    """The resize, crop and normalisation of a network's input.

    Attributes:
        input_size: ``(height, width)`` of the network's input, in pixels.
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
                "`input_size` of a transform must be (height, width) in pixels, for example (224, 224), "
                f"got {self.input_size!r}."
            )
        if not _are_sizes((self.resize, self.resize) if _is_size(self.resize) else self.resize):
            raise InputError(
                "`resize` of a transform must be the short side in pixels, for example 256, or (height, "
                f"width), got {self.resize!r}."
            )
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"`interpolation` of a transform must be one of {known}, got {self.interpolation!r}.")
        for name, values, above in (("mean", self.mean, False), ("std", self.std, True)):
            if not _are_units(values, above=above):
                raise InputError(
                    f"`{name}` of a transform must be three numbers "
                    f"{'greater than 0 and at most' if above else 'from 0 to'} 1, for R, G and B, got "
                    f"{values!r}. Divide numbers from 0 to 255 by 255."
                )

    def at(self, side: int) -> Transform:
        """Return the transform for a square input of another size, with the same margin around the crop."""
        resize = round(self.resize * side / min(self.input_size)) if isinstance(self.resize, int) else (side, side)
        return replace(self, input_size=(side, side), resize=resize)

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
    if not isinstance(values, Sequence) or len(values) != 3 or not all(isinstance(v, Real) for v in values):
        return False
    return all(0 < v <= 1 if above else 0 <= v <= 1 for v in values)


@dataclass(frozen=True)
class Crop:
    """A crop that replaces the transform's centre crop.

    Attributes:
        box: area of the upright picture, as fractions; it is resized to the input size.
        flip: whether to mirror the crop left to right.
    """

    box: FractionBox
    flip: bool = False


@dataclass(frozen=True)
class Failure:
    """A picture that could not be processed."""

    image: Annotated[str, Doc("file name as given")]
    error: Annotated[str, Doc("the reason, and the cure")]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
