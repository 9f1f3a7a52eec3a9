"""The card, the index and the report in a real browser, from the disk, as a person opens them."""

from __future__ import annotations

import io
import itertools
import runpy
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from browser import NEEDS_BROWSER, Browser
from seewhy.evaluation import Report
from seewhy.report import index_entry, render_index, save
from seewhy.report.blocks import Document, Table
from seewhy.storage.output import write_atomic
from seewhy.studies.study import Findings
from seewhy.types import Failure

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every page there is, on the disk, under an awkward name."""
    made = runpy.run_path(str(Path(__file__).parents[1] / "card" / "conftest.py"))
    cards = made["make_cards"]()
    folder = tmp_path_factory.mktemp("a folder with spaces & ümlauts #1")
    paths = {name: save(card, folder / f"{name}.html") for name, card in cards.items()}
    entries = [index_entry(card, f"{name}.html") for name, card in cards.items()]
    failures = [Failure("broken.jpg", "not a picture"), Failure("x" * 300, "y" * 300)]
    paths["index"] = write_atomic(folder / "index.html", render_index(entries, failures))
    paths["report"] = write_atomic(folder / "report.html", Report(made["make_report"]()).to_html())
    report = Report(made["make_report"]())._repr_html_()
    shown = f"<!doctype html><title>n</title><body>{cards['full']._repr_html_()}<p>between</p>{report}"
    paths["notebook"] = write_atomic(folder / "notebook.html", shown)
    return paths


PAGES = ("full", "contrast", "bare", "zero", "hostile", "index", "report")

FAINT_TEXT = """
(() => {
  const numbers = (text) => {
    const parts = (text.match(/[\\d.e-]+/g) || []).map(Number);
    const unit = text.startsWith("color(") ? 255 : 1;
    return [parts[0] * unit, parts[1] * unit, parts[2] * unit, parts[3] ?? 1];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest(".unseen, script, style")) continue;
    const ink = numbers(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink.slice(0, 3)), light(behind(node).slice(0, 3))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    if (ratio < (size >= 24 ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim()}`);
  }
  return faint;
})()
"""

TOO_WIDE = """
[...document.querySelectorAll("body *")].filter((node) => {
  const box = node.getBoundingClientRect();
  return box.width > 0 && box.right > innerWidth + 1 && !node.closest(".wide, svg, .unseen") && node.checkVisibility();
}).map((node) => `${node.tagName}.${node.className}: ${node.getBoundingClientRect().right}`)
"""


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_is_legible_and_complains_of_nothing(
    tab: Browser, pages: dict[str, Path], name: str, dark: bool, width: int
) -> None:
    tab.open(pages[name], width, dark)
    assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert tab.run(TOO_WIDE) == []
    assert tab.run(FAINT_TEXT) == []
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(19, 18, 16)" if dark else "rgb(250, 248, 244)")
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


def test_names_beside_a_wide_matrix_are_not_broken_into_letters(tab: Browser, tmp_path: Path) -> None:
    names = ("cat", "Galia-Melon", "great white shark", "a" * 60, *"bcdefgh")
    matrix = Table(("", *names), [(name, *range(len(names))) for name in names], "matrix")
    page = Findings({}, lambda _: Document("Confusions", "Confusions", [matrix]))
    tab.open(write_atomic(tmp_path / "matrix.html", page.to_html()), 360)
    lines = "[...document.querySelectorAll('.matrix tbody th')].map((one) => Math.round(one.clientHeight / 34))"
    assert max(tab.run(lines)) <= 2
    assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]


@pytest.mark.parametrize("name", PAGES)
def test_everything_to_act_on_or_look_at_has_a_name(tab: Browser, pages: dict[str, Path], name: str) -> None:
    tab.open(pages[name], 1280)
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"link", "button", "slider", "image", "img", "combobox", "navigation", "region", "DisclosureTriangle"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    levels = tab.run("[...document.querySelectorAll('h1,h2,h3')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_slider_moves_the_heat_from_the_keyboard(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["full"], 1280)
    heat = "getComputedStyle(document.querySelector('.photo .heat')).opacity"
    assert tab.run(heat) == "0.75"
    for _ in range(40):
        tab.press("Tab")
        if tab.run("document.activeElement.id") == "heat":
            break
    assert tab.run("document.activeElement.id") == "heat"
    tab.press("Home")
    assert tab.run(heat) == "0"
    tab.press("End")
    assert tab.run(heat) == "1"


def test_a_number_leads_to_its_definition(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["full"], 1280)
    tab.run("document.querySelector('.chart a.def').click()")
    note = tab.run("document.querySelector('.chart a.def').nextElementSibling.textContent")
    assert "Petsiuk" in note, "it opens where the number stands"


def test_the_rule_of_a_verdict_is_one_click_away(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["full"], 1280)
    seen = "document.querySelector('#where details p').checkVisibility()"
    assert tab.run(seen) is False
    tab.run("document.querySelector('#where summary').click()")
    assert tab.run(seen) is True


def test_the_index_sorts_and_filters(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["index"], 1280)
    names = "[...document.querySelectorAll('.cards > li:not([hidden]) > a')].map((a) => a.getAttribute('href'))"
    assert tab.run(names)[-1] == "bare.html"
    choose = (
        "(() => {{ const select = document.querySelector('{}'); select.value = '{}'; "
        "select.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )
    tab.run(choose.format("#sort", "name"))
    assert tab.run(names)[:2] == ["hostile.html", "bare.html"]
    tab.run(choose.format("#class", "tabby cat"))
    assert sorted(tab.run(names)) == ["contrast.html", "full.html", "zero.html"]
    assert tab.run("document.querySelector('output').value") == "3 of 5 shown"


@pytest.mark.parametrize("name", ["full", "index"])
def test_without_a_script_all_is_there_and_nothing_is_dead(tab: Browser, pages: dict[str, Path], name: str) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(pages[name], 1280)
        assert tab.run("[...document.querySelectorAll('.control, .tools')].every((c) => !c.checkVisibility())") is True
        assert tab.run("[...document.querySelectorAll('.cards > li, .evidence > section')].length") >= 3
        if name == "full":
            assert tab.run("getComputedStyle(document.querySelector('.photo .heat')).opacity") == "0.75"
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_notebook_keeps_its_own_looks(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["notebook"], 1000)
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
    frame = tab.run("(() => { const f = document.querySelector('iframe'); return [f.clientWidth, f.clientHeight]; })()")
    assert frame[0] > 900
    assert tab.complaints == []


def test_a_card_takes_the_theme_of_the_notebook_and_not_of_the_system(tab: Browser, pages: dict[str, Path]) -> None:
    for system in (False, True):
        tab.open(pages["notebook"], 1000, system)
        for _ in range(50):
            if tab.run("document.querySelector('iframe').clientHeight") != 820:  # it is drawn
                break
            time.sleep(0.1)
        for ground, is_dark in (("#111111", True), ("#ffffff", False), ("rgb(20 20 20)", True)):
            tab.run(f"document.body.style.backgroundColor = '{ground}'")
            for _ in range(50):
                red = Image.open(io.BytesIO(tab.picture())).convert("RGB").getpixel((14, 300))[0]  # type: ignore[index]
                if (red < 128) == is_dark:
                    break
                time.sleep(0.1)
            assert (red < 128) == is_dark, (system, ground)


def test_a_notebook_has_one_scroll_bar(tab: Browser, pages: dict[str, Path]) -> None:
    """Each frame is as high as its page."""
    heights = "[...document.querySelectorAll('iframe')].map((f) => f.clientHeight)"
    own = {}
    for name in ("full", "report"):
        tab.open(pages[name], 984)
        own[name] = tab.run("Math.ceil(document.documentElement.getBoundingClientRect().height)")
    tab.open(pages["notebook"], 1000)
    for _ in range(50):
        if 820 not in (found := tab.run(heights)):
            break
        time.sleep(0.1)
    assert found == [own["full"], own["report"]]


if __name__ == "__main__":
    with Browser() as tab:
        for job in sys.argv[1:]:
            source, target, width, scheme = job.split(",")
            tab.open(Path(source), int(width), scheme == "dark")
            Path(target).write_bytes(tab.picture())
            print(target, tab.run("[document.documentElement.scrollWidth, innerWidth]"), tab.complaints)
