"""The map in a real browser: points are drawn, a lasso selects, pointing at a point names its picture."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served_map import filled, serving

from browser import NEEDS_BROWSER, Browser, until
from seewhy.classifiers.base import Classifier

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]
WEBGL = "!!document.createElement('canvas').getContext('webgl')"
READY = "/Similar pictures are beside each other|differ most/.test(document.getElementById('count').textContent)"


@pytest.fixture(scope="module")
def address(fitted: Classifier, folders: Path) -> Iterator[str]:
    """300 rows in three clouds; without the extra, so that the map is the same wherever this runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openTSNE", None)
        with serving(filled(fitted, next((folders / "rust").iterdir()), 300, 8)) as found:
            yield found


@pytest.fixture
def webgl(tab: Browser) -> None:
    if not tab.run(WEBGL):
        pytest.skip("this browser has no WebGL")


def opened(tab: Browser, address: str, width: int = 1100, dark: bool = False) -> tuple[int, int, int, int]:
    """Where the canvas is, once the map is done: left, top, width, height."""
    tab.open(address, width, dark)
    until(tab, READY)
    until(tab, "document.querySelectorAll('#legend li').length > 1")
    time.sleep(0.3)
    corner = "(() => { const r = document.querySelector('#map canvas').getBoundingClientRect();"
    left, top, wide, high = tab.run(f"{corner} return [r.left, r.top + scrollY, r.width, r.height]; }})()")
    return int(left), int(top), int(wide), int(high)


def vivid(tab: Browser, place: tuple[int, int, int, int]) -> np.ndarray:
    """Which pixels of the canvas have a colour rather than a grey, as the screen shows them."""
    left, top, wide, high = place
    shot = np.asarray(Image.open(io.BytesIO(tab.picture())).convert("RGB")).astype(int)
    part = shot[top + 2 : top + high - 2, left + 2 : left + wide - 2]
    return part.max(2) - part.min(2) > 60


def complaints(tab: Browser) -> list[str]:
    """Without the software driver's own, about the screenshots that the tests take."""
    return [one for one in tab.complaints if "ReadPixels" not in one and "no longer repeat" not in one]


def mouse(tab: Browser, kind: str, x: float, y: float, **more: Any) -> None:
    scrolled = tab.run("scrollY")
    tab.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y - scrolled, **more)


def around(tab: Browser, corners: list[tuple[float, float]]) -> None:
    """Draw a line with Shift held down."""
    held: dict[str, Any] = {"button": "left", "buttons": 1, "modifiers": 8}
    mouse(tab, "Pressed", *corners[0], clickCount=1, **held)
    for a, b in pairwise(corners):
        for t in (0.5, 1):
            mouse(tab, "Moved", a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), **held)
    mouse(tab, "Released", *corners[-1], clickCount=1, **{**held, "buttons": 0})


def whole(place: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    left, top, wide, high = place
    x, y, right, low = left + 3, top + 3, left + wide - 3, top + high - 3
    return [(x, y), (right, y), (right, low), (x, low)]


@pytest.mark.usefixtures("webgl")
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False)])
def test_points_are_drawn_in_the_colours_of_the_legend(tab: Browser, address: str, width: int, dark: bool) -> None:
    place = opened(tab, f"{address}/map", width, dark)
    assert vivid(tab, place).sum() > 1000
    assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    legend = tab.run("document.getElementById('legend').textContent")
    assert all(name in legend for name in ("moss", "rust", "sky"))
    assert "pip install 'seewhy[map]'" in tab.run("document.getElementById('note').textContent")
    assert complaints(tab) == []


@pytest.mark.usefixtures("webgl")
def test_a_lasso_selects_and_the_grid_takes_the_selection(tab: Browser, address: str) -> None:
    place = opened(tab, f"{address}/map")
    around(tab, whole(place))
    until(tab, "document.getElementById('selected').value === '300 selected'")
    tab.run("document.querySelector('#map canvas').focus()")
    tab.press("Escape")
    assert tab.run("document.getElementById('selection').hidden")
    tab.run("document.querySelectorAll('#legend button')[0].click()")
    around(tab, whole(opened_again(tab)))
    n = tab.run("parseInt(document.getElementById('selected').value)")
    assert 60 < n < 140, "only points of one class, the others are faint"
    tab.run("document.getElementById('open').click()")
    until(tab, f"location.pathname === '/browse' && document.getElementById('selected')?.value === '{n} selected'")
    assert complaints(tab) == []


