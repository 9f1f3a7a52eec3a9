"""The page in a real browser: a picture dropped, a word and a place pointed at, words edited."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import NEEDS_BROWSER, Browser, until

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]

DROP = """
(() => {
  const bytes = Uint8Array.from(atob("%s"), (sign) => sign.charCodeAt(0));
  const carrier = new DataTransfer();
  carrier.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  const drop = new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: carrier});
  setTimeout(() => document.body.dispatchEvent(drop), 50);
})()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, photo: Path, command: list[str]) -> Iterator[str]:
    """A page whose words decide, on the embedded encoder, through the real command."""
    folder = tmp_path_factory.mktemp("app")
    words = folder / "words.json"
    words.write_text(
        '{"cat": ["whiskers", "pointed ears"], "dog": ["a long snout", "a hanging tongue"], "bird": ["feathers"]}'
    )
    run = [*command, "app", "--port", "0", "--labels", str(words), "--store", "none"]
    server = subprocess.Popen(run, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.fullmatch(r"SeeWhy is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C stops it\)\n", line)
    assert found is not None, line
    yield found[1]
    server.send_signal(signal.SIGINT)
    server.stdout.close()
    assert server.wait(timeout=30) == 0, "Ctrl-C stops it cleanly"


@pytest.fixture(scope="module")
def card(tab: Browser, address: str, photo: Path) -> str:
    """The address of a dropped picture's card."""
    tab.open(address, 1200)
    tab.run(DROP % base64.b64encode(photo.read_bytes()).decode())
    until(tab, "location.pathname.startsWith('/card/') && document.readyState === 'complete'")
    return str(tab.run("location.href"))


def test_a_dropped_picture_becomes_a_measured_card(tab: Browser, address: str, card: str) -> None:
    tab.open(card, 1200)
    assert tab.run("document.querySelector('.photo img').complete && !!document.querySelector('h1').textContent")
    assert tab.run("document.querySelector('.decision .file').textContent") == "dropped.png"
    until(
        tab,
        "/the heat matches the change in/.test(document.querySelector('#where').textContent)",
    )
    until(tab, "document.querySelector('.status').textContent === ''")
    assert tab.complaints == []
    assert all(url.startswith((address, "data:")) for url in tab.requests)


@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits(tab: Browser, address: str, card: str, width: int) -> None:
    for url in (address, card, f"{address}help", f"{address}mistakes"):
        tab.open(url, width)
        assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width], url
        assert tab.complaints == []


def test_the_help_stands_in_columns_where_there_is_room(tab: Browser, address: str) -> None:
    columns = "new Set([...document.querySelectorAll('main section')].map((s) => s.getBoundingClientRect().left)).size"
    for width, n in ((1200, 2), (400, 1)):
        tab.open(f"{address}help", width)
        assert tab.run(columns) == n


@pytest.mark.parametrize("dark", [False, True])
def test_fields_are_seen(tab: Browser, address: str, card: str, dark: bool) -> None:
    for url in (card, address):
        tab.open(url, 1200, dark)
        found = tab.edges("textarea, select, input[type=file]")
        assert found
        assert min(found) > 3


def test_a_word_shows_where_it_holds(tab: Browser, card: str) -> None:
    tab.open(card, 1200)
    until(tab, "document.querySelector('.status').textContent === ''")
    assert not tab.run("!!document.querySelector('.of-word')")
    tab.run("document.querySelector('#words tbody tr th').dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))")
    until(tab, "!!document.querySelector('.photo .of-word')?.checkVisibility()")
    word = tab.run("document.querySelector('#words tbody tr th').textContent")
    assert f"“{word}”: the places where it fits better" in tab.run("document.querySelector('.pointed').textContent")
    assert tab.run("getComputedStyle(document.querySelector('.photo .heat')).visibility") == "hidden"
    tab.run("document.querySelector('#words tbody tr').dispatchEvent(new MouseEvent('mouseout', {bubbles: true}))")
    assert not tab.run("!!document.querySelector('.of-word')")


def test_a_place_is_pointed_at_by_keys_and_pointer(tab: Browser, card: str) -> None:
    tab.open(card, 1200)
    until(tab, "document.querySelector('.status').textContent === ''")
    press = "document.querySelector('.photo').dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}))"
    tab.run(press % "ArrowLeft")
    until(tab, "/This place: .* of the evidence for/.test(document.querySelector('.pointed').textContent)")
    assert tab.run("!!document.querySelector('.photo .cell')?.checkVisibility()")
    box = tab.run(
        "(() => { const b = document.querySelector('.photo').getBoundingClientRect(); return [b.left, b.top]; })()"
    )
    before = tab.run("document.querySelector('.photo .cell').style.left")
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 5, y=box[1] + 5)
    until(tab, f"document.querySelector('.photo .cell')?.style.left !== {before!r}")


