"""Reproductions about words: on the drawn world alone, whose words are known, the claims that must show do."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_descriptions_with_a_meaning_help_by_it(tmp_path: Path) -> None:
    report = script("classification_by_description").main(
        ["--n", "6", "--n-noise", "2", "--out", str(tmp_path / "report.json")]
    )
    assert [c.verdict for c in report.claims] == ["shown"] * 3
    assert (tmp_path / "report.json").exists()


def test_chosen_descriptions_cannot_do_better_than_the_class_being_in_question() -> None:
    report = script("discriminative_descriptions").main(["--n", "6", "--n-noise", "2"])
    figures = report.numbers["drawn world"]
    assert figures["descriptions, chosen"][0] <= figures["class in question, chosen"][0]
    assert len(report.claims) == 4


def test_captions_that_part_classes_do_more_than_those_that_do_not() -> None:
    report = script("fudd").main(["--n", "10", "--n-noise", "2"])
    assert [c.verdict for c in report.claims] == ["shown"] * 3
    figures = report.numbers["drawn world"]
    assert figures["FuDD"][0] <= figures["in question"][0]
