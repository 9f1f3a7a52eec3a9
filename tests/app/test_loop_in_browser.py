"""The loop in a real browser: heat where the pointer rests, two people, a killed server, data that change meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from opened_grid import COUNT, asked, listed, opened, select
from served_loop import app_of, corrected
from served_map import serving

from browser import NEEDS_BROWSER, Browser, until
from seewhy.classifiers.base import Classifier
from seewhy.pictures.samples import load_samples
from seewhy.service.app import heats, make_app
from seewhy.service.app.rows import Rows
from tiny import CLASSES, class_folders

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]
HERE = Path(__file__).resolve().parent
TOLD = "document.getElementById('told').value"
SEEN = "!document.getElementById('at').hidden"
SAID = "document.getElementById('at').textContent"
CTRL_A = "document.getElementById('grid').dispatchEvent(new KeyboardEvent('keydown', {key: 'a', ctrlKey: true}))"
NAME = "(() => { const w = document.getElementById('who'); w.value = %s; w.dispatchEvent(new Event('change')); })()"


def corner(tab: Browser, at: int) -> tuple[float, float]:
    x, y = tab.run(
        f"(() => {{ const r = document.querySelector('.cell[data-at=\"{at}\"]').getBoundingClientRect();"
        " return [r.left + 30, r.top + 30]; })()"
    )
    return float(x), float(y)


def point(tab: Browser, x: float, y: float) -> None:
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures whose heat is computed, by a model that takes 0.6 s for each."""
    found: list[str] = []
    real = heats.cases

    def cases(question: Any, seen: Any) -> Any:
        found.append(Path(seen[0].name).name)
        time.sleep(0.6)
        return real(question, seen)

    monkeypatch.setattr(heats, "cases", cases)
    return found


