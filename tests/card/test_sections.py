"""Sections of cards and pages by hand: what is drawn where, in which colour, and with which figure."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.explanation.measures import Because
from seewhy.explanation.part import Outside, Part
from seewhy.explanation.similar import Like, Likeness
from seewhy.explanation.typical import MadePicture, Typical
from seewhy.explanation.verdict import Missing, Verdict
from seewhy.report import regions
from seewhy.report.because import NOT_COMPARED, Bar, Bars, bars_of, draw_bars, scale_of
from seewhy.report.canvas import EMBER, IDLE, INK, Canvas
from seewhy.report.palette import class_colours
from seewhy.report.part import dimming, draw_whole, part_page
from seewhy.report.regions import render_boxes, render_segments
from seewhy.report.typical import draw_typical, seen_said, typical_page

VERDICT = Verdict("believable", "Told.", "Rule.")
ABOUT = {"method": "x", "encoder": "y", "fingerprint": "z", "input": [32, 32]}


def pixels_of(uri: str) -> np.ndarray:
    """What a browser would show."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


class Recorder(Canvas):
    """Keeps what is drawn, and draws nothing."""

    def __init__(self) -> None:
        super().__init__(800, 600)
        self.photos: list[tuple[Any, ...]] = []
        self.panels: list[tuple[Any, ...]] = []
        self.texts: list[tuple[float, float, str]] = []
        self.marks: list[tuple[Any, ...]] = []
        self.draw: Any = SimpleNamespace(rectangle=lambda box, fill: self.marks.append((*box, fill)))

    def photo(self, x: float, y: float, picture: Any, width: int, height: int, radius: float) -> None:
        self.photos.append((x, y, np.asarray(picture), width, height))

    def panel(self, *given: Any, **_: Any) -> None:
        self.panels.append(given)

    def text(self, x: float, y: float, text: str, *_: Any, **__: Any) -> float:
        self.texts.append((x, y, text))
        return x


def box(**changed: Any) -> Part:
    """The middle of a wide picture, of which the view shows the left square."""
    outside = Outside(0.9, 0.2, 0.8, 3.0, 0.5, (0.25, 0.75), 0.6, VERDICT)
    picture = np.full((50, 100, 3), 200, np.uint8)
    made = Part("box", 2, 3, "cat", 0.5, (50, 20, 150, 80), (200, 100), picture, (0, 0, 100, 100), outside=outside)
    return replace(made, **changed)


