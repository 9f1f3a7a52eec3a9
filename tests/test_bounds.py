"""What stands in a field's type is held; the sentence names field, value and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from seewhy.bounds import Bound, Count, OpenPart, Positive, check_fields, expected, typed
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
        ({"rate": 0.0}, "`rate` of it must be a number above 0, got 0. Leave it out to use 0.1."),
        (
            {"rate": float("inf")},
            "`rate` of it must be a number above 0, got inf. Leave it out to use 0.1.",
        ),
        (
            {"rate": float("nan")},
            "`rate` of it must be a number above 0, got nan. Leave it out to use 0.1.",
        ),
        (
            {"part": 1.0},
            "`part` of it must be a number from 0 to below 1, got 1. Leave it out to use 0.0.",
        ),
        ({"n": 0}, "`n` of it must be a whole number of at least 1, got 0."),
        ({"n": 2.5}, "`n` of it must be a whole number of at least 1, got 2.5."),
        ({"n": True}, "`n` of it must be a whole number of at least 1, got True."),
        ({"rate": "0.1"}, "`rate` of it must be a number above 0, got '0.1'. Leave it out to use 0.1."),
        ({"form": "c"}, "`form` of it must be 'a' or 'b', got 'c'."),
    ],
)
def test_what_lies_outside_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Settings(**given)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_a_field_without_a_default_cannot_be_left_out() -> None:
    @dataclass(frozen=True)
    class Bare:
        n: Count

    with pytest.raises(InputError) as caught:
        check_fields(Bare(0), "it")
    assert str(caught.value) == "`n` of it must be a whole number of at least 1, got 0."


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Bound(2), " of at least 2"),
        (Bound(most=3), " of at most 3"),
        (Bound(0, 1), " from 0 to 1"),
        (
            Bound(0, 1, (True, False)),
            " above 0 and at most 1",
        ),
        (Bound(0, 1, (False, True)), " from 0 to below 1"),
        (Bound(0, 1, (True, True)), " above 0 and below 1"),
        (Bound(), ""),
    ],
)
def test_a_bound_in_words(bound: Bound, words: str) -> None:
    assert str(bound) == words


def test_alike_alternatives_are_named_once() -> None:
    assert expected(tuple[str, ...] | Sequence[str] | None) == "a list of strings or None"


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Count | None, "a whole number of at least 1 or none"),
        (tuple[int, ...] | None, "whole numbers separated by commas or none"),
        (Literal["a", "b"], "a or b"),
        (bool | Path, "true or false or a path"),
        (dict[str, str], "a value made in Python"),
    ],
)
def test_a_type_in_the_words_of_the_command_line(hint: object, words: str) -> None:
    assert typed(hint) == words


def test_what_lies_within_passes() -> None:
    assert Settings(1.0, 0.999, 3, "b") == Settings(1.0, 0.999, 3, "b")
    Settings()


def test_each_value_of_a_tuple_is_checked() -> None:
    @dataclass(frozen=True)
    class Many:
        shares: tuple[OpenPart, ...] = ()

    check_fields(Many((0.0, 0.5)), "it")
    check_fields(Many(), "it")
    with pytest.raises(InputError, match="`shares` of it must be a number from 0 to below 1, got 1"):
        check_fields(Many((0.5, 1.0)), "it")