def test_heat_comes_where_the_pointer_rests_and_none_queues_up(tab: Browser, grid: str, made: list[str]) -> None:
    opened(tab, f"{grid}/browse", 24)
    for at in range(9):  # a fast pass, and then a slow one that is longer than the wait before a request
        point(tab, *corner(tab, at))
    for at in range(9, 14):
        point(tab, *corner(tab, at))
        time.sleep(0.3)
    until(tab, SEEN)
    name = tab.run("document.querySelector('.cell[data-at=\"13\"]').title").partition(",")[0]
    assert tab.run("document.querySelector('#at b').textContent") == name
    assert tab.run(SAID).endswith(tab.run("document.querySelector('.cell[data-at=\"13\"] .what').textContent")[-4:])
    assert made[-1] == name
    assert len(made) <= 4, "those passed by are given up"
    tab.run("document.getElementById('grid').dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert not tab.run(SEEN)
    before = len(made)
    point(tab, 5, 5)
    point(tab, *corner(tab, 13))
    until(tab, SEEN)
    assert len(made) == before, "it is kept"
    n = sum("/heat/" in one for one in tab.requests)
    x, y = corner(tab, 13)
    point(tab, x, y + 95)
    time.sleep(0.4)
    assert tab.run(SEEN)
    assert sum("/heat/" in one for one in tab.requests) == n, "the name below it is the same tile"
    assert tab.complaints == []


def test_heat_comes_with_the_keyboard_and_follows_the_focus(tab: Browser, grid: str) -> None:
    opened(tab, f"{grid}/browse", 24)
    tab.run("document.getElementById('view').elements.size.focus()")
    tab.press("Tab")
    tab.press("ArrowRight")
    until(tab, SEEN)
    first = tab.run(SAID)
    tab.press("ArrowRight")
    assert not tab.run(SEEN)
    until(tab, SEEN)
    assert tab.run(SAID) != first
    inside = "(() => { const [a, g] = ['at', 'grid'].map((id) => document.getElementById(id).getBoundingClientRect());"
    assert tab.run(f"{inside} return a.left >= g.left - 1 && a.right <= g.right + 1 && a.top >= g.top - 1; }})()")
    tab.press("Escape")
    assert not tab.run(SEEN)


def test_a_long_press_shows_the_heat_and_opens_nothing(tab: Browser, grid: str) -> None:
    opened(tab, f"{grid}/browse", 24, 390)
    tab.run("document.getElementById('grid').scrollIntoView()")
    tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    x, y = corner(tab, 1)
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    until(tab, SEEN)
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    time.sleep(0.3)
    assert tab.run(SEEN)
    assert tab.run("location.pathname") == "/browse"
    assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    tab.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_a_point_of_the_map_is_shown_with_its_heat(tab: Browser, grid: str, made: list[str]) -> None:
    tab.open(f"{grid}/map", 1100)
    if not tab.run("!!document.createElement('canvas').getContext('webgl')"):
        pytest.skip("this browser has no WebGL")
    until(tab, f"/beside each other\\.|differ most/.test({COUNT})")
    before = len(made)
    tab.run("document.querySelector('#map canvas').focus()")
    tab.press("Enter")
    until(tab, f"{SEEN} && /labelled .*predicted /.test({SAID})")
    assert len(made) == before, "the picture comes at once, and its heat later"
    until(tab, f"{SAID}.includes('Heat for the prediction')")
    assert len(made) <= before + 1
    assert tab.run("document.querySelector('#at img').src").startswith("blob:")
    name = tab.run("document.querySelector('#at b').textContent")
    tab.press("Escape")
    assert not tab.run(SEEN)
    tab.press("Enter")
    until(tab, f"{SEEN} && {SAID}.includes({json.dumps(name)}) && {SAID}.includes('Heat for the prediction')")


def press(tab: Browser, decision: str, name: str, label: str = "") -> None:
    """Without waiting for what comes of it."""
    tab.run(NAME % json.dumps(name))
    tab.run(f"document.getElementById('new-label').value = {json.dumps(label)}")
    tab.run(f"document.querySelector('#selection [value={decision}]').click()")


def test_two_people_decide_on_overlapping_selections(two: tuple[Browser, Browser], tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 8)
    before = listed(data)
    with serving(app_of(data, tmp_path / "decided")) as address:
        for tab, name, first, last in zip(two, ("Ann", "Bo"), (0, 6), (11, 17), strict=True):
            opened(tab, f"{address}/browse", 24)
            select(tab, first, last)
            assert tab.run("document.getElementById('selected').value") == "12 selected", name
        press(two[0], "changed", "Ann", "sky")
        press(two[1], "left_out", "Bo")
        for tab in two:
            until(tab, f"{TOLD} !== ''")
        told = [tab.run(TOLD) for tab in two]
        rows = asked(f"{address}/rows")["rows"]
        authors = [row["author"] for row in rows]
        assert authors[:6] == ["Ann"] * 6
        assert authors[12:18] == ["Bo"] * 6
        assert set(authors[6:12]) <= {"Ann", "Bo"}, "nothing is lost"
        assert all(len(asked(f"{address}/history/{row['key']}")) == 1 for row in rows[:18]), "nor overwritten"
        for said, name, other in zip(told, ("Ann", "Bo"), ("Bo", "Ann"), strict=True):
            n = authors.count(name)
            assert said.startswith(f"{n} "), said
            assert (f"{12 - n} not: " in said) == (f"{other} decided in between" in said) == (n < 12), said
        assert any("decided in between" in said for said in told)
        two[1].run("location.reload()")
        until(two[1], "document.querySelectorAll('.cell.decided').length === 18")
    assert listed(data) == before


def test_a_selection_is_undone_and_outlives_a_card_and_a_reload(tab: Browser, tmp_path: Path) -> None:
    app = app_of(class_folders(tmp_path / "data", 8), tmp_path / "decided")
    selected = "document.getElementById('selected').value"
    with serving(app) as address:
        opened(tab, f"{address}/browse?decision=undecided", 24)
        select(tab, 3, 6)
        press(tab, "changed", "Ann", "sky")
        until(tab, f"{COUNT} === '20 of 24 pictures' && {TOLD} === '4 changed. '")
        press(tab, "undo", "Ann")  # they are no longer in the view
        until(tab, f"{COUNT} === '24 pictures' && {TOLD} === '4 undone. '")
        tab.run("document.getElementById('grid').focus()")
        tab.press("ArrowRight")
        tab.press("Enter")
        until(tab, "location.pathname.startsWith('/card/')")
        for back in ("history.back()", "location.reload()"):
            tab.run(f"window.left = true; {back}")
            until(tab, f"!window.left && location.search === '?decision=undecided' && {selected} === '4 selected'")
            until(
                tab,
                "document.activeElement?.getAttribute('aria-activedescendant') === 'picture-7' || "
                "document.querySelector('.cell.at')?.dataset.at === '7' && document.activeElement.id === 'grid'",
            )
        tab.run("window.left = true; location.href = '/browse?label=mos'")
        until(tab, f"!window.left && {COUNT} === \"No picture has the class 'mos'. Did you mean 'moss'?\"")
        assert tab.run(selected) == "", "another view begins anew"
        opened(tab, f"{address}/browse", 24)
        select(tab, 0, 1)
        app.state.seewhy.rows.digest = "as after a start with other data"
        press(tab, "left_out", "Ann")
        until(tab, f"{TOLD}.startsWith('The server was started again and the data have changed')")
        until(tab, "/Reload this page/.test(document.getElementById('changed').textContent)")
        assert asked(f"{address}/rows?decision=left_out&count=0")["n"] == 0


def test_a_selection_is_downloaded_as_a_table(two: tuple[Browser, Browser], tmp_path: Path) -> None:
    tab, kept = two[0], tmp_path / "downloads"
    kept.mkdir()
    with serving(app_of(class_folders(tmp_path / "data", 8), tmp_path / "decided")) as address:
        opened(tab, f"{address}/browse", 24)
        tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(kept))
        select(tab, 2, 9)
        tab.run("document.getElementById('list').click()")
        for _ in range(100):
            if (kept / "selection.csv").exists():
                break
            time.sleep(0.1)
    assert len(load_samples(kept / "selection.csv").items) == 8