def shown(part: Part, view: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    explanation: Any = SimpleNamespace(part=part, view=np.zeros((*view, 3), np.uint8))
    page = part_page(explanation)
    assert page is not None
    return page


def test_a_box_lies_on_the_whole_picture_and_dims_the_rest_of_its_view() -> None:
    page = shown(box())
    assert page["css"] == "left:25.00%;top:20.00%;width:50.00%;height:60.00%"
    assert (page["size"], page["layer"]) == ((50, 100), None)
    layer = pixels_of(page["view_layer"])[..., 3]
    assert layer.shape == (256, 256)
    # From half of the frame's width to beyond it, and from a fifth to four fifths of its height.
    expected = np.full((256, 256), 140)
    expected[51:205, 128:] = 0
    assert (layer == expected).all()
    assert pixels_of(shown(box(), (32, 64))["view_layer"]).shape == (128, 256, 4)
    assert shown(box(frame=(60, 30, 140, 70)))["view_layer"] is None, "all of it is inside"
    assert page["said"] == "box 2 of 3, found as cat with a score of 0.50"


def test_a_segment_dims_the_whole_picture_too() -> None:
    mask = np.zeros((100, 200), bool)
    mask[:50, 100:] = True
    part = box(kind="segment", mask=mask)
    layer = pixels_of(shown(part)["layer"])[..., 3]
    assert layer.shape == (128, 256)
    assert (layer[:64, 128:] == 0).all()
    assert (layer[64:] == 140).all()
    assert (layer[:, :128] == 140).all()
    assert dimming(box(), (50, 100), whole=True) is None


def test_figures_of_a_part_are_each_its_own() -> None:
    page = shown(box())
    assert [bar["value"] for bar in page["bars"]] == [0.9, 0.8, 0.2]
    assert [bar["name"] for bar in page["bars"]] == ["as it is", "everything else hidden", "box hidden"]
    assert [(name, value) for _, name, value in page["figures"]] == [
        ("Done inside", "60\u202f%"), ("Box hidden, log-odds fall by", "3.00"), ("as much elsewhere", "0.50"),
        ("all else hidden", "0.50"),
    ]  # fmt: skip
    given = box().outside
    assert given is not None
    other = shown(box(outside=replace(given, fall_outside=0.1)))
    assert [value for *_, value in other["figures"]][2:] == ["0.50", "0.10"]
    plain = shown(box(outside=None))
    assert (plain["verdict"], plain["bars"], plain["figures"]) == (None, [], [])


def test_the_still_shows_the_whole_picture_with_the_part_bright() -> None:
    canvas, part = Recorder(), box()
    assert draw_whole(canvas, part, 10, 100, 500) == 100 + 150 + 36
    ((x, y, picture, width, height),) = canvas.photos
    assert (x, y, width, height) == (10, 92, 300, 150)
    expected = np.full((50, 100), int(200 * (1 - 140 / 255)))
    expected[10:40, 25:75] = 200
    assert (picture[..., 0] == expected).all()
    assert (part.picture == 200).all(), "the result is left as it was"
    assert draw_whole(canvas, None, 10, 100, 500) == 100


def detected(n: int = 0, name: str = "a.png", found: tuple[Any, ...] = ()) -> Any:
    one = [SimpleNamespace(label="b", score=1 - i / 1000, box=(0.0, 0.0, 9.0, 9.0)) for i in range(n)]
    return SimpleNamespace(
        image=f"x/{name}", size=(200, 100), classes=("a", "b"), found=[*found, *one], about=ABOUT,
        not_found=(), pixels=np.zeros((10, 20, 3), np.uint8),
    )  # fmt: skip


def test_boxes_are_placed_in_per_cent_and_the_surest_is_drawn_last() -> None:
    first = SimpleNamespace(label="a", score=0.9, box=(50.0, 20.0, 150.0, 80.0))
    page = render_boxes([detected(2, found=(first,))])
    surest = "left: 25.00%; top: 20.00%; width: 50.00%; height: 60.00%"
    assert surest in page
    assert page.index("left: 0.00%") < page.index(surest)
    red, green = ("#{:02x}{:02x}{:02x}".format(*c) for c in class_colours(2))
    assert f"--of: {red}; {surest}" in page
    assert page.index(f'background: {green}"></i><b>b</b> <span>2<') < page.index("<b>a</b> <span>1<")
    assert "are not drawn" not in page
    assert '<h1 class="long">a.png</h1>' in page


def test_what_a_page_of_boxes_leaves_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    many = render_boxes([detected(301)])
    assert many.count('class="box"') == 300
    assert "<b>b</b> <span>301</span>" in many
    assert "1 less sure one is not drawn" in many
    assert "2 less sure ones are not drawn" in render_boxes([detected(302)])
    monkeypatch.setattr(found_in_pictures, "MOST_SHOWN", 2)
    three = [detected(1, f"{i}.png") for i in range(3)]
    assert "1 more picture is in the other files." in render_boxes(three)
    page = render_boxes(three, 9)
    assert "7 more pictures are in the other files." in page
    assert '<h1 class="long">9 pictures</h1>' in page


def segmented(mask: np.ndarray, name: str = "a.png") -> Any:
    found = [SimpleNamespace(label="b", share=0.25, score=0.5)]
    return SimpleNamespace(
        image=name, size=mask.shape[::-1], classes=("a", "b"), mask=mask, segments=found, about=ABOUT,
        not_found=(), unnamed=float((mask >= 2).mean()), pixels=np.zeros((10, 20, 3), np.uint8),
    )  # fmt: skip


def test_a_mask_is_laid_over_in_its_colours_and_what_has_no_name_is_counted() -> None:
    mask = np.zeros((40, 80), np.uint8)
    mask[:, 20:], mask[:, 40:] = 1, 2
    figure = regions._layer(segmented(mask))
    layer = pixels_of(figure["layer"])
    for place, colour in zip((0, 30), class_colours(2), strict=True):
        assert layer[5, place].tolist() == [*colour, 150]
    assert (layer[:, 40:, 3] == 0).all()
    assert figure["unnamed"] == 0.5
    page = render_segments([segmented(mask)])
    assert "<b>b</b> <span>25\u202f% of the picture · score 0.50</span>" in page
    assert "<b>none of these</b> <span>50\u202f% of the picture" in page


@pytest.mark.parametrize(
    ("size", "expected"), [((900, 30), (900, 30)), ((901, 30), (451, 15)), ((60, 2000), (20, 667))]
)
def test_a_large_mask_is_laid_over_whole_and_smaller(size: tuple[int, int], expected: tuple[int, int]) -> None:
    mask = np.ones(size, np.uint8)
    mask[0, 0] = 0
    layer = pixels_of(regions._layer(segmented(mask))["layer"])
    assert layer.shape == (*expected, 4)
    assert layer[-1, -1].tolist() == [*class_colours(2)[1], 150]


def test_what_a_page_of_segments_leaves_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_in_pictures, "MOST_SHOWN", 2)
    three = [segmented(np.zeros((4, 4), np.uint8), f"{i}.png") for i in range(3)]
    page = render_segments(three)
    assert page.count("<figure>") == 2
    assert "1 more picture is in the other files." in page
    page = render_segments(three, 9)
    assert "7 more pictures are in the other files." in page
    assert '<h1 class="long">9 pictures</h1>' in page


