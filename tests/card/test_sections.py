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

from seewhy.explanation.kinds import MadePicture, Typical
from seewhy.explanation.part import Outside, Part
from seewhy.explanation.prediction import Prediction, Ranked
from seewhy.explanation.similar import Because, Likeness
from seewhy.explanation.verdict import Missing, Verdict
from seewhy.report import overviews as regions
from seewhy.report.blocks import Heat
from seewhy.report.canvas import EMBER, IDLE, Canvas
from seewhy.report.card import _picture, dimming
from seewhy.report.evidence import KINDS, NOT_COMPARED, bars_of
from seewhy.report.overviews import render_regions
from seewhy.report.page import place as css
from seewhy.report.palette import class_colours
from seewhy.report.still import draw_blocks

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


def explained(part: Part, view: tuple[int, int] = (64, 64)) -> Any:
    return SimpleNamespace(in_view=1.0, 
        part=part, view=np.zeros((*view, 3), np.uint8), where=Missing("", ""), subject=None,
        prediction=Prediction("a.png", (Ranked("cat", 1.0),)),
    )  # fmt: skip


def test_a_box_lies_on_the_whole_picture_and_dims_the_rest_of_its_view() -> None:
    view, whole = (b for b in _picture(explained(box(), (256, 256))) if isinstance(b, Heat))
    assert view.dark is not None
    # From half of the frame's width to beyond it, and from a fifth to four fifths of its height.
    expected = np.full((256, 256), 140)
    expected[51:205, 128:] = 0
    assert (view.dark[..., 3] == expected).all()
    assert (whole.frame, whole.dark, whole.is_whole) == ((0.25, 0.2, 0.75, 0.8), None, True)
    assert css(whole.frame) == "left:25.00%;top:20.00%;width:50.00%;height:60.00%"
    assert dimming(box(), (32, 64), (60, 30, 140, 70)) is None, "all of it is inside"
    assert box().said == "box 2 of 3, found as cat with a score of 0.50"


def test_a_segment_dims_the_whole_picture_too() -> None:
    mask = np.zeros((100, 200), bool)
    mask[:50, 100:] = True
    _, whole = (b for b in _picture(explained(box(kind="segment", mask=mask))) if isinstance(b, Heat))
    assert whole.frame is None
    assert whole.dark is not None
    layer = whole.dark[..., 3]
    assert layer.shape == (50, 100)
    assert (layer[:25, 50:] == 0).all()
    assert (layer[25:] == 140).all()
    assert (layer[:, :50] == 140).all()


def test_figures_of_a_part_are_each_its_own() -> None:
    given = box().outside
    assert given is not None
    (bars,), figures, _ = KINDS["part"](given, explained(box()))
    assert [(bar.name, bar.value) for bar in bars.bars] == [
        ("as it is", 0.9), ("everything else hidden", 0.8), ("box hidden", 0.2)
    ]  # fmt: skip
    assert [(name, value) for _, name, value in figures] == [
        ("Done inside", "60\u202f%"), ("Box hidden, log-odds fall by", "3.00"), ("as much elsewhere", "0.50"),
        ("all else hidden", "0.50"),
    ]  # fmt: skip
    _, figures, _ = KINDS["part"](replace(given, fall_outside=0.1), explained(box()))
    assert [value for *_, value in figures][2:] == ["0.50", "0.10"]


def test_the_still_shows_the_whole_picture_with_the_part_bright() -> None:
    canvas, part = Recorder(), box(kind="segment", mask=np.pad(np.ones((60, 100), bool), ((20, 20), (50, 50))))
    _, whole = (b for b in _picture(explained(part)) if isinstance(b, Heat))
    assert draw_blocks(canvas, [whole], 10, 100, 500) == 100 + 150 + 36 + 36
    ((x, y, picture, width, height),) = canvas.photos
    assert (x, y, width, height) == (10, 100, 300, 150)
    expected = np.full((50, 100), round(200 * (1 - 140 / 255)))
    expected[10:40, 25:75] = 200
    assert (np.abs(picture[..., 0].astype(int) - expected) <= 1).all()
    assert (part.picture == 200).all(), "the result is left as it was"


def detected(n: int = 0, name: str = "a.png", found: tuple[Any, ...] = ()) -> Any:
    one = [SimpleNamespace(label="b", score=1 - i / 1000, box=(0.0, 0.0, 9.0, 9.0)) for i in range(n)]
    return SimpleNamespace(
        image=f"x/{name}", size=(200, 100), classes=("a", "b"), regions=[*found, *one], about=ABOUT,
        not_found=(), pixels=np.zeros((10, 20, 3), np.uint8),
    )  # fmt: skip


def test_boxes_are_placed_in_per_cent_and_the_surest_is_drawn_last() -> None:
    first = SimpleNamespace(label="a", score=0.9, box=(50.0, 20.0, 150.0, 80.0))
    page = render_regions([detected(2, found=(first,))])
    surest = "left: 25.00%; top: 20.00%; width: 50.00%; height: 60.00%"
    assert surest in page
    assert page.index("left: 0.00%") < page.index(surest)
    red, green = ("#{:02x}{:02x}{:02x}".format(*c) for c in class_colours(2))
    assert f"--of: {red}; {surest}" in page
    assert page.index(f'background: {green}"></i><b>b</b> <span>2<') < page.index("<b>a</b> <span>1<")
    assert "are not drawn" not in page
    assert '<h1 class="long">a.png</h1>' in page


