"""The annotation page in a real browser: what is typed survives reloads, kills, other people and other windows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import NEEDS_BROWSER, Browser
from seewhy.language.annotation.rounds import text_of
from seewhy.language.annotation.store import AnnotationStore

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]


class Server:
    """``seewhy app --annotate`` as a process that can be killed and started again on the same port."""

    def __init__(self, command: list[str], folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.command = [
            *command,
            "app",
            "--data",
            str(folder),
            "--annotate",
            str(folder / "a.sqlite"),
            "--port",
            str(self.port),
        ]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "pictures at" in line, line

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.communicate(timeout=30)
            self.process = None

    def url(self, page: str, author: str, key: str) -> str:
        return f"http://127.0.0.1:{self.port}/{page}/{key}?as={author}"


@pytest.fixture(scope="module")
def server(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        pixels = np.full((120, 160, 3), 40 * i, np.uint8)
        pixels[40:80, 60:100] = (200, 30, 35)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    made = Server(command, folder)
    made.start()
    yield made
    made.kill(signal.SIGTERM)


@pytest.fixture(scope="module")
def store(server: Server) -> AnnotationStore:
    return AnnotationStore(server.folder / "a.sqlite")


def until(what: Callable[[], Any], seconds: float = 30) -> Any:
    """What it gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def text_in(tab: Browser) -> str:
    return str(tab.run("document.getElementById('text').value"))


def status(tab: Browser) -> str:
    return str(tab.run("document.getElementById('status').textContent"))


def type_text(tab: Browser, words: str) -> None:
    tab.run("document.getElementById('text').focus()")
    tab.call("Input.insertText", text=words)


def key_of(store: AnnotationStore, i: int) -> str:
    return store.pictures()[i].key


def draft(store: AnnotationStore, key: str, author: str, task: str = "caption") -> str:
    found = store.draft(key, task, author)
    return text_of(found.content) if found else ""


def test_what_is_typed_is_kept_within_two_seconds_and_back_after_a_reload(
    tab: Browser, server: Server, store: AnnotationStore
) -> None:
    key = key_of(store, 0)
    tab.open(server.url("caption", "Ann", key), 1200)
    type_text(tab, "A red square on black")
    until(lambda: draft(store, key, "Ann") == "A red square on black")
    until(lambda: status(tab) == "Saved.")
    # Typed and left at once, before the timer: the page hands it over while it goes.
    type_text(tab, ", seen from the front")
    tab.open(server.url("caption", "Ann", key), 1200)
    assert text_in(tab) == "A red square on black, seen from the front"
    until(lambda: draft(store, key, "Ann") == "A red square on black, seen from the front")
    assert tab.complaints == []


def test_a_server_killed_mid_sentence_loses_no_letter(tab: Browser, server: Server, store: AnnotationStore) -> None:
    key = key_of(store, 1)
    tab.open(server.url("caption", "Ann", key), 1200)
    type_text(tab, "Before the kill")
    until(lambda: draft(store, key, "Ann") == "Before the kill")
    type_text(tab, ", in the mid")
    server.kill()
    type_text(tab, "dle of a word")
    until(lambda: "tries again" in status(tab))
    server.start()
    # Without a reload, it is sent as soon as the server is back.
    until(lambda: draft(store, key, "Ann") == "Before the kill, in the middle of a word")
    # Killed again, and the page is loaded anew while the server is down and then back.
    server.kill()
    type_text(tab, ", and more")
    until(lambda: "tries again" in status(tab))
    tab.call("Page.navigate", url="about:blank")
    server.start()
    tab.open(server.url("caption", "Ann", key), 1200)
    assert text_in(tab) == "Before the kill, in the middle of a word, and more"
    until(lambda: draft(store, key, "Ann").endswith("and more"))


def test_another_browser_finds_the_draft(tab: Browser, server: Server, store: AnnotationStore) -> None:
    key = key_of(store, 0)
    tab.call("Page.navigate", url="about:blank")
    with Browser() as other:
        other.open(server.url("caption", "Ann", key), 1200)
        assert text_in(other) == draft(store, key, "Ann") != ""


