"""What next in a real browser: work is followed to its end, pictures get labels, a class opens in the grid."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opened_grid import asked
from served_map import serving

from browser import NEEDS_BROWSER, Browser, until
from seewhy.classifiers.base import Classifier
from seewhy.errors import InputError
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import Sample, load_samples
from seewhy.service.app import Settings, make_app

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]
TOLD = "document.getElementById('told').value"


@pytest.fixture
def corrections(folders: Path, tmp_path: Path) -> Corrections:
    """Four of the eight pictures of moss are called sky; four of rust have no label."""
    items = [
        replace(s, label="sky") if s.label == "moss" and s.image[-5] in "0123" else s
        for s in load_samples(folders).items
        if s.label != "rust" or s.image[-5] in "0123"
    ]
    bare = tuple(Sample(str(folders / "rust" / f"rust_{i}.png")) for i in range(4, 8))
    return Corrections(
        LabelledData(folders, tuple(items), unlabelled=bare), open_decisions(tmp_path, ("moss", "rust", "sky"))
    )


@pytest.fixture
def address(fitted: Classifier, folders: Path, corrections: Corrections) -> Iterator[str]:
    data = corrections.data
    samples = replace(load_samples(folders), items=data.items)
    bare = replace(samples, items=data.unlabelled)
    app = make_app(fitted, Settings(), data=samples, corrections=corrections, unlabelled=bare)
    with serving(app) as found:
        yield found


def opened(tab: Browser, address: str, width: int = 1100, dark: bool = False) -> None:
    """The page once all pictures were looked at."""
    for _ in range(60):
        tab.open(f"{address}/next", width, dark)
        if tab.run("document.querySelectorAll('.to-label li').length === 4"):
            return
    raise AssertionError("the pictures were not looked at")


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, True)])
def test_it_is_worked_out_and_a_class_opens_in_the_grid(tab: Browser, address: str, width: int, dark: bool) -> None:
    opened(tab, address, width, dark)
    tab.run("/Work it out again/.test(document.body.textContent) || document.getElementById('refit-start').click()")
    until(tab, "document.getElementById('refit').dataset.running !== 'yes'")  # else the page is loaded once more
    until(tab, "/Work it out again/.test(document.body.textContent) && !!document.querySelector('.weak a[data-wrong]')")
    until(tab, "document.readyState === 'complete'")  # clicked before its script runs, a link selects nothing
    assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    until(tab, "[...document.querySelectorAll('.next img')].every((i) => i.loading === 'lazy' && i.alt)")
    wrong = tab.run("document.querySelector('.weak a[data-wrong]').dataset.wrong.split(',').length")
    label = tab.run("document.querySelector('.weak a[data-wrong]').textContent")
    tab.run("document.querySelector('.weak a[data-wrong]').click()")
    until(tab, f"location.pathname === '/browse' && document.getElementById('selected')?.value === '{wrong} selected'")
    assert tab.run("document.querySelector('[name=label]').value") == label
    assert tab.complaints == []
    opened(tab, address, width, dark)
    tab.run("(() => { const link = document.createElement('a'); link.dataset.wrong = ''; document.body.append(link);"
            " link.click(); })()")  # fmt: skip
    assert json.loads(tab.run("sessionStorage.getItem('seewhy selection')"))["places"] == [], "a class without mistakes"


def test_work_is_followed_after_a_reload_and_says_what_went_wrong(
    tab: Browser, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def run(*given: Any) -> None:
        for _ in given[-1].track([0, 1], "Counting", 2):
            go.wait(60)
        raise InputError("There is nothing to count. Add pictures.")

    monkeypatch.setattr("seewhy.service.app.next.what_next", run)
    opened(tab, address)
    said, button = "document.getElementById('refit-told').value", "document.getElementById('refit-start')"
    tab.run(f"{button}.click()")
    for again in (True, False):
        until(tab, f"!window.left && {said} === 'Counting: 0 of 2' && {button}.disabled")
        if again:
            tab.run("window.left = true; location.reload()")
    go.set()
    until(tab, f"{said} === 'There is nothing to count. Add pictures.' && !{button}.disabled")
    assert tab.complaints == []


def test_pictures_get_labels_one_by_one_and_together_with_the_keyboard(
    tab: Browser, address: str, corrections: Corrections
) -> None:
    opened(tab, address)
    tab.run("document.querySelector('.to-label button').focus()")
    tab.run("localStorage.clear(); document.getElementById('who').value = ''")
    tab.press("Enter")
    until(tab, f"{TOLD} === 'Type your name first.'")
    assert tab.run("document.activeElement.id") == "who"
    tab.run("document.getElementById('who').value = 'Ann'; document.querySelector('.to-label button').focus()")
    first = tab.run("document.activeElement.value")
    tab.press("Enter")
    until(tab, f"{TOLD}.startsWith('1 saved.')")
    assert tab.run("document.querySelector('.to-label li.done [aria-pressed=true]').value") == first
    assert [d["label"] for d in corrections.decisions.standing().values()] == [first]
    tab.run("document.querySelectorAll('.to-label button')[1].click()")
    until(tab, "document.querySelectorAll('.to-label [aria-pressed=true]').length === 1 && document.querySelectorAll("
               "'.to-label button')[1].ariaPressed === 'true'")  # fmt: skip
    tab.run("document.getElementById('every').click()")
    until(tab, f"{TOLD} === '4 selected'")
    tab.run("document.querySelector('#label .selection [value=changed]').click()")
    until(tab, f"{TOLD} === 'Type the label first.'")
    tab.run("document.getElementById('new-label').value = 'rust'")
    tab.run("document.querySelector('#label .selection [value=changed]').click()")
    until(tab, f"{TOLD} === '4 saved. Reload the page for the next pictures.'")
    assert {d["label"] for d in corrections.decisions.standing().values()} == {"rust"}
    opened_again = "document.querySelectorAll('.to-label li').length"
    tab.open(f"{address}/next", 1100)
    assert tab.run(opened_again) == 0
    assert "0 of 4 unlabelled pictures are still to be labelled" in tab.run(
        "document.getElementById('label').textContent"
    )
    assert tab.complaints == []


def test_an_unknown_label_is_refused_and_an_undone_one_is_open_again(
    tab: Browser, address: str, corrections: Corrections
) -> None:
    opened(tab, address)
    tab.run("document.getElementById('who').value = 'Bo'; document.querySelector('.to-label input').click()")
    tab.run("document.getElementById('new-label').value = 'granite'")
    tab.run("document.querySelector('#label .selection [value=changed]').click()")
    until(tab, f"/The label must be one of 3 classes, got .granite./.test({TOLD})")
    assert tab.run("document.querySelectorAll('.done').length") == 0
    assert tab.run("document.getElementById('every').indeterminate"), "one of four"
    place = tab.run("Number(document.querySelectorAll('.to-label li')[1].dataset.index)")
    asked(f"{address}/decide-many", {"author": "Ann", "decision": "left_out", "places": [place]})
    tab.run("document.querySelectorAll('.to-label li')[1].querySelector('button').click()")
    until(tab, "document.querySelectorAll('.to-label output')[1].value === 'Ann decided in between: left out.'")
    asked(f"{address}/decide-many", {"author": "Ann", "decision": "undo", "places": [place], "bases": {place: 1}})
    tab.run("document.querySelector('.to-label button').click()")
    until(tab, "document.querySelectorAll('.done').length === 1")
    tab.run("document.querySelector('.to-label input').click()")
    tab.run("document.querySelector('#label .selection [value=undo]').click()")
    until(tab, "document.querySelectorAll('.done').length === 0")
    assert {d["decision"] for d in corrections.decisions.standing().values()} == {"undecided"}


def test_a_choice_clicked_twice_can_be_undone_and_made_again_after_a_reload(
    tab: Browser, address: str, corrections: Corrections
) -> None:
    opened(tab, address)
    tab.run("document.getElementById('who').value = 'Bo'")
    for _ in range(2):
        tab.run("document.querySelector('.to-label button').click()")
        until(tab, f"{TOLD}.startsWith('1 saved.')")
        tab.run("document.getElementById('told').value = ''")
    tab.run("document.querySelector('.to-label input').click()")
    tab.run("document.querySelector('#label .selection [value=undo]').click()")
    until(tab, "document.querySelectorAll('.done').length === 0")
    opened(tab, address)
    tab.run("document.getElementById('who').value = 'Bo'; document.querySelector('.to-label button').click()")
    until(tab, "document.querySelectorAll('.done').length === 1")
    assert [d["decision"] for d in corrections.decisions.standing().values()] == ["changed"]
    assert tab.complaints == []
