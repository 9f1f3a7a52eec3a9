"""Parts of a picture that somebody marked: boxes and masks."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DataError
from ..types import FractionBox


@dataclass(frozen=True)
class Box:
    """A box around something."""

    corners: FractionBox
    label: str = ""

    def __post_init__(self) -> None:
        numbers = [c for c in self.corners if isinstance(c, int | float)]
        if len(numbers) == len(self.corners) == 4:
            left, top, right, bottom = numbers
            if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
                return
        raise DataError(
            f"The box {tuple(self.corners)} was given. Fractions of the picture, 0 ≤ left < right ≤ 1 and "
            "0 ≤ top < bottom ≤ 1, were expected. Divide pixels by the picture's width and height."
        )


@dataclass(frozen=True)
class Mask:
    """The pixels of something."""

    image: str
    label: str = ""
    value: int | None = None

    def __post_init__(self) -> None:
        if not self.image.strip():
            raise DataError("A mask without a file was given. The name of a picture was expected. Name one.")
        if self.value is not None and not 0 <= self.value <= 65535:
            raise DataError(
                f"The value {self.value} was given for the pixels of the mask {self.image}. A whole number from 0 to "
                "65535 was expected. Correct it."
            )