def test_of_two_people_the_second_sees_a_merge_and_nothing_is_overwritten(
    tab: Browser, server: Server, store: AnnotationStore
) -> None:
    key = key_of(store, 2)
    store.save(key, "caption", "Zoe", {"text": "A square. It is red. It lies on grey."}, 0, 1)
    with Browser() as other:
        tab.open(server.url("caption", "Ann", key), 1200)
        other.open(server.url("caption", "Bob", key), 1200)
        for who, words in ((tab, "A large square. It is red. It lies on grey."),
                           (other, "A square. It is red. It lies on dark grey.")):  # fmt: skip
            who.run("document.getElementById('text').select()")
            type_text(who, words)
        tab.run("document.getElementById('save').click()")
        until(lambda: "version 2" in status(tab))
        other.run("document.getElementById('save').click()")
        until(lambda: other.run("document.getElementById('clash').checkVisibility()"))
        assert other.run("document.getElementById('clash-title').textContent") == (
            "Ann saved version 2 while you were writing."
        )
        assert other.run("[...document.querySelectorAll('#clash-diff ins')].map((n) => n.textContent)") == ["large "]
        assert text_in(other) == "A large square. It is red. It lies on dark grey."
        assert len(store.versions(key, "caption")) == 2
        assert [text_of(d.content) for d in store.drafts(key, "caption", "Bob", "shelved")] == [
            "A square. It is red. It lies on dark grey."
        ]
        other.run("document.getElementById('save').click()")
        until(lambda: "version 3" in status(other))
    last = store.versions(key, "caption")[-1]
    assert (last.author, last.kind, last.base) == ("Bob", "merge", 2)
    assert text_of(last.content) == "A large square. It is red. It lies on dark grey."


def boxes(store: AnnotationStore, key: str) -> list[dict[str, Any]]:
    found = store.draft(key, "objects", "Ann")
    return list(found.content["objects"]) if found else []


