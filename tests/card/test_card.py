"""The card, as a page, a still picture, in a notebook and on an index."""

from __future__ import annotations

import html
import io
import json
import re
import webbrowser
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import DataError
from seewhy.explanation.base import Explanation, Region, Where
from seewhy.explanation.prediction import Prediction, Ranked
from seewhy.explanation.verdict import Verdict
from seewhy.report import (
    canvas,
    index_entry,
    open_in_browser,
    render_html,
    render_index,
    render_png,
    save,
    still,
)
from seewhy.report.blocks import Chart, Columns
from seewhy.report.canvas import Canvas
from seewhy.report.card import card_of
from seewhy.report.charts import draw
from seewhy.report.evidence import crop, place_of
from seewhy.report.palette import COLOURS, blend, overlay, positive_part, upsample
from seewhy.types import Failure

NAMES = ("full", "contrast", "bare", "zero", "hostile")
VOID = {"meta", "link", "img", "input", "br", "hr"}
MARKUP = ("path", "circle", "polyline", "polygon")


class Page(HTMLParser):
    """What a browser would make of it: the tags, in a balanced tree, and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"<{tag}> repeats an attribute"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in MARKUP, f"<{tag}/> does not close itself in HTML"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split()).replace("\u202f", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def check(self) -> None:
        """One file, no network, every picture described, every link arrives."""
        ids = [a["id"] for _, a in self.tags if "id" in a]
        assert len(ids) == len(set(ids))
        for image in self.all("img"):
            assert image["src"].startswith("data:image/")
            assert "alt" in image
        for link in self.all("a"):
            if link["href"].startswith("#"):
                assert link["href"][1:] in ids, link["href"]
            else:
                assert not re.match(r"[a-z]+:|//", link["href"])
        for _, attributes in self.tags:
            for name in ("aria-labelledby", "aria-describedby", "for"):
                assert set((attributes.get(name) or "").split()) <= set(ids)
            assert not [name for name in attributes if name.startswith("on")], "an inline handler"
        assert len(self.all("h1")) == 1
        assert len(self.all("main")) == 1
        assert not self.all("link")
        assert not self.all("iframe")


def said(verdict: Verdict) -> str:
    return " ".join(verdict.sentence.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_whole_and_alone(cards: dict[str, Explanation], name: str) -> None:
    source = render_html(cards[name])
    page = Page(source)
    page.check()
    assert len(page.all("script")) == 1
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//|url\(|@import", source)
    assert "default-src 'none'" in source


def test_decision_runner_up_and_questions_come_in_order(full: Explanation) -> None:
    text = Page(render_html(full)).text
    places = [
        text.index(part)
        for part in (
            "chelsea_016.jpg tabby cat 58 %",
            "Looks right? See your pictures that are most similar to it.",
            "Where it looked Believable.",
            "What it looks like, in your pictures Partly believable.",
            "In words Do not rely on it.",
            "Do they agree? In part.",
            "64 % agreement",
            "Definitions",
        )
    ]
    assert places == sorted(places)


def test_every_evidence_ends_in_its_verdict_and_rule(full: Explanation) -> None:
    text = Page(render_html(full)).text
    for evidence, level in ((full.where, "Believable."), (full.like, "Partly"), (full.words, "Do not rely on it.")):
        assert f"{said(evidence.verdict)}" in text.replace(" ;", ";")
        assert f"The rule. {evidence.verdict.rule}" in text
        assert level in text


def test_letters_are_the_same_everywhere(full: Explanation) -> None:
    source = render_html(full)
    boxes = re.findall(r'class="box[^>]*><i>(.*?)</i>', source)
    badges = re.findall(r'<b class="letter">(.*?)</b>', source)
    assert boxes == ["A", "B", "C"]
    assert badges == ["A", "B", "C"] * 2  # the places, and what they are like


def test_neighbours_of_another_class_stay_and_are_marked(full: Explanation) -> None:
    source = render_html(full)
    assert source.count('<li class="other">') == 6
    assert len(re.findall(r'alt="Part of', source)) == 12
    assert Page(source).text.count("(another class)") == 6


def test_words_that_do_not_separate_are_shown_with_their_number(full: Explanation) -> None:
    text = Page(render_html(full)).text
    assert "a tail held upright 0.11 , does not hold" in text.replace("0.11,", "0.11 ,")
    assert "0.44 chance or worse" in text
    assert "0.38 chance or worse" in text
    assert text.count("chance or worse") == 2


def test_missing_evidence_says_why_and_what_it_takes(cards: dict[str, Explanation]) -> None:
    page = Page(render_html(cards["bare"]))
    for evidence in (cards["bare"].where, cards["bare"].like, cards["bare"].words):
        assert f"Not shown. {evidence.reason} Details {evidence.cure}" in page.text
    assert "the only class this classifier knows" in page.text
    assert len(page.all("img")) == 1


def test_one_class_listed_is_not_one_class_known(cards: dict[str, Explanation]) -> None:
    full = cards["full"]
    one = replace(full, prediction=Prediction("a.jpg", full.prediction.top[:1], 3))
    text = Page(render_html(one)).text
    assert "the only class this classifier knows" not in text
    assert "of 3 classes" in text
    assert "and 2 more classes" in text


def test_signs_that_no_font_has_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "_SYSTEM_FONTS", ())
    canvas._fitted.cache_clear()
    assert canvas._fitted("\u4e2d\u6587") == ("[4E2D][6587]", None)
    assert canvas._fitted("caf\u00e9")[0] in ("caf\u00e9", "cafe")
    canvas._fitted.cache_clear()


def test_maps_in_json_keep_their_edges(cards: dict[str, Explanation]) -> None:
    heat = np.zeros((37, 224), np.float32)
    heat[36, 223] = 1
    where = cards["full"].where
    assert isinstance(where, Where)
    rows = replace(where, heat=heat).to_json()["heat"]
    assert (len(rows), len(rows[0])) == (32, 32)
    assert rows[-1][-1] == round(1 / 7, 5)
    assert replace(where, heat=np.ones((4, 224), np.float32)).to_json()["heat"] == [[1.0] * 32] * 4


def test_a_zero_map_is_said_not_drawn(cards: dict[str, Explanation]) -> None:
    page = Page(render_html(cards["zero"]))
    assert "No part of this picture is evidence for tabby cat , so no heat is drawn." in page.text.replace(
        "cat,", "cat ,"
    )
    assert len(page.all("img")) == 1
    assert "no part of it is evidence for tabby cat" in (page.all("img")[0]["alt"] or "")


def test_a_contrast_is_titled_so(cards: dict[str, Explanation]) -> None:
    assert Page(render_html(cards["contrast"])).text.count("tabby cat rather than red fox") == 2  # heat, and method


def test_hostile_texts_are_inert(cards: dict[str, Explanation]) -> None:
    source = render_html(cards["hostile"])
    page = Page(source)
    assert len(page.all("script")) == 1
    assert "<script>alert" not in source
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert '<script>alert("x")</script>' in page.text
    assert "{{ 7*7 }}" in page.text


def test_unmeasured_and_tiny_numbers_are_not_dressed_up(full: Explanation) -> None:
    sure = replace(full, prediction=Prediction("a.jpg", (Ranked("cat", 0.9999), Ranked("dog", 0.0001))))
    text = Page(render_html(sure)).text
    assert "cat >99 %" in text
    assert "rather than dog, which has <1 %" in text


def test_a_notebook_gets_the_same_card_in_a_frame_of_its_own(full: Explanation) -> None:
    outer = Page(full._repr_html_())
    (frame,) = outer.all("iframe")
    told = re.sub(r"(?s)<script>/\* in the frame .*?</script>|'sha256-[^']+' (?='sha256)", "", frame["srcdoc"])
    assert told == render_html(full)
    assert frame["sandbox"] == "allow-scripts"


@pytest.mark.parametrize("name", NAMES)
def test_the_still_is_a_picture_with_something_on_it(cards: dict[str, Explanation], name: str) -> None:
    picture = Image.open(io.BytesIO(render_png(cards[name])))
    assert picture.format == "PNG"
    assert picture.width == 1400
    assert 700 < picture.height < 4000
    pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 20
    assert (pixels[-8:] > 240).all(), "the bottom margin is cut"
    assert (pixels[:, -40:] > 225).all(), "something runs into the right margin"


def test_likeness_stands_without_a_map(cards: dict[str, Explanation]) -> None:
    alone = replace(cards["full"], where=cards["bare"].where)
    page = Page(render_html(alone))
    page.check()
    assert "A looks like" in " ".join(page.text.split())
    assert "A tabby_cat_000.jpg tabby cat 0.91 11 %" in " ".join(page.text.split())
    assert Image.open(io.BytesIO(render_png(alone))).width == 1400


@pytest.mark.parametrize(("height", "width"), [(336, 112), (112, 336), (1, 1)])
def test_any_proportions_are_kept(cards: dict[str, Explanation], height: int, width: int) -> None:
    view = np.full((height, width, 3), 90, np.uint8)
    tall = replace(cards["full"], view=view)
    assert f'width="{width}" height="{height}"' in render_html(tall)
    picture = Image.open(io.BytesIO(render_png(tall)))
    assert picture.height >= still.LEFT * height / width


def test_the_still_shows_heat_where_it_is(cards: dict[str, Explanation]) -> None:
    warm, cold = (
        np.asarray(Image.open(io.BytesIO(render_png(cards[n]))).convert("RGB"), int) for n in ("full", "bare")
    )
    y, x = 56 + still.LEFT * 3 // 7, still.MARGIN + still.LEFT // 2
    assert np.abs(warm[y, x] - cold[y, x]).sum() > 60


@pytest.mark.parametrize("text", ["plain", "äéß – ≥ …", "日本語", "\u202f\u00a0", "\n\t\x00", "a" * 500, ""])
def test_any_text_can_be_drawn_and_fits(text: str) -> None:
    canvas = Canvas(400, 100)
    canvas.text(10, 50, canvas.clipped(text, 200, 20), 20)
    lines = canvas.lines(text, 200, 20, 3)
    assert len(lines) <= 3
    assert all(canvas.measure(line, 20) <= 200 for line in lines)


def test_colours_are_evenly_spaced_in_lightness() -> None:
    linear = np.where(COLOURS / 255 <= 0.04045, COLOURS / 255 / 12.92, ((COLOURS / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.cbrt(luminance)
    steps = np.diff(lightness[::16])
    assert (steps > 0).all()
    assert steps.max() / steps.min() < 2.5


def test_upsampling_is_that_of_torch() -> None:
    values = np.random.default_rng(0).random((7, 5))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=(31, 44), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample(values, 31, 44), expected[0, 0].numpy(), atol=1e-6)


def test_only_what_speaks_for_the_class_is_coloured() -> None:
    heat = np.array([[-2.0, 0.0], [np.nan, 4.0]])
    np.testing.assert_array_equal(positive_part(heat), [[0, 0], [0, 1]])
    layer = overlay(heat, 2, 2)
    assert layer is not None
    assert layer[..., 3].tolist() == [[0, 0], [0, 255]]
    assert overlay(-np.ones((2, 2)), 4, 4) is None
    view = np.full((4, 4, 3), 9, np.uint8)
    np.testing.assert_array_equal(blend(view, np.zeros((2, 2))), view)


def test_a_region_is_never_cut_empty() -> None:
    view = np.zeros((10, 20, 3), np.uint8)
    assert crop(view, Region("A", (0.5, 0.5, 0.5, 0.5), (0, 0, 1, 1), 0.1)).shape == (1, 1, 3)
    assert crop(view, Region("A", (1.0, 1.0, 1.2, 1.2), (0, 0, 1, 1), 0.1)).shape == (1, 1, 3)
    assert crop(view, Region("A", (0.0, 0.0, 0.5, 0.5), (0, 0, 1, 1), 0.1)).shape == (5, 10, 3)


@pytest.mark.parametrize(
    ("box", "place"),
    [((0, 0, 0.1, 0.1), "upper left"), ((0.4, 0.4, 0.6, 0.6), "centre"), ((0.4, 0.8, 0.6, 1), "lower middle")],
)
def test_places_have_names(box: tuple[float, float, float, float], place: str) -> None:
    assert place_of(Region("A", box, (0, 0, 1, 1), 0.1)) == place


def test_saving_goes_by_the_ending(full: Explanation, tmp_path: Path) -> None:
    assert full.save(tmp_path / "card.html").read_text("utf-8").rstrip() == render_html(full).rstrip()
    assert full.save(tmp_path / "card.PNG").read_bytes() == render_png(full)
    assert json.loads(full.save(str(tmp_path / "card.json")).read_text("utf-8")) == full.to_json()
    with pytest.raises(DataError) as error:
        save(full, tmp_path / "card.pdf")
    assert str(error.value) == f"A card file must end in .html, .png or .json, got {tmp_path / 'card.pdf'}."


def test_it_opens_in_the_browser_or_says_where_it_lies(full: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)) or True)
    open_in_browser(full)
    assert opened[0].startswith("file://")
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    with pytest.raises(DataError, match=r"No web browser could be started\. Open .*card.html yourself"):
        open_in_browser(full)


def entry_of(full: Explanation, image: str, label: str, score: float, level: str) -> Explanation:
    return replace(
        full,
        prediction=Prediction(image, (Ranked(label, score), Ranked("other", 1 - score))),
        where=replace(full.where, verdict=Verdict(level, "", "")),
        like=replace(full.like, verdict=Verdict("believable", "", "")),
        words=replace(full.words, verdict=Verdict("believable", "", "")),
    )


def test_the_index_begins_with_the_most_doubtful(full: Explanation) -> None:
    plan = (
        ("b.jpg", "cat", 0.9, "believable"),
        ("a.jpg", "fox", 0.4, "believable"),
        ("d.jpg", "cat", 0.8, "partly"),
        ("c.jpg", "cat", 0.99, "do not rely"),
    )
    entries = [index_entry(entry_of(full, *row), f"cards/{row[0]}.html") for row in plan]
    source = render_index(entries, [Failure("broken.jpg", "not a picture")])
    page = Page(source)
    page.check()
    cards = [a for a in page.all("li") if "data-label" in a]
    links = [a["href"] for a in page.all("a") if (a["href"] or "").startswith("cards/")]
    assert links == [f"cards/{name}.jpg.html" for name in "cdab"]
    assert [a["data-doubt"] for a in cards] == ["0", "1", "2", "3"]
    assert [a["data-name"] for a in cards] == ["2", "3", "0", "1"]
    assert [a["data-score"] for a in cards] == ["3", "1", "0", "2"]
    assert "cat (3)" in page.text
    assert "1 picture could not be read broken.jpg not a picture" in page.text
    assert "4 pictures, 1 with evidence that you should not rely on" in page.text


def test_the_index_takes_anything(cards: dict[str, Explanation]) -> None:
    entries = [index_entry(e, f"{name}.html") for name, e in cards.items()]
    source = render_index(entries, [Failure("<script>", "<b>")], title="<i>&")
    Page(source).check()
    assert "<i>&amp;" not in source
    assert html.escape("<i>&") in source
    Page(render_index([])).check()


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("width", [60, 150, 400])
def test_lines_hold_as_many_words_as_fit(width: int, bold: bool) -> None:
    """Beside the definition, word by word; the length of a text is measured once and is that of its font."""
    from seewhy.report.canvas import Canvas

    canvas = Canvas(10, 10)
    text = "it looked at the beak, the wing and an incomprehensibilities-like tail - not the sky"
    left, wanted = text.split(), []
    while left:
        n = next((n for n in range(len(left), 0, -1) if canvas.measure(" ".join(left[:n]), 22, bold) <= width), 0)
        if n == 0:
            head = next((n for n in range(len(left[0]), 1, -1) if canvas.measure(left[0][:n], 22, bold) <= width), 1)
            wanted.append(left[0][:head])
            left[0] = left[0][head:]
        else:
            wanted.append(" ".join(left[:n]))
            left = left[n:]
    assert canvas.lines(text, width, 22, 99, bold)[: len(wanted) - 1] == wanted[:-1]


def test_the_curves_pass_where_their_numbers_say(full: Explanation) -> None:
    """Hiding first: from the top left; showing: from below. The other map's dots are where its numbers are."""
    steps = tuple(i / 20 for i in range(21))
    where = replace(
        full.where,
        steps=steps,
        deletion_curve=tuple(0.45 - 0.4 * s for s in steps),
        insertion_curve=tuple(0.05 + 0.3 * s for s in steps),
        deletion_random_curve=(0.25,) * 21,
        insertion_random_curve=(0.15,) * 21,
    )
    assert isinstance(where, Where)
    for chart, curve, level in zip(
        charts_of(replace(full, where=where)), (where.deletion_curve, where.insertion_curve), (0.25, 0.15), strict=True
    ):
        drawing = draw(chart)
        (other, mine) = (s for s in drawing.shapes if s.kind == "line" and s.colour in ("ember", "idle"))
        low = max(s.place[1] for s in drawing.shapes if s.colour == "line")
        high = min(s.place[1] for s in drawing.shapes if s.colour == "line")
        for i in (1, 7, 13, 19):
            assert mine.place[2 * i + 1] == pytest.approx(low - (low - high) * curve[i] / 0.5, abs=0.1)
        assert other.place[5] == pytest.approx(low - (low - high) * level / 0.5, abs=0.1)


def charts_of(e: Explanation) -> list[Chart]:
    (section,) = (s for s in card_of(e).evidence if s.key == "where")
    assert section.more is not None
    (columns,) = (block for block in section.more.blocks if isinstance(block, Columns))
    return [chart for (chart,) in columns.columns]
