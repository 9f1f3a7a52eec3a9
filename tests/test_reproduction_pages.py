"""The pages of reproductions use plainer words than the reports, and the same numbers."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reading import grade, sentences_of
from test_reproductions import RESULTS, script

DOCS = Path(__file__).resolve().parents[1] / "docs"
pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduction_pages", DOCS / "reproduction_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def texts(report: Any) -> list[str]:
    claims = [text for c in report.claims for text in (c.claim, c.measured, c.section)]
    return [*claims, report.data, report.model, *report.differences]


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:\.\d+)?", text))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_words_change_and_numbers_stay(path: Path, pages: ModuleType) -> None:
    report = script("claims").read_report(path)
    page = (DOCS / "reproductions" / path.name).with_suffix(".md").read_text("utf-8")
    for text in texts(report):
        shown = pages.plain(text, report.name)
        assert numbers(shown) == numbers(text), text
        assert shown.rstrip(".").lower().replace("|", "\\|") in page.lower()
    for c in report.claims:
        assert numbers(re.sub(r"\*.*?\*", "", pages.rule_words(c.rule, report.name))) <= numbers(c.rule)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_a_page_opens_with_what_was_claimed_and_what_showed(path: Path) -> None:
    text = (DOCS / "reproductions" / path.name).with_suffix(".md").read_text("utf-8")
    opening = text.partition("<!--")[0].partition("\n")[2]
    assert 40 < len(opening.split()) < 200
    assert re.search(r"\d", opening)
    assert grade(sentences_of(opening)) <= 9


def test_every_replacement_is_of_use(pages: ModuleType) -> None:
    reports = [script("claims").read_report(path) for path in RESULTS]
    assert set(pages.WORDS) - {r.name for r in reports} == {"rules", "every"}
    unused = []
    for name, words in pages.WORDS.items():
        of = [r for r in reports if name in (r.name, "rules", "every")]
        lines = [text for r in of for text in (*texts(r), *(p for c in r.claims for p in c.rule.split("; ")))]
        unused += [pattern for pattern in words if not any(re.search(pattern, line) for line in lines)]
    assert unused == []


def test_a_rule_that_recurs_has_a_letter_and_one_explanation(pages: ModuleType) -> None:
    rule = "a less b; shown: above 0.1; not shown: else"
    other = "c less d; shown: above 0.1; not shown: else"
    claims = tuple(SimpleNamespace(rule=r) for r in (rule, rule, other))
    shown, lines = pages._letters(claims, "x")
    assert shown == {rule: "B", other: "C minus d. A."}
    assert lines == ["- **A**: *Shown*: above 0.1. Otherwise *not shown*.\n", "- **B**: A minus b. A.\n"]
