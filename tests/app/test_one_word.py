"""A decision has one name: on cards, in JSON, filters and tables, on buttons, and in texts and docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from seewhy.explanation.prediction import Certainty, Decision, Prediction, Ranked
from seewhy.language.annotation.records import DECISIONS, OPEN
from seewhy.language.outputs import CorrectedOutput
from seewhy.report.blocks import spoken
from seewhy.report.card import UNKNOWN, sign_of
from seewhy.service.app.base import render, templates
from seewhy.service.app.browse import ManyBody
from seewhy.service.app.deciding import DecisionBody
from seewhy.service.app.map import DECIDED

ROOT = Path(__file__).resolve().parents[2]
RETIRED = (
    r"\bone of few\b", r"\bput(s|ting)? off\b", r"[\"'=](later|confirmed|corrected|dropped|open)[\"'>].*decision",
    r"decision.*[\"'](later|confirmed|corrected|dropped|open)[\"']", r"\b(Confirmed as|Corrected to|Put off)\b",
    r"\bcorrect, confirm\b",
)  # fmt: skip
SOURCES = [
    path for folder in ("src/seewhy", "docs") for kind in ("py", "js", "html", "toml", "md")
    for path in sorted((ROOT / folder).rglob(f"*.{kind}")) if path.name != "writing.md"
]  # fmt: skip


def test_no_source_has_a_retired_word() -> None:
    assert re.search(RETIRED[3], 'if decision == "later"'), "the patterns find what they are for"
    assert re.search(RETIRED[2], '<option value="open">decision'), "the patterns find what they are for"
    found = [
        (str(path.relative_to(ROOT)), number)
        for path in [*SOURCES, ROOT / "README.md"]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if any(re.search(pattern, line, re.IGNORECASE) for pattern in RETIRED)
    ]
    assert found == []


@pytest.mark.parametrize("verdict", get_args(Certainty))
@pytest.mark.parametrize("classes", [("moss",), ("moss", "rust"), ("moss", "rust", "sky")])
def test_a_verdict_is_one_word_on_the_card_in_json_and_in_the_filter(verdict: Certainty, classes: tuple) -> None:
    decision = Decision(verdict, "", classes, 0.9, probability=0.8, n_classes=3)
    assert sign_of(decision)[1] == verdict.capitalize()
    line = repr(Prediction("1.png", (Ranked("moss", 0.5), Ranked("rust", 0.3)), 3, decision))
    assert line.count(verdict) == 1
    assert UNKNOWN.lower() in get_args(Certainty)


def test_what_people_decide_is_one_word_in_json_tables_filters_and_on_the_map() -> None:
    assert set(get_args(ManyBody.model_fields["decision"].annotation)) == {*DECISIONS, "undo"}
    assert set(get_type_hints(CorrectedOutput)) == {*DECISIONS, "file", "outdated", "n"}
    assert all(name in str(DecisionBody.model_fields["decision"].description) for name in DECISIONS)
    assert (OPEN, *DECISIONS) == DECIDED
    page = render(
        "browse.html", n=1, classes=[], verdicts=get_args(Certainty), findings={}, sorts=[], words=False,
        decisions=True, labels=[], here="browse", browse="x", corrects=True,
    )  # fmt: skip
    offered = re.search(r'<select name="decision">(.*?)</select>', page)
    assert offered is not None
    options = re.findall(r'<option value="(\w+)">([^<]+)<', offered[1])
    assert options == [(name, spoken(name)) for name in DECIDED]
    buttons = re.findall(r'<button type="button" value="(\w+)"[^>]*>([^<]+?) ?(?:the label)?<', page)
    assert buttons == [*((name, verb) for name, verb in _in_order(buttons)), ("undo", "Undo")]


def test_the_buttons_beside_a_picture_say_the_same_words() -> None:
    controls = templates().get_template("deciding.html").module.controls("k", "moss", "sky", "1.png")  # type: ignore[attr-defined]
    buttons = re.findall(r'<button type="button" value="(\w+)"[^>]*>([^<]+)<', str(controls))
    verbs = [(name, f"{DECISIONS[name]} {label}") for name, label in (("kept", "moss"), ("changed", "sky"))]
    assert set(verbs) < set(buttons)
    assert {("postponed", DECISIONS["postponed"]), ("left_out", DECISIONS["left_out"])} < set(buttons)


def _in_order(buttons: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, DECISIONS[name]) for name, _ in buttons if name in DECISIONS]


def test_only_the_change_that_a_finding_proposes_is_a_filled_button() -> None:
    style = str(templates().get_template("deciding.html").module.style())  # type: ignore[attr-defined]
    filled = [line for line in style.splitlines() if "button" in line and "background: var(--ink)" in line]
    assert filled
    assert all(line.startswith(".report.wrong .decide button[data-label]") for line in filled), "not beside a mistake"
