"""The app's pages in a real browser: one header, folded filters, a map that fits the window, and the keys behind ?."""

from __future__ import annotations

from typing import Any

import pytest

from browser import NEEDS_BROWSER, Browser, until

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]

TOP = "document.querySelector('%s').getBoundingClientRect().%s"
PAGES = ("", "browse", "map", "mistakes", "next", "help")


@pytest.fixture
def tab() -> Any:
    pytest.importorskip("websocket", reason="websocket-client is not installed, so the browser cannot be spoken to")
    with Browser() as one:
        yield one


@pytest.mark.parametrize(("width", "most"), [(1280, 300), (390, 420)])
def test_the_first_tile_and_the_map_are_in_the_window(tab: Browser, grid: str, width: int, most: int) -> None:
    tab.open(f"{grid}/browse", width)
    until(tab, "!!document.querySelector('.cell .what')?.textContent")
    assert tab.run(TOP % (".cell", "top")) <= most
    assert tab.run("getComputedStyle(document.querySelector('#filters .fields')).display") == "grid"
    assert tab.run("document.querySelector('#filters').open") is False
    tab.open(f"{grid}/map", width)
    assert tab.run(TOP % (".map", "bottom")) <= 900
    assert tab.run(TOP % (".map", "height")) >= 250
    heads = []
    for page in PAGES:
        tab.open(f"{grid}/{page}", width)
        heads.append((tab.run(TOP % (".bar-top", "bottom")), round(tab.run(TOP % ("h1", "top")))))
    assert len({bottom for bottom, _ in heads}) == 1, heads
    assert max(top for _, top in heads) - min(top for _, top in heads) <= 8, heads


def test_a_question_mark_shows_the_keys(tab: Browser, grid: str) -> None:
    key = "new KeyboardEvent('keydown', {key: '?', bubbles: true, cancelable: true})"
    ask = f"document.activeElement.dispatchEvent({key})"
    for page in ("browse", "map", "help"):
        tab.open(f"{grid}/{page}", 1280)
        assert tab.run("document.getElementById('all-keys').open") is False
        tab.run(ask)
        assert tab.run("document.getElementById('all-keys').open"), page
        assert "Space selects" in tab.run("document.getElementById('all-keys').textContent")
        tab.press("Escape")
        until(tab, "!document.getElementById('all-keys').open", 5)
    tab.open(f"{grid}/browse", 1280)
    tab.run("document.getElementById('filters').open = true")
    tab.run("document.querySelector('[name=name]').focus()")
    tab.run(ask)
    assert tab.run("document.getElementById('all-keys').open") is False, "who types a name may type a question mark"


def test_folded_filters_are_counted(tab: Browser, grid: str) -> None:
    tab.open(f"{grid}/browse?right=right&verdict=sure", 1280)
    until(tab, "document.querySelector('#filters summary').textContent === 'Filters (2)'")


def test_a_tile_shows_the_score_and_the_grid_sorts_by_it(tab: Browser, grid: str) -> None:
    tab.open(f"{grid}/browse?sort=score", 1280)
    until(
        tab,
        "document.querySelectorAll('.cell .what').length > 5 && !!document.querySelector('.cell .what').textContent",
    )
    until(tab, "!document.getElementById('count').textContent.includes('still')")
    rows = tab.run("fetch('/rows?sort=score').then((answer) => answer.json()).then((data) => data.rows)")
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores)
    shown = tab.run(
        "[...document.querySelectorAll('.cell')].map((one) =>"
        " [Number(one.dataset.at), one.querySelector('.what').textContent])"
    )
    for at, text in shown:
        row = rows[at]
        score = round(100 * row["score"]) if row["score"] < 0.99 else int(1000 * row["score"]) / 10
        expected = row["title"] if row["verdict"] == "unlike anything it knows" else f"{score:g} % {row['title']}"
        assert text.replace("\u202f", " ") == expected
