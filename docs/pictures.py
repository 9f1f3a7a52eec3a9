"""Makes the pictures that the pages show: two cards, one with numbers beside its parts, and the grid and the map.

``python docs/pictures.py`` writes ``docs/images/``, with what the numbered card says (``numbered.json``), of which
``make docs`` makes the text about it; a minute. Grid and map need chromium.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image, ImageDraw, ImageFont

import seewhy
from seewhy.explanation.verdict import Missing
from seewhy.report.canvas import Canvas
from seewhy.report.card import sign_of
from seewhy.report.page import LEVELS

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1000
SIGN = ("Sure", "Not sure", "Unlike anything", "Not measured")
VERDICT = tuple(f"{said}." for said in LEVELS.values())
PARTS = (
    ("Heat for", 0, -30),
    (SIGN, 0, -72),
    ("gravel", 2, -30),
    (("In ", "No labelled", "How often"), 0, -30),
    ("→", 0, -30),
    ("Its own scores", 0, -30),
    ("Where it looked", 0, -30),
    (VERDICT, 0, -72),
    ("What it looks like, in", 0, -30),
    ("In words", 0, -30),
    ("Do they agree?", 0, -30),
    ("classifier linear", 0, -30),
)
"""What gets a number: a text on the card, or its beginning or end, how many such come before it, pixels to its side."""
WORDS = {
    "brick": ["a wall of rectangular blocks", "straight lines of mortar"],
    "grass": ["thin green blades", "a lawn"],
    "gravel": ["many small round stones", "a path of pebbles"],
}

WALLS = {
    "cracked": ["a dark crack in a wall", "a thin jagged line"],
    "fine": ["a plain wall", "even plaster"],
    "stained": ["a wall with a stain", "a dark damp spot"],
}


def surfaces(folder: Path) -> seewhy.Classifier:
    """A classifier of brick, grass and gravel; the lowest quarter of each photograph is kept out for testing."""
    for label in WORDS:
        photo = Image.fromarray(getattr(skimage.data, label)())
        for i in range(16):
            left, top = 128 * (i % 4), 128 * (i // 4)
            path = folder / ("photos" if i < 12 else "test") / label / f"{label}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((left, top, left + 128, top + 128)).save(path)
    return seewhy.fit(folder / "photos", encoder=_lite0(), descriptions=WORDS)


def _lite0() -> seewhy.Encoder:
    return seewhy.encoder("lite0", engine="torch:f32")  # the same verdicts on every processor


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        small(still(wall(Path(temporary))), "card")
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        why = gravel(Path(temporary))
        small(numbered(why), "numbered")
        (ROOT / "docs/images/numbered.json").write_text(json.dumps(said(why), indent=1) + "\n", "utf-8")
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        app_pages(Path(temporary))


def app_pages(folder: Path) -> None:
    """The grid and the map of the pictures that docs/start.md is about, by a browser."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Browser, until

    run = [sys.executable, "-m", "seewhy"]
    subprocess.run([sys.executable, str(ROOT / "examples/walls.py"), str(folder / "walls")], check=True)
    subprocess.run([*run, "check", "walls/photos", "-o", "check"], check=True)
    subprocess.run([*run, "fit", "walls/photos", "-o", "model"], check=True)
    how = ["app", "-m", "model", "--data", "walls/photos", "--decisions", "check", "--port", "0"]
    with subprocess.Popen([*run, *how], stdout=subprocess.PIPE, text=True) as server, Browser() as tab:
        assert server.stdout is not None
        address = server.stdout.readline().split(" at ")[1].split()[0]
        count = "document.getElementById('count').textContent"
        tab.open(f"{address}browse?predicted=cracked&sort=doubt", WIDTH)
        until(tab, f"/^\\d+ of \\d+ pictures$/.test({count})", 300)
        until(tab, "[...document.querySelectorAll('.cell')].every((c) => c.querySelector('img[src]'))")
        x, y = tab.run(
            "[(r = document.querySelector('[data-at=\"2\"]').getBoundingClientRect()).left + 40, r.top + 40]"
        )
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        until(tab, "!document.getElementById('at').hidden")
        shot(tab, "grid", 900)
        tab.open(f"{address}map", WIDTH)
        until(tab, f"/are beside each other/.test({count})", 300)
        tab.run(
            "(by => { by.value = 'finding'; by.dispatchEvent(new Event('change')); })(document.getElementById('by'))"
        )
        until(tab, "/Label likely wrong/.test(document.getElementById('legend').textContent)")
        time.sleep(1)
        shot(tab, "map", 900)
        server.terminate()


