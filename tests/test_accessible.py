"""Every kind of page under axe, light and dark, wide and narrow: no serious fault, and nothing runs out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import pytest

from browser import NEEDS_BROWSER, Browser
from card.conftest import UNBROKEN, make_cards, make_report
from tiny import class_folders, colours, picture, tiny_cnn

pytest.importorskip("fastapi", reason="the extra 'app' is not installed, so there is no page")
pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed, so there is no service")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python, which brings axe, is not installed")

import torch
import uvicorn
from PIL import Image

import seewhy
from seewhy.classifiers.linear.recipe import Linear
from seewhy.descriptions.base import Descriptions
from seewhy.encoders.find import encoder as find
from seewhy.evaluation import Report
from seewhy.generation.sampler import PPGN
from seewhy.language.annotation.desk import AnnotationDesk, find_pictures
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.language.annotation.records import DIMENSIONS, Picture
from seewhy.language.annotation.store import AnnotationStore
from seewhy.pictures.samples import load_samples
from seewhy.report import index_entry, render_html, render_index
from seewhy.report.overviews import render_regions
from seewhy.service.app import Settings, make_app
from seewhy.service.app.annotate import make_annotation_app
from seewhy.service.app.deciding import make_check_app
from seewhy.service.app.serving import limited, listen
from seewhy.service.serve import ServiceSettings, make_service
from seewhy.studies.auditing import Audit
from seewhy.studies.auditing.drift import Drift
from seewhy.studies.claims import ClaimData, ClaimsStudy
from seewhy.studies.inspection.check import Check, Checked, small_picture
from seewhy.studies.refit import Labels
from seewhy.studies.study import Findings
from seewhy.types import Failure

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]

AXE = Path(str(find_spec("axe_playwright_python").origin)).with_name("axe.min.js")  # type: ignore[union-attr]
CHECK = """
axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(" | ")}`))
"""
LABELS = ("moss", "rust", f"sky{UNBROKEN[:56]}")
"""One of them of 59 letters without a space."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The app on a free port; its address."""
    with listen("127.0.0.1", 0) as socket:
        server = uvicorn.Server(limited(app, Settings()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=20)


def asked(address: str, body: bytes | None = None, kind: str = "application/json") -> Any:
    with urlopen(Request(address, body, {"content-type": kind}), timeout=60) as answer:
        return json.load(answer)


def shown(address: str, file: Path) -> str:
    """The card of a picture that was sent to the page."""
    head = b'--x\r\ncontent-disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    form = head + file.read_bytes() + b"\r\n--x--\r\n"
    return str(asked(f"{address}/look?format=json", form, "multipart/form-data; boundary=x")["card"])


def of_app(stack: ExitStack, folder: Path) -> Iterator[tuple[str, str]]:
    """The app's pages, of a classifier with descriptions whose data have wrong labels, and the service's."""
    pictures = class_folders(folder / "pictures", 6)
    (pictures / "sky").rename(pictures / LABELS[2])
    samples = load_samples(pictures)
    words = Descriptions.of({label: [f"it looks like {label}", "plain"] for label in LABELS})
    model = Linear(n_crops=1).fit(tiny_cnn(), samples, descriptions=words)
    wrong = next((pictures / "moss").iterdir())
    for n, label in enumerate(("rust", LABELS[2])):
        Image.fromarray(picture("moss", 70 + n)).save(pictures / label / f"wrong{n}.png")
    samples = load_samples(pictures)
    corrections = Corrections(LabelledData(pictures, samples.items), open_decisions(folder / "decided", LABELS))
    page = make_app(model, data=samples, corrections=corrections, sources=[pictures])
    address = stack.enter_context(served(page))
    yield "first", f"{address}/"
    card = shown(address, wrong)
    for _ in range(200):
        found = asked(f"{address}/mistakes?format=json")
        if found["done"] == found["n"]:
            break
        time.sleep(0.1)
    yield "card", address + card
    yield "compared", f"{address}{card}?target=moss&contrast={quote(LABELS[2])}"
    moved = {"author": "Ann", "decision": "changed", "label": "moss"}
    places = asked(f"{address}/rows?name=wrong&places=true")["places"]
    asked(f"{address}/decide-many", json.dumps({**moved, "places": places}).encode())
    asked(f"{address}/refit/start", b"{}")
    while asked(f"{address}/refit/state")["running"]:
        time.sleep(0.1)
    (pictures / "teal").mkdir()
    Image.fromarray(picture("moss", 80)).save(pictures / "teal" / "new.png")
    for path in (f"browse?like={card.rpartition('/')[2]}", "browse?like=gone", "browse", "refit", "refit/cards/0"):
        yield path, f"{address}/{path}"
    for path in ("", "mistakes", "mistakes?order=surest", "help", "map", "changes", "card/gone"):
        yield path or "home", f"{address}/{path}"
    check = Check().run(tiny_cnn(), samples).to_json()
    page = make_check_app(check, corrections, small_picture)
    yield "check", f"{stack.enter_context(served(page))}/"
    yield "serve", f"{stack.enter_context(served(make_service({'tiny': model}, ServiceSettings())))}/"


def of_annotation(stack: ExitStack, folder: Path) -> Iterator[tuple[str, str]]:
    """The annotation pages of a picture with two rounds and two comparisons, and of one with nothing."""
    for n, size in enumerate(((40, 40), (12, 90))):
        Image.fromarray(np.full((*size, 3), 90 * n, np.uint8)).save(folder / f"{n}.png")
    store = AnnotationStore(folder / "a.sqlite")
    store.add_pictures(p for p in find_pictures(map(str, sorted(folder.glob("*.png")))) if isinstance(p, Picture))
    key, bare = (p.key for p in store.pictures())
    box = {"id": "a", "label": UNBROKEN, "box": [0.1, 0.1, 0.6, 0.6], "description": UNBROKEN, "attributes": ["size"]}
    store.save(key, "objects", "Ann", {"objects": [box]}, 0, 9)
    store.save(key, "caption", "Ann", {"text": "A grey square."}, 0, 9)
    store.save(key, "caption", UNBROKEN[:70], {"text": f"A grey square, seen from near. {UNBROKEN}"}, 1, 9)
    desk = AnnotationDesk(store)
    for who in ("Cy", "Di"):
        shown = desk.comparison(key, who)
        assert shown is not None
        desk.judge(key, who, dict.fromkeys(DIMENSIONS, 1), shown["token"], 9)
    address = stack.enter_context(served(make_annotation_app(desk)))
    yield "pictures", f"{address}/?as=Ann"
    yield "figures", f"{address}/figures?as=Ann"
    for of in (key, bare):
        for task in ("objects", "caption", "compare", "history"):
            yield f"{task} {'empty' if of == bare else ''}", f"{address}/{task}/{of}?as=Cy"


def of_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Pages in files: cards, their index, a report, boxes."""
    from card.test_sections import detected

    cards = make_cards()
    pages = {name: render_html(one) for name, one in cards.items()}
    entries = [index_entry(one, f"{name}.html") for name, one in cards.items()]
    pages["index"] = render_index(entries, [Failure("broken.jpg", "is not a picture")])
    pages["report"] = Report(make_report()).to_html()
    pages["boxes"] = render_regions([detected(3), detected(0)])
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, "utf-8")
        yield name, (folder / f"{name}.html").as_uri()


def generated(folder: Path) -> str:
    """The page of pictures made for a class, by a generator that has hardly learnt, with a judge."""
    from generator_training import training

    photos, kept = class_folders(folder / "photos", 6), folder / "generator"
    options = ("-e", "new:resnet/16", "--engine", "torch", "--side", "16", "--n-steps", "60", "--lr", "0.005")
    training.main([str(photos), "-o", str(kept), *options])
    model = seewhy.fit(str(photos), find("new:resnet/16", engine="torch"), n_crops=0)
    judge = find("new:vit/16", engine="torch")
    return seewhy.generate(kept, model, target="moss", n=2, judge=judge, sampler=PPGN(n_steps=2)).to_html()


def of_studies(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The pages of drift, audits and studies: each study of the behaviour record, a comparison, and a search."""
    from behaviour.record_studies import PARTS
    from studies.test_compare import STUDY, drawn
    from studies.test_refit import CLASSES, cloud, moved, refitted
    from tiny_words import opened

    made: list[Any] = []
    for kind in (Findings, Audit, Drift, Checked):
        plain = kind.__init__
        patch.setattr(
            kind, "__init__", lambda self, *a, _plain=plain, **k: (_plain(self, *a, **k), made.append(self))[0]
        )
    pages: dict[str, str] = {}

    def seen(name: str) -> None:
        pages.update({f"{name} {n}": one.to_html() for n, one in enumerate(made)})
        made.clear()

    studies = ("background", "interpretability", "faithfulness", "scaling", "transfer", "base-to-new")
    for name in ("drift", "audit", "check", *studies):
        (folder / name).mkdir()
        PARTS[name](folder / name)
        del made[3:]
        seen(name)
    samples = load_samples(class_folders(folder / "claims", 10))
    asked = ("names", "labels", "neighbours", "four_labels", "maskclip")
    ClaimsStudy(asked, n_seeds=2).run(opened(), ClaimData(samples), folder, command="seewhy study claims x")
    seen("claims")
    STUDY.run({"colours": colours()}, drawn())
    seen("compare")
    features, truth = cloud()
    labels = Labels(moved(truth, 0.4), truth, torch.zeros_like(truth, dtype=torch.bool))
    refitted(colours(), features, labels, CLASSES, [f"{i}.png" for i in range(len(truth))])
    seen("refit")
    patch.undo()
    pages["generate"] = generated(folder / "generated")
    assert {"claims 0", "base-to-new 0", "compare 0", "refit 0", "generate"} < pages.keys()
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, "utf-8")
        yield name, (folder / f"{name}.html").as_uri()


def faults(tab: Browser, width: int) -> list[str]:
    tab.run("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    runs_out = tab.run("document.documentElement.scrollWidth") - width
    return [*tab.run(CHECK), *([f"runs out by {runs_out} pixels"] if runs_out > 0 else [])]


@pytest.mark.parametrize("kind", ["app", "annotation", "files", "studies"])
def test_no_page_has_a_serious_fault(kind: str, tab: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=AXE.read_text("utf-8"))
    found: dict[str, list[str]] = {}
    n = 0
    with ExitStack() as stack:
        rooms = {
            "app": of_app,
            "annotation": of_annotation,
            "files": lambda _stack, folder: of_files(folder),
            "studies": lambda _stack, folder: of_studies(folder, monkeypatch),
        }
        for name, url in rooms[kind](stack, tmp_path):
            for width, dark in ((1280, False), (1280, True), (390, True), (390, False)):
                if n % 2 == 0:  # each size is opened once
                    tab.open(url, width, dark)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                tab.call("Emulation.setEmulatedMedia", features=[scheme])
                n += 1
                if wrong := faults(tab, width):
                    found[f"{name}, {width}, {'dark' if dark else 'light'}"] = wrong
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
    assert n > 30
    assert found == {}