def test_what_a_page_of_boxes_leaves_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    many = render_regions([detected(301)])
    assert many.count('class="box"') == 300
    assert "<b>b</b> <span>301</span>" in many
    assert "1 box with a lower score is not drawn" in many
    assert "2 boxes with lower scores are not drawn" in render_regions([detected(302)])
    monkeypatch.setattr(regions, "MOST_SHOWN", 2)
    three = [detected(1, f"{i}.png") for i in range(3)]
    assert "1 more picture is in the other files." in render_regions(three)
    page = render_regions(three, 9)
    assert "7 more pictures are in the other files." in page
    assert '<h1 class="long">9 pictures</h1>' in page


def segmented(mask: np.ndarray, name: str = "a.png") -> Any:
    found = [SimpleNamespace(label="b", share=0.25, score=0.5)]
    return SimpleNamespace(
        image=name, size=mask.shape[::-1], classes=("a", "b"), mask=mask, regions=found, about=ABOUT,
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
    page = render_regions([segmented(mask)])
    assert "<b>b</b> <span>25\u202f% of the picture · score 0.50</span>" in page
    assert "<b>no name</b> <span>50\u202f% of the picture" in page


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
    monkeypatch.setattr(regions, "MOST_SHOWN", 2)
    three = [segmented(np.zeros((4, 4), np.uint8), f"{i}.png") for i in range(3)]
    page = render_regions(three)
    assert page.count("<figure>") == 2
    assert "1 more picture is in the other files." in page
    page = render_regions(three, 9)
    assert "7 more pictures are in the other files." in page
    assert '<h1 class="long">9 pictures</h1>' in page


def typical(n: int = 2) -> Typical:
    made = [
        MadePicture(np.full((2, 2, 3), i, np.uint8), 0.9 - i / 10, seen, agrees)
        for i, (seen, agrees) in enumerate((("wren", True), ("rust", None), (None, None), ("owl", False)))
    ]
    return Typical("wren", "the climbed", tuple(made[:n]), "the judge", "It draws.", VERDICT)


def test_made_pictures_say_what_is_seen_in_them() -> None:
    (row,), _, (lead, table, behind) = KINDS["typical"](typical(4), explained(box()))
    said = ["seen as wren", "seen as rust", "not judged", "seen as owl"]
    assert [one.alt for one in row.pictures] == [f"Generated picture {i + 1}, {s}" for i, s in enumerate(said)]
    assert not any(str(one.caption[0]) for one in row.pictures)
    probabilities = [f"{n}\u202f%" for n in (90, 80, 70, 60)]
    assert table.rows == [(str(i + 1), p, s) for i, (p, s) in enumerate(zip(probabilities, said, strict=True))]
    assert [one.kind for one in row.pictures] == ["", "", "", "other"]
    assert [int(one.pixels.max()) for one in row.pictures] == [0, 1, 2, 3]
    assert "They show what the climbed classifies as wren" in lead.text
    assert behind.text == "The generator was It draws.."


@pytest.mark.parametrize(("n", "side"), [(2, 170), (4, 170)])
def test_made_pictures_stand_side_by_side_on_the_still(n: int, side: int) -> None:
    canvas = Recorder()
    shown, _, _ = KINDS["typical"](typical(n), explained(box()))
    end = draw_blocks(canvas, shown, 20, 50, 800)
    assert [(x, width, height) for x, _, _, width, height in canvas.photos] == [
        (20 + i * (side + 28), side, side) for i in range(n)
    ]
    top = canvas.photos[0][1]
    assert end > top + side


def near(lost: dict[str, float], sentence: str = "mostly hue") -> Likeness:
    because = Because(lost, {}, {}, "calibrated", sentence)
    return Likeness("A", "a.png", "moss", (0, 0, 1, 1), (0, 0, 1, 1), 0.9, 0.5, because=because)


def test_bars_are_on_the_scale_of_the_card() -> None:
    found = bars_of(near({"hue": 0.2, "shape": -0.4}), 0.5)
    assert found is not None
    assert str(found.title) == "mostly hue"
    assert [(b.name, b.value, b.colour) for b in found.bars] == [("hue", 0.4, "ember"), ("shape", 0.8, "idle")]
    assert found.bars[1].title == "shape: gains 40\u202f%"
    found = bars_of(near({"hue": 0.2, "shape": 0.1}, ""), 0.1)
    assert found is not None
    assert str(found.title) == NOT_COMPARED
    assert [b.value for b in found.bars] == [1.0, 1.0]


def test_a_gain_is_drawn_in_another_colour() -> None:
    canvas = Recorder()
    found = bars_of(near({"hue": 0.2, "shape": -0.1}), 0.4)
    assert found is not None
    draw_blocks(canvas, [found], 10, 40, 272)
    drawn = [(x, width, fill) for x, _, width, _, _, fill in canvas.panels if fill in (EMBER, IDLE)]
    assert drawn == [(82, 100, EMBER), (82, 50, IDLE)]
    assert [text for _, _, text in canvas.texts] == ["mostly hue", "hue", "shape"]
