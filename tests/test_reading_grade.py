"""What a person reads in a terminal has a grade of 9 at most: the help, and what commands answered for the record.

The card's sentences are asked in tests/card/test_first_screen.py.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from reading import grade, sentences_of, values

TESTS = Path(__file__).parent
MOST, MOST_OF_ONE = 9.0, 16.0
"""Of a room's sentences together, and of any one text."""
ANSWERS = frozenset({"sentence", "meaning", "why", "missing", "cure", "err"})
TEXTS = tomllib.loads((TESTS.parent / "src/seewhy/cli/texts.toml").read_text("utf-8"))
HELP = {name: list(values(table)) for name, table in TEXTS.items() if name != "examples"}
RECORDS = sorted((TESTS / "behaviour").glob("*.json"))


def answers(path: Path) -> list[str]:
    return list(dict.fromkeys(values(json.loads(path.read_text("utf-8")), ANSWERS)))


def judged(texts: list[str]) -> tuple[float, list[str]]:
    """The grade of all, and the texts that are too hard alone."""
    parts = {text: sentences_of(text) for text in texts}
    hard = [text for text, own in parts.items() if own and grade(own) > MOST_OF_ONE]
    return grade([one for own in parts.values() for one in own]), hard


def test_the_estimate_is_stricter_than_textstat() -> None:
    told = json.loads((TESTS / "golden/textstat.json").read_text("utf-8"))["grades"]
    off = [grade([sentence]) - theirs for sentence, theirs in told.items()]
    assert 0.5 < sum(off) / len(off) < 2.5
    assert min(off) > -2.5
    assert grade(["The cat sat on the mat."]) < 1
    assert grade(["Heterogeneous configurability necessitates interdisciplinary understanding."]) > 25


@pytest.mark.parametrize("table", HELP)
def test_the_help_is_read_at_once(table: str) -> None:
    found, hard = judged(HELP[table])
    assert (found <= MOST, hard) == (True, []), found


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_what_commands_answer_is_read_at_once(path: Path) -> None:
    if texts := answers(path):
        found, hard = judged(texts)
        assert (found <= MOST, hard) == (True, []), found