def opened_again(tab: Browser) -> tuple[int, int, int, int]:
    """The canvas where it is now: the legend may have grown."""
    script = "(() => { const r = document.querySelector('#map canvas').getBoundingClientRect(); "
    left, top, wide, high = tab.run(script + "return [r.left, r.top + scrollY, r.width, r.height]; })()")
    return int(left), int(top), int(wide), int(high)


@pytest.mark.usefixtures("webgl")
def test_filters_of_the_grid_leave_the_others_faint(tab: Browser, address: str) -> None:
    opened(tab, f"{address}/map")
    every = vivid(tab, opened_again(tab)).sum()
    # Sorting, and a search for a picture that is gone, are the grid's own.
    place = opened(tab, f"{address}/map?label=rust&like={'f' * 16}&sort=doubt&descending=true")
    assert 0 < vivid(tab, place).sum() < 0.7 * every
    assert "match the filters of the grid" in tab.run("document.getElementById('count').textContent")
    around(tab, whole(place))
    n = tab.run("parseInt(document.getElementById('selected').value)")
    assert n == tab.run("fetch('/rows?label=rust&count=0').then((a) => a.json()).then((d) => d.n)")


@pytest.mark.usefixtures("webgl")
def test_a_quantity_is_drawn_from_its_low_to_its_high_colour(tab: Browser, address: str) -> None:
    opened(tab, f"{address}/map")
    tab.run("Points.prototype.paint = (colours) => { window.painted = [...colours]; }")
    tab.run("(() => { const by = document.getElementById('by'); by.value = 'score';"
            " by.dispatchEvent(new Event('change')); })()")  # fmt: skip
    until(tab, "!!window.painted && document.getElementById('legend').textContent === '0\u202f%100\u202f%' || "
               "document.getElementById('legend').textContent === '0\u00a0%100\u00a0%'")  # fmt: skip
    ends = tab.run("['at', 0, -1].slice(1).map((k) => document.getElementById('map').dataset.ramp.split(' ').at(k))")
    n = tab.run("painted.length / 4")
    drawn = [tab.run(f"painted.slice({4 * i}, {4 * i + 3})") for i in (0, n - 1)]
    assert ["#" + bytes(colour).hex() for colour in drawn] == [end.lower() for end in ends]


@pytest.mark.usefixtures("webgl")
def test_pointing_at_a_point_names_its_picture(tab: Browser, address: str) -> None:
    left, top, _, _ = place = opened(tab, f"{address}/map")
    rows, columns = vivid(tab, place).nonzero()
    k = len(rows) // 2
    x, y = left + 2 + int(columns[k]), top + 2 + int(rows[k])
    mouse(tab, "Moved", x, y)
    until(tab, "!document.getElementById('at').hidden")
    said = tab.run("document.getElementById('at').textContent")
    assert "labelled " in said
    assert "predicted " in said
    assert tab.run("/^\\/sample\\/\\d+$/.test(new URL(document.querySelector('#at a').href).pathname)")
    mouse(tab, "Moved", left + 4, top + 4)
    until(tab, "document.getElementById('at').hidden")
    assert complaints(tab) == []


@pytest.mark.usefixtures("webgl")
def test_the_keyboard_moves_zooms_and_shows_the_middle(tab: Browser, address: str) -> None:
    place = opened(tab, f"{address}/map")
    tab.run("document.querySelector('#map canvas').focus()")
    before = vivid(tab, place)
    tab.press("ArrowRight")
    time.sleep(0.3)
    moved = vivid(tab, place)
    assert (before[:, 60:] == moved[:, :-60]).mean() > 0.99
    tab.run("document.querySelector('#map canvas').dispatchEvent(new KeyboardEvent('keydown', {key: '+'}))")
    time.sleep(0.3)
    assert (vivid(tab, place) != moved).any()
    tab.press("Enter")
    until(tab, "!document.getElementById('at').hidden")
    tab.press("Escape")
    assert tab.run("document.getElementById('at').hidden")


WATCHED = """(() => {
  [window.drawn, window.uploads] = [[], 0];
  const { bufferData: send, drawArrays: draw } = WebGLRenderingContext.prototype;
  WebGLRenderingContext.prototype.drawArrays = function (...given) {
    drawn.push(given.slice(1)); draw.apply(this, given);
  };
  WebGLRenderingContext.prototype.bufferData = function (...given) { uploads += 1; send.apply(this, given); };
  %s
})()"""
PACE = "Object.assign(Object.create(Points.prototype), {share: 1, slow: 0, fast: 0, patience: 10, tried: 1, scale: 1})"