def drag(tab: Browser, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place of the picture to another, in fractions of it."""
    frame = tab.run("(() => { const r = photo.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; })()")
    points = [(frame[0] + x * frame[2], frame[1] + y * frame[3]) for x, y in (start, start, end, end)]
    for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseMoved", "mouseReleased"), points, strict=True):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


def test_boxes_are_drawn_moved_sized_merged_deleted_and_undone(
    tab: Browser, server: Server, store: AnnotationStore
) -> None:
    key = key_of(store, 3)
    tab.open(server.url("objects", "Ann", key), 1200)
    drag(tab, (0.2, 0.2), (0.5, 0.6))
    until(lambda: len(boxes(store, key)) == 1)
    assert boxes(store, key)[0]["box"] == pytest.approx([0.2, 0.2, 0.5, 0.6], abs=0.01)
    tab.call("Input.insertText", text="red square")  # the label has the focus
    drag(tab, (0.3, 0.3), (0.4, 0.4))  # inside the box: it moves
    until(lambda: boxes(store, key)[0]["box"] == pytest.approx([0.3, 0.3, 0.6, 0.7], abs=0.02))
    assert boxes(store, key)[0]["label"] == "red square"
    left, top, right, bottom = boxes(store, key)[0]["box"]
    tab.press("ArrowRight")  # dragging gave it the focus
    tab.press("ArrowDown", shift=True)
    until(
        lambda: boxes(store, key)[0]["box"] == pytest.approx([left + 0.01, top, right + 0.01, bottom + 0.01], abs=1e-4)
    )
    tab.press("Enter")
    assert tab.run("document.activeElement.getAttribute('aria-label')") == "Description of object 1"
    tab.call("Input.insertText", text="with sharp edges")
    tab.run("document.getElementById('add').click()")
    until(lambda: len(boxes(store, key)) == 2)
    tab.run("document.querySelectorAll('.ticks-list input')[0].click()")
    tab.run("document.querySelectorAll('.row-head input[type=checkbox]').forEach((box) => box.click())")
    tab.run("document.getElementById('merge').click()")
    until(lambda: len(boxes(store, key)) == 1)
    one = boxes(store, key)[0]
    assert (one["label"], one["description"], one["attributes"]) == ("red square", "with sharp edges", ["shape"])
    tab.press("Delete")  # merging gave the box the focus
    until(lambda: boxes(store, key) == [])
    tab.run("document.getElementById('undo').click()")
    until(lambda: boxes(store, key) == [one])
    tab.run("document.getElementById('save').click()")
    until(lambda: store.latest(key, "objects"))
    assert store.latest(key, "objects").content == {"objects": [one]}  # type: ignore[union-attr]
    assert tab.complaints == []


def test_words_in_a_box_that_was_undone_can_be_had_again(tab: Browser, server: Server, store: AnnotationStore) -> None:
    key = key_of(store, 5)
    tab.open(server.url("objects", "Ann", key), 1200)
    drag(tab, (0.2, 0.2), (0.5, 0.6))
    until(lambda: len(boxes(store, key)) == 1)
    tab.call("Input.insertText", text="typed with care")
    until(lambda: boxes(store, key)[0]["label"] == "typed with care")
    tab.run("document.getElementById('undo').click()")
    until(lambda: boxes(store, key) == [])
    tab.run("document.getElementById('redo').click()")
    until(lambda: [b["label"] for b in boxes(store, key)] == ["typed with care"])
    assert tab.run("document.getElementById('redo').disabled")
    assert tab.complaints == []


def test_the_text_page_says_what_is_left_out(tab: Browser, server: Server, store: AnnotationStore) -> None:
    key = key_of(store, 3)
    tab.open(server.url("caption", "Ann", key), 1200)
    state = "document.querySelector('[data-object] .state').textContent"
    until(lambda: tab.run(state) == "not in your text")
    type_text(tab, "Two squares.")
    until(lambda: tab.run(state) == "named")
    assert "sharp" in tab.run("document.querySelector('.missing-words').textContent")


def test_a_blind_comparison_is_kept_from_the_last_rounds_side(
    tab: Browser, server: Server, store: AnnotationStore
) -> None:
    key = key_of(store, 2)  # three versions by now
    tab.open(server.url("compare", "Ann", key), 1200)
    shown = tab.run("[...document.querySelectorAll('.texts p')].map((p) => p.textContent)")
    last = text_of(store.versions(key, "caption")[-1].content)
    assert last in shown
    assert "Bob" not in tab.run("document.querySelector('main').textContent")
    better = 2 if shown[0] == last else -2
    tab.run(f"document.querySelectorAll('input[value=\"{better}\"]').forEach((radio) => radio.click())")
    tab.run("document.querySelector('#judging button').click()")
    until(store.judgements)
    assert set(store.judgements()[0]["answers"].values()) == {2}
    tab.open(f"http://127.0.0.1:{server.port}/figures", 1200)
    assert "+100" in tab.run("document.querySelector('.sum').textContent")


@pytest.mark.parametrize("page", ["objects", "caption", "compare", "history", "figures", ""])
@pytest.mark.parametrize("width", [400, 1200])
def test_a_page_fits_and_everything_has_a_name(
    tab: Browser, server: Server, store: AnnotationStore, page: str, width: int
) -> None:
    of_one = page not in ("", "figures")
    url = server.url(page, "Ann", key_of(store, 2)) if of_one else f"http://127.0.0.1:{server.port}/{page}?as=Ann"
    tab.open(url, width)
    assert tab.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert tab.complaints == []
    assert [u for u in tab.requests if not u.startswith((f"http://127.0.0.1:{server.port}/", "data:"))] == []
    assert min(tab.edges("textarea, input[type=text], .name input"), default=9) > 3
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"link", "button", "checkbox", "radio", "textbox", "navigation", "region"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert nameless == []


def test_hostile_text_is_text(tab: Browser, server: Server, store: AnnotationStore) -> None:
    key = key_of(store, 4)
    hostile = '</script><img src=x onerror="document.title=1">"\'&<b>'
    store.save(key, "caption", hostile, {"text": hostile}, 0, 1)
    store.save(key, "objects", hostile, {"objects": [
        {"id": "a", "label": hostile, "box": [0, 0, 1, 1], "description": hostile}]}, 0, 1)  # fmt: skip
    for page in ("caption", "objects", "history"):
        tab.open(server.url(page, "Ann", key), 1200)
        assert tab.run("document.querySelectorAll('img[src=x]').length") == 0
        assert tab.complaints == []
    tab.open(server.url("caption", "Ann", key), 1200)
    assert text_in(tab) == hostile


def test_the_pages_json_twin_is_what_it_shows(tab: Browser, server: Server, store: AnnotationStore) -> None:
    tab.open(server.url("caption", "Bob", key_of(store, 2)) + "&format=json", 1200)
    data = json.loads(tab.run("document.body.textContent"))
    assert data["content"] == {"text": "A large square. It is red. It lies on dark grey."}
    assert data["finished"] == "3 rounds are done."
