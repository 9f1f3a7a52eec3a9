"""What a model proposes: boxes on the picture with its own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.language.annotation.desk import ClassifierSeeder, _inside
from tiny import colour_reader

SIDE = 54
MOSS, RUST = (255, 128, 0), (0, 128, 255)


@pytest.fixture(scope="module")
def reader() -> Classifier:
    return Pretrained().build(colour_reader())


def saved(place: Path, **squares: tuple[tuple[int, int, int], int, int]) -> str:
    """Grey, 16 pixels of a colour at a row and a column each."""
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    for colour, row, column in squares.values():
        pixels[row : row + 16, column : column + 16] = colour
    Image.fromarray(pixels).save(place)
    return str(place)


@given(st.tuples(*[st.floats(-0.5, 1.5)] * 4))
def test_a_box_ends_on_the_picture_and_holds_something(box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = _inside(box)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert (left, top, right, bottom) == _inside((left, top, right, bottom))


def test_a_box_inside_is_rounded_and_one_outside_is_cut() -> None:
    assert _inside((0.1234567, 0.2, 0.7654321, 0.9)) == (0.12346, 0.2, 0.76543, 0.9)
    assert _inside((-0.1, 0.2, 1.3, 0.9)) == (0.0, 0.2, 1.0, 0.9)
    assert _inside((0.5, 0.5, 0.5, 0.5)) == (0.5, 0.5, 0.50001, 0.50001)
    assert _inside((1.2, 1.0, 1.4, 1.0)) == (0.99999, 0.99999, 1.0, 1.0)


def test_a_classifier_proposes_what_it_sees_where_it_sees_it(reader: Classifier, tmp_path: Path) -> None:
    name = saved(tmp_path / "two.png", first=(MOSS, 0, 0), second=(RUST, 32, 32))
    author, objects, text = ClassifierSeeder(reader, threshold=0.7)(name)
    assert author == "the model (pretrained)"
    found = {o.label: o.box for o in objects}
    assert set(found) == {"moss", "rust"}
    assert [o.id for o in objects] == ["seed-1", "seed-2"]
    centres = {label: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for label, b in found.items()}
    assert max(centres["moss"]) < 0.4
    assert min(centres["rust"]) > 0.6
    for object_ in objects:
        assert object_.description
        assert object_.box == _inside(object_.box), "what is proposed is rounded, and on the picture"
    assert "moss" in text
    assert "rust" in text