@pytest.mark.usefixtures("webgl")
def test_slow_frames_draw_fewer_points_until_the_map_rests(tab: Browser, address: str) -> None:
    place = opened(tab, f"{address}/map")
    tab.run("document.querySelector('#map canvas').focus()")  # its outline shows, too
    before = vivid(tab, place)
    tab.run(WATCHED % "Points.prototype.pace = function () { this.share = 0.1; };")
    for key in ("ArrowRight", "ArrowLeft", "ArrowRight", "ArrowLeft") * 3:
        tab.run(f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
    until(tab, "drawn.some(([first, n]) => first === 270 && n === 30) && drawn.at(-1)[1] === 300")
    assert tab.run("uploads") == 0, "what moves is not sent to the graphics card again"
    after = vivid(tab, place)
    assert (before == after).mean() > 0.999, "at rest, all points are drawn again, where they were"


@pytest.mark.usefixtures("webgl")
def test_fast_frames_draw_all_points_while_they_move(tab: Browser, address: str) -> None:
    opened(tab, f"{address}/map")
    tab.run(
        WATCHED % "const pace = Points.prototype.pace; Points.prototype.pace = function () { pace.call(this, 16); };"
    )
    for _ in range(6):
        tab.run("document.querySelector('#map canvas').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))")
    time.sleep(0.4)
    assert {tuple(part) for part in tab.run("drawn")} == {(0, 300)}


def test_the_number_of_moving_points_follows_the_time_of_frames(tab: Browser, address: str) -> None:
    tab.open(f"{address}/map", 1100)

    def paced(times: str) -> float:
        return float(tab.run(f"(() => {{ const p = {PACE}; for (const t of {times}) p.pace(t); return p.share; }})()"))

    assert paced("[50]") == 1, "one slow frame may be chance"
    assert paced("[50, 16, 16, 50]") == 1
    assert paced("[50, 50]") == pytest.approx(0.3)
    assert paced("[33, 16, 33]") < 0.5, "every second frame is slow"
    assert paced("Array(99).fill(500)") == 0.05
    assert paced("[50, 50, ...Array(500).fill(16)]") == 1, "it recovers"
    often = "Array(20).fill([30, 30, ...Array(200).fill(16)]).flat()"
    assert paced(f"[...{often}, 50, 50, ...Array(100).fill(16)]") == paced(f"[...{often}, 50, 50]"), "tried less often"
    zoomed = f"(() => {{ const p = {PACE}; p.patience = 120; p.scale = 2; p.pace(16); return p.patience; }})()"
    assert tab.run(zoomed) == 10, "other points are in sight: tried at once"


@pytest.mark.usefixtures("webgl")
def test_the_last_points_to_be_drawn_are_the_brightest_and_evenly_mixed(tab: Browser, address: str) -> None:
    opened(tab, f"{address}/map")
    sent = tab.run("""(() => {
      const n = 3000, sent = [], points = Object.assign(Object.create(Points.prototype), {
        n, buffers: {}, draw() {}, xy: new Float32Array(2 * n).map((_, k) => k),
        colours: new Uint8Array(4 * n).map((_, k) => (k % 4 < 3 ? Math.floor(k / 400) : k % 28 === 27 ? 255 : 26)),
        sizes: new Uint8Array(n).map((_, k) => k % 251),
        gl: { bindBuffer() {}, bufferData(_, values) { sent.push([...values]); } },
      });
      points.fill();
      return [...sent, ...[points.xy, points.colours, points.sizes].map((values) => [...values])];
    })()""")
    at, colour, size, *given = (np.array(values) for values in sent)
    which = (at.reshape(-1, 2)[:, 0] / 2).astype(int)
    assert sorted(which) == list(range(3000)), "each point once"
    assert (at == given[0].reshape(-1, 2)[which].ravel()).all()
    assert (colour == given[1].reshape(-1, 4)[which].ravel()).all(), "each with its own colour"
    assert (size == given[2][which]).all()
    opacity = colour.reshape(-1, 4)[:, 3]
    assert (np.diff(opacity) >= 0).all(), "the faint ones first"
    bright = which[opacity == 255]
    for m in (50, 100, 300):
        part = np.sort(bright[-m:])
        assert np.diff(part, prepend=0, append=3000).max() < 4 * 3000 / m, f"the last {m} come from all of the rows"


def test_without_webgl_a_sentence_leads_to_the_grid(tab: Browser, address: str) -> None:
    gone = "HTMLCanvasElement.prototype.getContext = () => null"
    added = tab.call("Page.addScriptToEvaluateOnNewDocument", source=gone)
    tab.open(f"{address}/map", 1100)
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
    assert tab.run("document.getElementById('no-gl').checkVisibility()")
    assert tab.run("document.querySelector('#no-gl a').getAttribute('href')") == "/browse"
    assert not tab.run("document.getElementById('mapped').checkVisibility()")
    assert complaints(tab) == []
