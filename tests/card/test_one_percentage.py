"""One number for one picture: the same on the card, its still, its tile, the app's, in the terminal, and in tables."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")

from seewhy.cli.predict import _csv_lines, _json_lines, _text_lines
from seewhy.explanation.base import Explanation
from seewhy.explanation.prediction import Decision, Prediction
from seewhy.report import index_entry, render_html, render_index, render_png
from seewhy.report.canvas import Canvas
from seewhy.report.card import card_lines
from seewhy.service.app.base import render

OWN = ("58", "30")
"""What the classifier itself says of the first two classes of the card."""


def decided(verdict: Any, probability: float | None) -> Decision:
    interval = None if probability is None else (0.7, 1.0)
    return Decision(verdict, "…", ("tabby cat",), 0.9, probability, interval, fit=0.5, if_known=0.97)


CASES = {
    "measured": (decided("sure", 0.941), "94"),
    "certain": (decided("sure", 0.998), ">99"),
    "doubtful": (decided("not sure", 0.314), "31"),
    "less typical": (decided("not sure", None), None),
    "unlike": (decided("unlike anything it knows", None), None),
    "not measured": (decided("not measured", None), "58"),
    "not asked": (None, "58"),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, full: Explanation) -> tuple[Explanation, str | None]:
    decision, said = CASES[request.param]
    return replace(full, prediction=replace(full.prediction, decision=decision)), said


def numbers(text: str) -> list[str]:
    return re.findall(r"([<>]?\d+)(?:\.\d)?\s?%", unescape(re.sub(r"</?[a-z][^>]*>", "", text)))


def test_all_say_one_number(case: tuple[Explanation, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    why, said = case
    p = why.prediction
    is_open = p.decision is not None and p.decision.is_open
    one = [] if said is None or is_open else [said]  # a question is not right in some of the cases
    card, entry = render_html(why), index_entry(why, "a.html")
    assert numbers(card[card.index("<h1") : card.index("</h1>")]) == one
    tiles = render_index([entry]), render("home.html", **home(entry))
    for page in tiles:
        assert numbers(re.findall(r'<h3>(<span class="name">.*?)</h3>', page, re.DOTALL)[-1]) == one
    (line,) = _text_lines(iter([p]), "predictions")
    assert line.split("\t")[2].strip() == (
        "–" if said is None else f"{'score ' * (p.decision is not None and not p.is_measured)}{said}%"
    )
    assert numbers(next(iter(card_lines(why))).partition(", then")[0]) == one
    drawn: list[str] = []
    plain = Canvas.text
    monkeypatch.setattr(
        Canvas, "text", lambda c, x, y, text, *a, **k: (drawn.append(text), plain(c, x, y, text, *a, **k))[1]
    )
    render_png(why)
    if said is not None and not is_open:
        heading = next(i for i, text in enumerate(drawn) if text == p.label)
        assert numbers(drawn[heading + 1]) == one


def test_the_own_score_is_called_so_wherever_another_stands_above_it(case: tuple[Explanation, str | None]) -> None:
    why, _ = case
    p, card, tile = why.prediction, render_html(why), render_index([index_entry(why, "a.html")])
    own = re.search(r"the classifier's own score: ([^<]*)<", card)
    small = re.search(r'class="second">own score (.*?)</p>', tile)
    printed = [line for line in card_lines(why) if line.strip().startswith("own score")]
    assert bool(own) == bool(small) == bool(printed) == (p.decision is not None)
    if own and small:
        assert numbers(own[1]) == numbers(small[1]) == numbers(printed[0]) == list(OWN)
        assert p.is_measured or f"{p.label}?" in card, "a score that nobody measured stands under a question"
        assert not re.search(r"rather than [^<]*\d", card)
    else:
        assert "rather than red fox, which has" in card


def test_tables_have_it_under_its_name(case: tuple[Explanation, str | None]) -> None:
    p = case[0].prediction
    (row,) = csv.DictReader(_csv_lines(iter([p]), "predictions"))
    (line,) = _json_lines(iter([p]), "predictions")
    data = json.loads(line)
    right = p.decision.probability if p.decision else None
    assert row["right"] == ("" if right is None else str(right))
    assert data.get("decision", {}).get("probability") == right
    assert float(row["score"]) == data["score"] == p.top[0].score


def test_one_class_alone_has_no_percentage(full: Explanation) -> None:
    one = Prediction("a.jpg", full.prediction.top[:1])
    assert one.probability is None
    assert next(iter(_text_lines(iter([one]), "predictions"))) == "a.jpg\ttabby cat\t–\n"


def test_a_prediction_says_both_by_their_names(full: Explanation) -> None:
    measured = replace(full.prediction, decision=CASES["measured"][0])
    assert "tabby cat, sure, right 94.1 %; own scores tabby cat 58" in repr(measured)
    assert "unlike anything it knows, or tabby cat; own scores" in repr(replace(measured, decision=CASES["unlike"][0]))


def home(entry: Any) -> dict[str, Any]:
    model = {"classifier": "linear", "encoder": "tiny", "trained on": "3 pictures"}
    about = {"here": "home", "browse": False, "corrects": False, "model": model, "n_classes": 3}
    return {"entries": [entry], "most": "1", **about}
