"""A decision that is not sure is a question: its first line names the classes, wherever it is shown."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from card.conftest import UNBROKEN
from seewhy.cli.predict import _text_lines
from seewhy.explanation.base import Explanation, Subject
from seewhy.explanation.prediction import Decision, Prediction, Ranked
from seewhy.report import index_entry, render_html, render_index, render_png
from seewhy.report.canvas import Canvas
from seewhy.report.card import card_lines, card_of
from seewhy.report.page import LEVELS, OF_WHAT

TOP = tuple(Ranked(label, score) for label, score in (("Mango", 0.44), ("Lime", 0.29), ("Kiwi", 0.2), ("Fig", 0.07)))
CURE = "Neither? Add pictures of it and fit again: seewhy fit PHOTOS -o MODEL"


def decision(*classes: str, verdict: Any = "not sure", p: float | None = 0.8, **more: Any) -> Decision:
    return Decision(verdict, "…", classes, 0.9, p, fit=0.5, n_classes=4, cure=CURE, **more)


CASES = {
    "two": (decision("Mango", "Lime"), ("Mango", "Lime"), "Mango or Lime?"),
    "three": (decision("Mango", "Kiwi", "Lime"), ("Mango", "Kiwi", "Lime"), "Mango, Kiwi or Lime?"),
    "six of many": (
        replace(decision("Mango", "Lime", "Kiwi", "Fig", "Pear", "Plum"), n_classes=99),
        ("Mango", "Lime", "Kiwi", "Fig", "Pear", "Plum"),
        "Mango, Lime or 4 more?",
    ),
    "all": (decision("Mango", "Lime", "Kiwi", "Fig"), ("Mango", "Lime"), "Mango or Lime?"),
    "one, rarely right": (decision("Mango"), ("Mango", "Lime"), "Mango or Lime?"),
    "one, less typical": (decision("Mango", p=None, if_known=0.95), ("Mango",), "Mango?"),
    "names fit poorly": (
        decision("Mango", verdict="not measured", p=None, fits_poorly=True), ("Mango", "Lime"), "Mango or Lime?",
    ),
    "sure": (decision("Mango", verdict="sure", p=0.97), ("Mango",), "Mango"),
    "not measured": (decision("Mango", verdict="not measured", p=None), ("Mango",), "Mango?"),
    "unknown": (
        decision("Mango", verdict="unlike anything it knows", p=None, if_known=0.8), ("Mango",),
        "Unlike anything it knows",
    ),
    "not asked": (None, ("Mango",), "Mango"),
}  # fmt: skip


def shown(full: Explanation, made: Decision | None, top: tuple[Ranked, ...] = TOP) -> Explanation:
    return replace(full, prediction=replace(full.prediction, top=top, n_classes=4, decision=made), subject=None)


def heading(page: str) -> str:
    return unescape(re.sub(r"<.*?>", "", page[page.index("<h1") : page.index("</h1>")])).strip()


@pytest.mark.parametrize("name", CASES)
def test_the_first_line_is_one_everywhere(name: str, full: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    made, names, title = CASES[name]
    why = shown(full, made)
    assert (why.prediction.names, why.prediction.title) == (names, title)
    page, notebook = render_html(why), why._repr_html_()
    plain = re.sub(r"\s*\d+\s%$", "", heading(page))
    assert plain == title
    assert ("%" in heading(page)) == (name in ("sure", "not asked")), "no figure of one beside several"
    assert title in unescape(unescape(notebook))
    assert f"<title>{title} · " in page
    drawn: list[str] = []
    text = Canvas.text
    monkeypatch.setattr(Canvas, "text", lambda c, x, y, t, *a, **k: (drawn.append(t), text(c, x, y, t, *a, **k))[1])
    render_png(why)
    assert title.split()[0] in " ".join(drawn)
    assert all(word in " ".join(drawn) for word in title.split())
    tile = re.findall(r'<h3><span class="name">(.*?)</span>', render_index([index_entry(why, "a.html")]))
    assert [unescape(one) for one in tile] == [title]
    first = next(iter(card_lines(why)))
    assert title in first
    assert ("not sure" in first.lower()) == (made is not None and made.verdict == "not sure")


def test_the_next_step_compares_the_two(full: Explanation) -> None:
    for name, (made, names, _) in CASES.items():
        card = card_of(shown(full, made))
        is_compared = made is not None and made.verdict == "not sure" and len(names) > 1
        assert card.rival == (names[1] if is_compared else ""), name
        command = f"Is it {names[-1]}? Compare: seewhy … --contrast {names[-1]}"
        if is_compared and len(names) == 2:
            assert str(card.next) == command
            assert f"  next       {command}" in [*card_lines(shown(full, made))]
            assert CURE.partition(":")[0] in render_html(shown(full, made)), "what else to do stands in the details"
        elif made is not None and made.verdict != "sure" and len(names) == 1:
            assert str(card.next) == CURE
    two = shown(full, CASES["two"][0])
    compared = replace(two, subject=Subject("Mango", "Mango", contrast="Lime"))
    assert (card_of(compared).rival, str(card_of(compared).next)) == ("", CURE), "the comparison is on this card"
    spaced = shown(full, decision("Mango", "Passion Fruit"))
    assert str(card_of(spaced).next).endswith("--contrast 'Passion Fruit'")


def test_believable_says_of_what_beside_a_decision_that_is_not_sure(full: Explanation) -> None:
    for name, (made, _, title) in CASES.items():
        why = shown(full, made)
        sure = title == "Mango"
        green = [one for one in card_of(why).evidence if one.verdict.level == "believable" and one.key in OF_WHAT]
        assert green, "the card has such evidence"
        for one in green:
            of_what = "" if sure else f": {OF_WHAT[one.key]}"
            assert one.verdict.word == LEVELS["believable"] + of_what, (name, one.key)
        (line,) = [line for line in card_lines(why) if line.startswith("  where ")]
        assert ("Believable: the network did look here." in line) == (not sure)
        page = render_index([index_entry(why, "a.html")])
        assert ("Where it looked: Believable: the network did look here" in page) == (not sure)


def test_long_names_stay_on_the_card(full: Explanation) -> None:
    long = Ranked(UNBROKEN, 0.4)
    why = shown(full, decision(UNBROKEN, "Lime"), (long, *TOP[1:]))
    assert '<h1 id="decision" class="long">' in render_html(why)
    assert render_png(why)[:4] == b"\x89PNG"


def test_a_line_of_predict_and_a_repr_name_both(full: Explanation) -> None:
    p = Prediction("a.jpg", TOP, 4, CASES["one, rarely right"][0])
    assert next(iter(_text_lines(iter([p]), "predictions"))) == "a.jpg\tMango\t80%\tnot sure: Mango or Lime\n"
    assert "Mango or Lime? not sure, right 80.0 %; own scores Mango 44.0 %, Lime 29.0 %" in repr(p)
