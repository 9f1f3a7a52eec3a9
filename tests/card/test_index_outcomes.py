"""The index of cards names folder and true class, and filters what is right, wrong and not sure."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from browser import NEEDS_BROWSER, Browser
from seewhy.explanation.base import Explanation
from seewhy.explanation.prediction import Decision, Ranked
from seewhy.report import index_entry, render_index
from seewhy.report.overviews import IndexEntry

ROWS = {  # picture: verdict, true class, outcome
    "photos/Mango/1.jpg": ("sure", "Mango", "right"),
    "photos/Lime/day 1/2.jpg": ("sure", "Lime", "wrong"),
    "photos/Lime/3.jpg": ("not sure", "Lime", "wrong"),
    "C:\\photos\\4.jpg": ("not sure", "", ""),
    "photos/Lime/5.jpg": ("unlike anything it knows", "Lime", ""),
}


def entries(full: Explanation) -> list[IndexEntry]:
    top = (Ranked("Mango", 0.6), Ranked("Lime", 0.3))
    made = []
    for n, (name, (verdict, *_)) in enumerate(ROWS.items()):
        decision = Decision(verdict, "…", ("Mango", "Lime"), 0.9, 0.8, if_known=0.8, fit=0.5)  # type: ignore[arg-type]
        prediction = replace(full.prediction, image=name, top=top, n_classes=2, decision=decision)
        made.append(index_entry(replace(full, prediction=prediction), f"{n}.html"))
    return made


def test_folder_and_true_class_stand_on_the_card_of_the_index(full: Explanation) -> None:
    page = render_index(entries(full), classes=("Mango", "Lime"))
    cards = {re.search(r'title="([^"]*)">[^<]*</p>\n</a>', one)[1]: one for one in page.split("<li data-doubt")[1:]}  # type: ignore[index]
    assert set(cards) == set(ROWS)
    for name, (verdict, true, outcome) in ROWS.items():
        card = cards[name]
        assert f'data-outcome="{outcome}|{verdict}"' in card
        said = re.search(r'class="second">((?:Right|Wrong|Labelled)[^<]*)<', card)
        expected = {"right": "Right, labelled Mango", "wrong": "Wrong, labelled Lime"}.get(outcome, "Labelled Lime")
        assert (said and said[1]) == (expected if true else None), name
    assert "photos/Mango/1.jpg</p>" not in page
    assert ">Mango/1.jpg</p>" in page
    options = re.findall(r'<option value="([^"]+)">[^<]*\((\d)\)', page[page.index('id="outcome"') :])
    assert dict(options) == {"right": "1", "wrong": "2", "sure": "2", "not sure": "2", "unlike anything it knows": "1"}
    assert ", labelled " not in render_index(entries(full)), "no class is known"


@pytest.mark.slow
@NEEDS_BROWSER
def test_the_filter_hides_the_others(full: Explanation, tmp_path: Path) -> None:
    pytest.importorskip("websocket", reason="websocket-client is not installed, so the browser cannot be spoken to")
    (tmp_path / "index.html").write_text(render_index(entries(full), classes=("Mango", "Lime")), "utf-8")
    with Browser() as tab:
        tab.open(tmp_path / "index.html", 1280)
        for outcome, n in (("wrong", 2), ("not sure", 2), ("right", 1), ("", 5)):
            tab.run(f"(() => {{ const at = document.getElementById('outcome'); at.value = '{outcome}';"
                    " at.dispatchEvent(new Event('input', {bubbles: true})); })()")  # fmt: skip
            assert tab.run("document.querySelectorAll('.cards > li:not([hidden])').length") == n, outcome
