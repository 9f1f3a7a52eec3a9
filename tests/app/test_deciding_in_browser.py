"""Labels corrected beside the mistakes in a real browser: two people, a kill in the middle, undo, keys alone."""

from __future__ import annotations

import csv
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from browser import BROWSER, Browser, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH, so no page can be opened"),
]

Serve = Callable[[], tuple[subprocess.Popen[str], str]]

ROW = "document.querySelector('[aria-label=\"Label of cat%d.png\"]')"
TOLD = ROW + ".querySelector('output').value"
HELD = """
document.addEventListener('readystatechange', () => {
  if (document.readyState === 'interactive') document.getElementById('found').dataset.going = 'yes';
});
const fetched = window.fetch;
window.fetch = async (url, ...rest) => {
  while (`${url}` === location.href && !window.go) await new Promise((done) => setTimeout(done, 50));
  return fetched(url, ...rest);
};
"""
"""As while the pictures are gone through: the list is drawn again, when the test says so."""
LOOKS = """
[...%s.querySelectorAll('button')].slice(0, 2).map((b) => {
  const s = getComputedStyle(b);
  return [s.backgroundColor, s.color, s.borderTopColor, s.borderTopWidth, s.fontWeight, s.fontSize, s.padding];
})
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Path:
    """Three views of a cat that are called dogs and a bird."""
    folder = tmp_path_factory.mktemp("labelled")
    with Image.open(photo) as cat:
        views = (cat.copy(), ImageOps.mirror(cat), cat.crop((10, 10, cat.width - 10, cat.height - 10)))
    for i, view in enumerate(views):
        view.save(folder / f"cat{i}.png")
    (folder / "table.csv").write_text("image,label\ncat0.png,dog\ncat1.png,dog\ncat2.png,bird\n")
    (folder / "words.json").write_text(
        '{"cat": ["a cat", "a tabby cat"], "dog": ["a hound", "a dog"], "bird": ["a bird", "feathers"]}'
    )
    return folder / "table.csv"


@pytest.fixture
def decided(tmp_path: Path) -> Path:
    """Decisions of one test alone."""
    return tmp_path / "decided"


@pytest.fixture
def serve(command: list[str], table: Path, decided: Path) -> Iterator[Serve]:
    """Starts the real command; gives it and the address of its list of mistakes."""
    how = ["app", "--labels", str(table.parent / "words.json"), "--data", str(table), "--store", "none"]
    how += ["--decisions", str(decided), "--port", "0"]
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], str]:
        server = subprocess.Popen([*command, *how], stdout=subprocess.PIPE, text=True)
        started.append(server)
        assert server.stdout is not None
        return server, server.stdout.readline().split(" at ")[1].split()[0] + "mistakes?order=surest"

    yield start
    for server in started:
        server.kill()
        server.communicate()


def opened(tab: Browser, address: str, name: str, width: int = 1200, dark: bool = False) -> None:
    """The list once all pictures are in it."""
    tab.open(address, width, dark)
    until(tab, "document.getElementById('found').dataset.going === 'no'")
    until(tab, "document.querySelectorAll('.decide').length === 3")
    tab.run(
        f"(() => {{ const who = document.getElementById('who'); who.value = '{name}';"
        " who.dispatchEvent(new Event('change')); })()"
    )


def press(tab: Browser, number: int, decision: str) -> None:
    tab.run(f"{ROW % number}.querySelector('[value={decision}]').click()")


def press_typed(tab: Browser, number: int) -> None:
    """The class that was typed, as its button says."""
    tab.run(f"{ROW % number}.querySelector('.typed').click()")


def typed(tab: Browser, number: int, label: str) -> None:
    tab.run(
        f"(() => {{ const at = {ROW % number}.querySelector('.label'); at.value = '{label}';"
        " at.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def exported(command: list[str], table: Path, decided: Path) -> list[str]:
    """Labels of the corrected table, by the command line."""
    out = table.parent / "corrected.csv"
    how = ["app", "--data", str(table), "--decisions", str(decided), "--export", str(out)]
    subprocess.run([*command, *how], check=True, capture_output=True)
    return [row["label"] for row in csv.DictReader(out.read_text().splitlines())]


def test_two_people_a_kill_an_undo_and_the_table(
    two: tuple[Browser, Browser], serve: Serve, command: list[str], table: Path, decided: Path
) -> None:
    """What the page says is kept is there after the server was killed; who was slower is told, and stays told."""
    ann, bo = two
    original = table.read_bytes()
    server, address = serve()
    opened(ann, address, "Ann")
    opened(bo, address, "Bo")
    press(ann, 0, "changed")
    until(ann, f"{TOLD % 0} === 'Changed to cat by Ann.'")
    until(bo, f"{TOLD % 0} === 'Changed to cat by Ann.'")
    bo.run("window.fetch = ((known) => (url, ...rest) => url === '/decisions' && window.deaf ? Promise.reject() :"
           " known(url, ...rest))(window.fetch); window.deaf = true")  # fmt: skip
    press(ann, 1, "kept")
    until(ann, f"{TOLD % 1} === 'Kept as dog by Ann.'")
    press(bo, 1, "left_out")
    until(bo, f"{TOLD % 1}.startsWith('Ann decided first: kept, dog.')")
    press(ann, 2, "postponed")
    bo.run("window.deaf = false")
    until(bo, f"{TOLD % 2} === 'Postponed by Ann.'")
    assert bo.run(TOLD % 1).startswith("Ann decided first"), "what others do elsewhere does not wipe it out"
    server.send_signal(signal.SIGKILL)
    server.wait()
    press(bo, 2, "left_out")
    until(bo, f"{TOLD % 2}.startsWith('Not saved: ')")
    assert exported(command, table, decided) == ["cat", "dog", "bird"]

    _, address = serve()
    opened(bo, address, "Bo")
    until(bo, f"{TOLD % 0} === 'Changed to cat by Ann.'")
    assert bo.run(TOLD % 1) == "Kept as dog by Ann."
    bo.run(f"{ROW % 0}.querySelector('[value=undo]').focus()")
    press(bo, 0, "undo")
    until(bo, f"{TOLD % 0} === 'Undone by Bo.'")
    assert bo.run("document.activeElement.value") == "kept", "the button that is gone hands the focus on"
    typed(bo, 0, "lynx")
    press_typed(bo, 0)
    until(bo, f"{TOLD % 0}.includes('must be one of 3 classes')")
    assert exported(command, table, decided) == ["dog", "dog", "bird"]
    assert table.read_bytes() == original
    assert {one.partition(":")[0] for one in bo.complaints} == {"Failed to load resource"}, "and no script's"


def test_by_keys_while_the_list_is_drawn_again(two: tuple[Browser, Browser], serve: Serve) -> None:
    tab, _ = two
    _, address = serve()
    opened(tab, address, "Ann")
    held = tab.call("Page.addScriptToEvaluateOnNewDocument", source=HELD)["identifier"]
    tab.open(address, 1200)
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=held)
    assert tab.run("document.getElementById('who').value") == "Ann", "asked once"
    typed(tab, 2, "cat")
    typed(tab, 1, "lynx")
    press_typed(tab, 1)
    until(tab, f"{TOLD % 1}.includes('must be one of 3 classes')")
    tab.run("document.getElementById('listed').dataset.old = 'yes'; window.go = true")
    until(tab, "!document.getElementById('listed').dataset.old")
    assert tab.run(f"{ROW % 2}.querySelector('.label').value") == "cat"
    assert "must be one of 3 classes" in tab.run(TOLD % 1)
    tab.run(f"{ROW % 2}.querySelector('.label').focus()")
    tab.press("Enter")
    until(tab, f"{TOLD % 2} === 'Changed to cat by Ann.'")
    tab.run("document.getElementById('who').value = ' '")
    press(tab, 1, "kept")
    until(tab, f"{TOLD % 1} === 'Type your name above first.'")
    assert tab.run("document.activeElement.id") == "who"
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    names = {
        (n["role"]["value"], n["name"]["value"].strip())
        for n in nodes
        if "role" in n and n.get("name", {}).get("value")
    }
    assert names >= {
        ("group", "Label of cat1.png"), ("button", "Change to cat"), ("button", "Keep dog"), ("button", "Leave out"),
        ("textbox", "Who decides? Your name"), ("combobox", "Another class"), ("region", "Deciding on labels"),
    }  # fmt: skip
    for width, dark in ((400, False), (1200, True)):
        opened(tab, address, "Ann", width, dark)
        assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        assert tab.complaints == []
        assert min(tab.edges(".decide input, .decide button:not([hidden]), #who")) > 3


def test_no_answer_is_given_beforehand_or_looks_like_the_right_one(two: tuple[Browser, Browser], serve: Serve) -> None:
    """What the model takes it for stands beside what it is called, named, and neither is filled in or larger."""
    tab, _ = two
    _, address = serve()
    for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
        opened(tab, address, "Ann", width, dark)
        first, second = tab.run(f"[...{ROW % 2}.querySelectorAll('button')].slice(0, 2).map((b) => b.textContent)")
        assert (first, second) == ("Keep bird", "Change to cat")
        looks = tab.run(LOOKS % (ROW % 2))
        assert looks[0] == looks[1]
        assert looks[0][0] == "rgba(0, 0, 0, 0)", "no filled button"
        assert tab.run("[...document.querySelectorAll('.decide .label')].map((at) => at.value)") == [""] * 3
        assert tab.run(
            "[...document.querySelectorAll('.typed')].every((b) => b.disabled && b.textContent === 'Change to …')"
        )
        assert tab.run("document.documentElement.scrollWidth") == width
    before = tab.run(TOLD % 2)
    tab.run(f"{ROW % 2}.querySelector('button').focus()")
    stops = []
    for key in ("Tab", "Tab", "Enter", "Tab"):
        stops.append(tab.run("document.activeElement.value || document.activeElement.className"))
        tab.press(key)
    assert stops == ["kept", "changed", "label", "label"], "an empty field sends nothing"
    assert tab.run(TOLD % 2) == before
    typed(tab, 2, "dog")
    assert tab.run(f"{ROW % 2}.querySelector('.typed').textContent") == "Change to dog"
    tab.run(f"{ROW % 2}.querySelector('.label').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Change to dog"
    tab.press("Enter")
    until(tab, f"{TOLD % 2} === 'Changed to dog by Ann.'")
    press(tab, 2, "changed")
    until(tab, f"{TOLD % 2} === 'Changed to cat by Ann.'")
