"""What stands in a field's type is held; the sentence names field, value and what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from seewhy.bounds import Count, OpenPart, Positive, check_fields
from seewhy.errors import InputError


@dataclass(frozen=True)
class Settings:
    name: ClassVar[str] = "it"
    rate: Positive = 0.1
    part: OpenPart = 0.0
    n: Count | None = None
    form: Literal["a", "b"] | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rate": 0.0}, "it was given rate=0. A number above 0 was expected. Change it."),
        ({"rate": float("inf")}, "it was given rate=inf. A number above 0 was expected. Change it."),
        ({"rate": float("nan")}, "it was given rate=nan. A number above 0 was expected. Change it."),
        ({"part": 1.0}, "it was given part=1. A number from 0 to below 1 was expected. Change it."),
        ({"n": 0}, "it was given n=0. A whole number from 1 was expected. Change it."),
        ({"form": "c"}, "it was given form='c'. 'a' or 'b' was expected. Change it."),
    ],
)
def test_what_lies_outside_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Settings(**given)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_what_lies_within_passes() -> None:
    assert Settings(1.0, 0.999, 3, "b") == Settings(1.0, 0.999, 3, "b")
    Settings()