Serve = Callable[[int], tuple[subprocess.Popen[str], str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts the page of ``data`` with its decisions, on a port."""
    started: list[subprocess.Popen[str]] = []
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])

    def start(port: int) -> tuple[subprocess.Popen[str], str]:
        what = [str(HERE / "served_loop.py"), str(tmp_path / "data"), str(tmp_path / "decided"), str(port)]
        server = subprocess.Popen(
            [sys.executable, *what], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        started.append(server)
        assert server.stdout is not None
        return server, server.stdout.readline().strip().rstrip("/")

    yield start
    for server in started:
        server.kill()
        server.communicate()


def n_decided(folder: Path) -> int:
    """As another process reads them."""
    # Not read-only: a killed writer's journal is rolled back.
    with contextlib.closing(sqlite3.connect(f"file:{folder}/decisions.sqlite?mode=rw", uri=True, timeout=0.1)) as file:
        return int(file.execute("SELECT count(*) FROM versions").fetchone()[0])


def test_a_killed_server_loses_no_decision_and_the_page_goes_on(tab: Browser, serve: Serve, tmp_path: Path) -> None:
    """Killed in the middle of 150 decisions, and again while it fits."""
    data, decided = class_folders(tmp_path / "data", 150, CLASSES), tmp_path / "decided"
    before = listed(data)
    server, address = serve(0)
    port = int(address.rpartition(":")[2])
    opened(tab, f"{address}/browse?label=moss", 150)
    tab.run("document.getElementById('grid').focus()")
    tab.press("End", shift=True)  # farther than what was loaded
    until(tab, "document.getElementById('selected').value === '150 selected'")
    tab.press("Home")
    press(tab, "changed", "Ann", "rust")
    end, n = time.monotonic() + 60, 0
    while n < 10 and time.monotonic() < end:  # stopped while we look, however slow this machine is
        server.send_signal(signal.SIGCONT)
        time.sleep(0.01)
        server.send_signal(signal.SIGSTOP)
        with contextlib.suppress(sqlite3.OperationalError):  # stopped while it wrote
            n = n_decided(decided)
    server.kill()
    server.wait()
    n = n_decided(decided)
    assert 10 <= n < 150, "killed in the middle"
    until(tab, f"{TOLD}.startsWith('The server stopped answering. Some of these decisions may be saved')")
    server, _ = serve(port)
    until(tab, f"/^150 of 600 pictures$/.test({COUNT})", 120)
    until(tab, "document.querySelectorAll('.cell.decided').length > 5")
    assert asked(f"{address}/rows?decision=changed&count=0")["n"] == n
    assert tab.run("document.getElementById('selected').value") == "150 selected"
    press(tab, "changed", "Ann", "rust")
    until(tab, f"{TOLD} === '150 changed. '")
    assert n_decided(decided) == 150, "each once"

    tab.open(f"{address}/refit", 1100)
    tab.run("document.getElementById('refit-start').click()")
    while (state := asked(f"{address}/refit/state"))["running"] is None:
        assert not state["done"], "killed too late"
    server.kill()
    server.wait()
    until(tab, "/does not answer/.test(document.getElementById('refit-told').value)")
    serve(port)
    until(tab, "/this result is lost. Start it again/.test(document.getElementById('refit-told').value)")
    while (left := asked(f"{address}/rows?count=0"))["done"] < left["of"]:
        time.sleep(0.1)
    tab.run("document.getElementById('refit-start').click()")
    until(tab, "!!document.getElementById('before-and-after')", 120)
    assert n_decided(decided) == 150
    assert listed(data) == before


def test_a_view_that_nothing_matches_yet_fills_as_pictures_are_predicted(
    tab: Browser, fitted: Classifier, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Rows.start
    monkeypatch.setattr(Rows, "start", lambda _: None)
    app = make_app(fitted, data=load_samples(folders))
    with serving(app) as address:
        tab.open(f"{address}/browse?predicted=rust", 1100)
        until(tab, f"{COUNT} === '0 of 24 pictures; 24 still to be looked at'")
        start(app.state.seewhy.rows)
        until(tab, f"{COUNT} === '8 of 24 pictures'", 20)


def test_data_that_change_under_an_open_page(tab: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture deleted, one replaced, one renamed, one new; the grid, a card and the map are open."""
    monkeypatch.setattr("seewhy.service.app.folders.SECONDS", 0.0)
    data = class_folders(tmp_path / "data", 6)
    corrections = corrected(data, tmp_path / "decided")
    files = [Path(item.image) for item in corrections.data.items]
    with serving(app_of(data, tmp_path / "decided")) as address:
        opened(tab, f"{address}/browse", 18)
        card = asked(f"{address}/sample/1?format=json")["card"]
        files[0].unlink()
        files[1].write_bytes(files[-1].read_bytes())
        files[2].rename(files[2].with_name("renamed.png"))
        files[3].with_name("new.png").write_bytes(files[3].read_bytes())
        changed = listed(data)
        cases = (
            (0, "is no longer in its folder"),
            (1, "has changed since the page"),
            (2, "is no longer in its folder"),
        )
        for at, says in cases:
            point(tab, *corner(tab, at))
            until(tab, f"{SEEN} && {SAID}.includes({json.dumps(says)})")
            assert tab.run("document.querySelector('#at img').hidden"), "nothing is drawn"
        said = "document.getElementById('changed').textContent"
        until(tab, f"{said}.includes('page was started: 2 new pictures, 2 missing pictures, 1 changed picture. Start')")
        tab.run(CTRL_A)
        until(tab, "document.getElementById('selected').value === '18 selected'")
        press(tab, "left_out", "Ann")
        until(tab, f"{TOLD} !== ''")
        assert tab.run(TOLD).startswith("15 left out. 3 not: "), tab.run(TOLD)
        for i, says in cases:
            tab.open(f"{address}/sample/{i}", 1100)
            assert says in tab.run("document.body.textContent")
        tab.open(f"{address}{card}", 1100)
        assert files[1].name in tab.run("document.body.textContent"), "an open card stays: it is in memory"
        for path in ("map", "mistakes", "points", "column?name=label", "tiles?places=0,1,2", "selection.csv?places=0"):
            with urlopen(f"{address}/{path}", timeout=60) as answer:
                assert answer.status == 200
    assert listed(data) == changed, "and nothing of the user's was written"