SLOWLY = """
(() => {
  const fetched = window.fetch;
  const wait = () => new Promise((done) => setTimeout(done, 1500));
  window.fetch = (url, ...rest) => (`${url}`.includes("measure=true") ? wait().then(() => fetched(url, ...rest))
    : fetched(url, ...rest));
})()
"""


def test_what_was_opened_stays_open_while_the_verdict_is_measured(tab: Browser, card: str) -> None:
    slowly = tab.call("Page.addScriptToEvaluateOnNewDocument", source=SLOWLY)["identifier"]
    tab.open(card, 1200)
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=slowly)
    verdict = tab.run("document.querySelector('#where .verdict').textContent")
    assert "The effect of hiding these places was not measured" in verdict
    tab.run("document.querySelector('.decision details').open = true")
    until(tab, "document.querySelector('.status').textContent === ''")
    below = tab.run("document.querySelector('#where .verdict strong').textContent").rstrip(".")
    assert below != "Not measured"
    assert tab.run("!!document.querySelector('details[open]')"), "what was opened stays open"


def test_whoever_reads_by_keys_stays_where_they_were(tab: Browser, card: str) -> None:
    slowly = tab.call("Page.addScriptToEvaluateOnNewDocument", source=SLOWLY)["identifier"]
    tab.open(card, 1200)
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=slowly)
    tab.run("document.querySelectorAll('#words tbody th')[1].focus()")
    word = tab.run("document.querySelectorAll('#words tbody th')[1].textContent")
    assert tab.run("document.querySelector('.status').textContent").startswith("Measuring")
    until(tab, "document.querySelector('.status').textContent === ''")
    assert tab.run("document.activeElement.textContent") == word
    until(tab, "!!document.querySelector('.photo .of-word')")


def test_a_word_is_reached_by_keys_and_let_go_again(tab: Browser, card: str) -> None:
    tab.open(card, 1200)
    until(tab, "document.querySelector('.status').textContent === ''")
    shown = "!!document.querySelector('.photo .of-word')"
    tab.run("document.querySelector('#words tbody th').focus()")
    until(tab, shown)
    tab.press("Escape")
    assert not tab.run(shown)
    tab.run("document.querySelectorAll('#words tbody th')[1].focus()")
    until(tab, shown)
    tab.run("document.activeElement.blur()")
    assert not tab.run(shown)
    assert tab.run("document.querySelector('.pointed').textContent").startswith("Point at the picture")


def test_a_picture_that_is_too_large_is_said_to_be(tab: Browser, address: str, photo: Path) -> None:
    """The server answers before all has come; the browser must still show what it says."""
    tab.open(address, 1200)
    tab.run(
        "(() => { const carrier = new DataTransfer(); carrier.items.add(new File([new Uint8Array(60e6)], 'big.png'));"
        " const drop = new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: carrier});"
        " setTimeout(() => document.body.dispatchEvent(drop), 50); })()"
    )
    until(tab, "/larger than the limit of 20 MB/.test(document.querySelector('h1')?.textContent)")
    until(tab, "document.readyState === 'complete'")
    tab.run(DROP % base64.b64encode(photo.read_bytes()).decode())  # another one, on the page that says so
    until(tab, "location.pathname.startsWith('/card/') && document.readyState === 'complete'")


def test_edited_words_move_the_decision_on_the_page(tab: Browser, card: str) -> None:
    tab.open(card, 1200)
    odds = tab.run("document.querySelector('h1').parentElement.textContent")
    tab.run(
        "(() => { const area = document.querySelector('form.words textarea'); area.value = 'a steel bridge at night';"
        " area.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    until(tab, "!!document.querySelector('#moved table')")
    until(tab, f"document.querySelector('h1').parentElement.textContent !== {odds!r}")
    scores = tab.run(
        "[...document.querySelectorAll('#moved tbody td.num')].slice(0, 2).map((cell) => cell.textContent)"
    )
    assert scores[0] != scores[1]
    assert "a steel bridge at night" in tab.run("document.querySelector('form.words').elements.texts[0].value")
    tab.run(
        "(() => { const area = document.querySelector('form.words textarea'); area.value = '';"
        " area.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    until(tab, "/must have at least one text/.test(document.querySelector('#moved .wrong')?.textContent)")


def test_without_a_script_forms_do(tab: Browser, address: str, card: str) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(card, 1200)
        assert tab.run("document.querySelector('.status a').textContent") == "Measure how faithful the heat is"
        tab.open(f"{card}?target=dog&contrast=bird&measure=true", 1200)
        assert "dog rather than bird" in tab.run("document.querySelector('main').textContent")
        tab.open(address, 1200)
        assert tab.run("document.querySelector('.drop button').textContent") == "Show why"
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