def typical(n: int = 2) -> Typical:
    made = [
        MadePicture(np.full((2, 2, 3), i, np.uint8), 0.9 - i / 10, seen, agrees)
        for i, (seen, agrees) in enumerate((("wren", True), ("rust", None), (None, None), ("owl", False)))
    ]
    return Typical("wren", "the climbed", tuple(made[:n]), "the judge", "It draws.", VERDICT)


def test_made_pictures_say_what_is_seen_in_them() -> None:
    page = typical_page(typical(4))
    assert page is not None
    assert [(one["said"], one["agrees"]) for one in page["pictures"]] == [
        ("seen as wren", True), ("seen as rust", None), ("not judged", None), ("seen as owl", False)
    ]  # fmt: skip
    assert [one["value"] for one in page["pictures"]] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert [int(pixels_of(one["picture"]).max()) for one in page["pictures"]] == [0, 1, 2, 3]
    assert "They show what the climbed takes for wren" in page["lead"]
    assert (page["title"], page["judge"], page["drawn"]) == ("A typical wren, made", "the judge", "It draws.")
    assert typical_page(None) is None
    assert seen_said(MadePicture(np.zeros((2, 2, 3), np.uint8), 0.1)) == "not judged"


@pytest.mark.parametrize(("n", "side"), [(2, 248), (4, 179)])
def test_made_pictures_stand_side_by_side_on_the_still(n: int, side: int) -> None:
    canvas = Recorder()
    end = draw_typical(canvas, typical(n), 20, 50, 800)
    assert [(x, width, height) for x, _, _, width, height in canvas.photos] == [
        (20 + i * (side + 28), side, side) for i in range(n)
    ]
    top = canvas.photos[0][1]
    assert top > 50, "below the lead"
    assert end == top + side + 84
    assert [text for _, _, text in canvas.texts if "own" in text] == [
        f"made, own probability {90 - 10 * i} %" for i in range(n)
    ]


def near(lost: dict[str, float], overall: dict[str, float] | None = None, sentence: str = "mostly hue") -> Likeness:
    because = Because(lost, {}, {}, "calibrated", sentence, overall)
    return Likeness("A", "a.png", "moss", (0, 0, 1, 1), (0, 0, 1, 1), 0.9, 0.5, because=because)


def test_bars_have_one_scale_for_the_card_and_marks_on_it() -> None:
    first = near({"hue": 0.2, "shape": -0.4}, {"hue": 0.5, "shape": -0.1})
    like = Like("x", (first, replace(first, because=None)), 1.0, None, None, VERDICT)
    assert scale_of(like) == 0.5, "what is lost over all pictures counts too"
    assert scale_of(replace(like, neighbours=(near({"hue": 0.02}),))) == 0.1
    assert scale_of(Missing("none", "cure")) == 0.1
    found = bars_of(first, 0.5)
    assert found == Bars("mostly hue", (Bar("hue", 0.2, 0.4, 0.5, 1.0), Bar("shape", -0.4, 0.8, -0.1, 0.0)))
    found = bars_of(near({"hue": 0.2, "shape": 0.1}, {"hue": 0.9}, ""), 0.1)
    assert found == Bars(NOT_COMPARED, (Bar("hue", 0.2, 1.0, 0.9, 1.0), Bar("shape", 0.1, 1.0, None, None)))


def test_a_gain_is_drawn_in_another_colour_and_a_mark_at_its_place() -> None:
    canvas = Recorder()
    bars = (Bar("hue", 0.2, 0.5, 0.1, 0.25), Bar("shape", -0.1, 0.25, 0.0, 0.0), Bar("texture", 0.0, 0.0))
    end = draw_bars(canvas, 10, 40, 272, Bars("Said.", bars))
    drawn = [(x, width, fill) for x, _, width, _, _, fill in canvas.panels if fill in (EMBER, IDLE)]
    assert drawn == [(82, 100, EMBER), (82, 50, IDLE)]
    assert [(mark[0], mark[-1]) for mark in canvas.marks] == [(82 + 0.25 * 198, INK), (82, INK)]
    assert [text for _, _, text in canvas.texts] == ["Said.", "hue", "shape", "texture"]
    assert end == canvas.texts[1][1] + 3 * 18