def shot(tab: Any, name: str, height: int) -> None:
    """The top of a page, three quarters of its size, in 128 colours."""
    page = Image.open(io.BytesIO(tab.picture())).convert("RGB").crop((0, 0, WIDTH, height))
    page = page.resize((WIDTH * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
    page.quantize(128, Image.Quantize.FASTOCTREE).save(ROOT / f"docs/images/{name}.png", optimize=True)


def wall(folder: Path) -> seewhy.Explanation:
    """The card of the first page: a cracked wall, of the pictures that docs/start.md is about."""
    subprocess.run([sys.executable, str(ROOT / "examples/walls.py"), str(folder / "walls")], check=True)
    return seewhy.fit("walls/photos", encoder=_lite0(), descriptions=WALLS).explain("walls/test/cracked/100.png")


def gravel(folder: Path) -> seewhy.Explanation:
    """The card that the page about cards is about."""
    return surfaces(folder).explain("test/gravel/gravel-13.png")


def said(why: seewhy.Explanation) -> dict[str, dict[str, str]]:
    """What that card says of its decision and of each kind of evidence, by the rules as they are."""
    decision = why.prediction.decision
    assert decision is not None
    told = {"the decision": {"verdict": sign_of(decision)[1], "sentence": decision.sentence}}
    for name, kind in (("where it looked", why.where), ("what it looks like", why.like), ("in words", why.words)):
        assert not isinstance(kind, Missing)
        told[name] = {"verdict": LEVELS[kind.verdict.level], "sentence": kind.verdict.sentence}
    return told | {"agreement": {"verdict": "", "sentence": why.agreement.sentence}}


def cards() -> dict[str, tuple[str, seewhy.Explanation]]:
    """The gallery: a name, what there is to see, and the explanation."""
    coffee, cat = skimage.data.coffee(), skimage.data.chelsea()
    pretrained = seewhy.pretrained()
    named = seewhy.zero_shot(["tabby cat", "red fox", "sheepdog"])
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        fitted = surfaces(Path(temporary))
        gravel, brick = "test/gravel/gravel-13.png", "test/brick/brick-12.png"
        return {
            "espresso": ("ImageNet classes: where it looked, and in words", pretrained.explain(coffee)),
            "gravel": ("A classifier fitted on pictures: all three kinds of evidence", fitted.explain(gravel)),
            "brick": ("Brick rather than gravel: a contrast", fitted.explain(brick, contrast="gravel")),
            "cat": ("Classes by name, without any picture", named.explain(cat)),
            "unlike": ("Unlike anything it knows: a cat, to a classifier of surfaces", fitted.explain(cat)),
            "occlusion": (
                "The same cup, by covering one window after another",
                pretrained.explain(coffee, where="occlusion"),
            ),
            "why_not": (
                "Why tiger cat rather than Egyptian cat?",
                pretrained.explain(cat, target="tiger cat", contrast="Egyptian cat"),
            ),
            "control": ("A map that does not know the class", pretrained.explain(cat, where="eigen_cam")),
        }


def still(why: seewhy.Explanation) -> Image.Image:
    return Image.open(io.BytesIO(why.to_png())).convert("RGB")


def small(card: Image.Image, name: str) -> None:
    """Write a card in 256 colours, as the pages show it."""
    card = card.resize((WIDTH, round(WIDTH * card.height / card.width)), Image.Resampling.LANCZOS)
    card = card.quantize(256, Image.Quantize.FASTOCTREE)  # the one method that keeps rare colours
    card.save(ROOT / f"docs/images/{name}.png", optimize=True)


def numbered(why: seewhy.Explanation) -> Image.Image:
    """The still card with a number beside each of :data:`PARTS`, which are found by the texts that are drawn."""
    drawn: list[tuple[str, float, float]] = []
    plain = Canvas.text

    def text(self: Canvas, x: float, y: float, words: str, *rest: Any, **named: Any) -> float:
        end = plain(self, x, y, words, *rest, **named)
        drawn.append((words, x, y))
        return end

    Canvas.text = text  # type: ignore[method-assign]
    try:
        card = still(why)
    finally:
        Canvas.text = plain  # type: ignore[method-assign]
    pen, font = ImageDraw.Draw(card), ImageFont.load_default(24)
    for number, (part, before, aside) in enumerate(PARTS, 1):
        places = [(x, y) for words, x, y in drawn if words.startswith(part) or words.strip().endswith(part)]
        x, y = places[before]
        x, y = x + aside, y - 8
        pen.ellipse((x - 19, y - 19, x + 19, y + 19), fill=(20, 84, 160))
        pen.text((x, y), str(number), "white", font, anchor="mm")
    return card


if __name__ == "__main__":
    main()
