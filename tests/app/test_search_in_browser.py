"""A picture dropped on the grid, or chosen there, in a real browser."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
from opened_grid import COUNT, asked, listed, opened, select
from PIL import Image
from served_loop import app_of
from served_map import serving

from browser import NEEDS_BROWSER, Browser, until
from tiny import class_folders, picture

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]
LIKED = "document.getElementById('liked')"
LOOKING = "document.getElementById('looking').textContent"
CHOOSE = "document.getElementById('choose')"
FIELDS = """
[...document.querySelectorAll(".filter select, .filter button, .filter input")]
  .map((one) => one.getBoundingClientRect()).filter((one) => one.height)
"""
BRING = """
(() => {
  const carrier = new DataTransfer();
  carrier.items.add(new File([%s], %s));
  document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: carrier}));
})()
"""


def bring(tab: Browser, data: bytes, name: str) -> None:
    tab.run(BRING % (f"Uint8Array.from({list(data)})", json.dumps(name)))


def test_a_view_by_similarity_to_a_picture_that_is_not_there_can_be_left(tab: Browser, grid: str) -> None:
    opened(tab, f"{grid}/browse", 24)
    for gone, says in (("0" * 16, "is no longer in the data. Press Remove"), ("9", "no longer has the picture")):
        tab.open(f"{grid}/browse?like={gone}", 1100)
        until(tab, f"{COUNT}.includes({says!r})")
        assert not tab.run(f"{LIKED}.hidden")
        tab.run("document.getElementById('unlike').click()")
        until(tab, f"{COUNT} === '24 pictures' && {LIKED}.hidden && !location.search")


def test_fields_of_a_row_stand_in_line(tab: Browser, grid: str) -> None:
    for path, width in (("browse", 1440), ("browse", 390), ("map", 1100), ("mistakes", 1100)):
        tab.open(f"{grid}/{path}", width)
        assert tab.run(f"{FIELDS}.map((one) => one.height)") == [43] * tab.run(f"{FIELDS}.length"), path
        tops = sorted(tab.run(f"{FIELDS}.map((one) => one.top)"))
        assert all(b - a < 0.5 or b - a > 43 for a, b in pairwise(tops)), f"{path}, {width}: {tops}"


def test_an_address_is_the_view_it_came_from(tab: Browser, grid: str) -> None:
    address = f"{grid}/browse?right=right&least=0.05&most=0.99&sort=doubt&descending=true"
    tab.open(address, 1100)
    until(tab, f"/^\\d+ (of 24 )?pictures$/.test({COUNT})")
    fields = "['right', 'least', 'most', 'sort'].map((name) => document.getElementById('view').elements[name].value)"
    assert tab.run(fields) == ["right", "5", "99", "-doubt"]
    assert tab.run("location.href") == address
    assert tab.run("document.getElementById('to-map').href") == address.replace("browse", "map")


def test_similar_pictures_come_first_and_the_address_says_so(tab: Browser, grid: str) -> None:
    opened(tab, f"{grid}/browse", 24)
    select(tab, 5, 5)
    chosen = asked(f"{grid}/rows?start=5&count=1")["rows"][0]
    tab.run("document.getElementById('alike').click()")
    until(tab, f"{LIKED}.querySelector('b').textContent === '{chosen['image']}' && {COUNT}.endsWith('similar first')")
    assert tab.run("location.search") == f"?like={chosen['key']}"
    until(tab, f"document.querySelector('.cell[data-at=\"0\"]').href.endsWith('/sample/{chosen['index']}')")
    until(tab, "document.querySelector('.cell[data-at=\"0\"] .name').textContent.startsWith('1.00 · ')")
    tab.run("document.getElementById('unlike').click()")
    until(tab, f"{LIKED}.hidden && !location.search && !{COUNT}.includes('similar')")
    assert tab.run(f"document.activeElement === {CHOOSE}"), "who reads by keys is not lost"


def test_two_people_search_by_pictures_of_their_own(two: tuple[Browser, Browser], tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 8)
    files = sorted(path for path in data.rglob("*.png"))
    before = listed(data)
    with serving(app_of(data, tmp_path / "decided")) as address:
        for tab, source, name in zip(two, (files[3], files[20]), ("my <i>moss.png", "sky.png"), strict=True):
            opened(tab, f"{address}/browse", 24)
            bring(tab, b"a text, no picture", "notes.txt")
            until(tab, f"{LOOKING}.startsWith('notes.txt: ')")
            assert tab.run(f"{LIKED}.hidden")
            bring(tab, source.read_bytes(), name)
        for tab, source, name in zip(two, (files[3], files[20]), ("my <i>moss.png", "sky.png"), strict=True):
            until(tab, f"{LIKED}.querySelector('b').textContent === {json.dumps(name)} && {LOOKING} === ''")
            until(
                tab, f"document.querySelector('.cell[data-at=\"0\"]').title.startsWith('{source.name}, similarity 1')"
            )
            until(tab, f"{LIKED}.querySelector('img').naturalWidth > 0")
            found = tab.run("location.href")
            assert tab.run("location.pathname") == "/browse"
            tab.open(found.replace("?", "?label=rust&"), 1100)
            until(tab, f"{COUNT} === '8 of 24 pictures, most similar first'")
            assert tab.run(f"{LIKED}.querySelector('a').pathname").startswith("/card/")
        tab.run("document.getElementById('view').elements.sort.value = 'label'")
        tab.run("document.getElementById('view').dispatchEvent(new Event('input', {bubbles: true}))")
        until(tab, f"{COUNT} === '8 of 24 pictures'")
        assert not tab.run(f"{LIKED}.hidden")
    assert listed(data) == before


def test_a_picture_is_chosen_with_the_keyboard(tab: Browser, grid: str, tmp_path: Path) -> None:
    opened(tab, f"{grid}/browse", 24)
    tab.call("Page.setInterceptFileChooserDialog", enabled=True)
    tab.run(f"{CHOOSE}.focus()")
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    assert "Search by a picture Choose or drop" in [node.get("name", {}).get("value") for node in tree]
    tab.press("Enter")
    Image.fromarray(picture("rust", 77)).save(tmp_path / "chosen.png")
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "chosen.png")])
    tab.call("Page.setInterceptFileChooserDialog", enabled=False)
    until(tab, f"{LIKED}.querySelector('b').textContent === 'chosen.png'")
    assert tab.run(f"document.activeElement === {CHOOSE}")


def test_a_picture_that_is_too_large_or_a_tile_is_not_searched_by(tab: Browser, grid: str) -> None:
    opened(tab, f"{grid}/browse", 24)
    tab.run(BRING % ("new Uint8Array(40e6)", "'big.png'"))
    until(tab, f"{LOOKING}.startsWith('The request is larger than the limit of 20 MB')")
    tab.run("document.getElementById('looking').textContent = ''")
    tab.run("document.querySelector('.cell').dispatchEvent(new DragEvent('dragstart', {bubbles: true}))")
    tab.run(BRING % ("new Uint8Array(9)", "'tile.png'"))
    assert tab.run(LOOKING) == ""
    tab.run("document.querySelector('.cell').dispatchEvent(new DragEvent('dragend', {bubbles: true}))")
    tab.run(BRING % ("new Uint8Array(9)", "'own.png'"))
    until(tab, f"{LOOKING}.startsWith('own.png: ')")


def test_of_two_pictures_the_last_one_counts(tab: Browser, grid: str) -> None:
    opened(tab, f"{grid}/browse", 24)
    tab.run("""(() => {
      const real = window.fetch;
      window.fetch = async (...all) => {  // the first answer comes last
        if (all[0] !== "/look?format=json") return real(...all);
        window.fetch = real;
        const answer = await real(...all);
        await new Promise((done) => { window.go = done; });
        return answer;
      };
    })()""")
    for name in ("first.png", "second.png"):
        file = io.BytesIO()
        Image.fromarray(picture("rust", 77)).save(file, "PNG")
        bring(tab, file.getvalue(), name)
    until(tab, f"{LIKED}.querySelector('b').textContent === 'second.png' && !!window.go")
    second = tab.run("location.search")
    tab.run("window.go(); new Promise((done) => setTimeout(done, 50))")
    assert tab.run("location.search") == second
