"""The versions of a picture: how many, how large, and always the same ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seewhy.classifiers.linear.jitter import paper_twelve, random_crops, ten_crops
from seewhy.errors import InputError
from seewhy.types import Crop


def _area(crop: Crop) -> float:
    left, top, right, bottom = crop.box
    return (right - left) * (bottom - top)


@given(seed=st.integers(0, 2**31), picture=st.integers(0, 10**6), low=st.floats(0.01, 1.0))
def test_random_crops_lie_inside_with_the_asked_area(seed: int, picture: int, low: float) -> None:
    for crop in random_crops(5, seed, picture, scale=(low, 1.0)):
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert low - 1e-9 <= _area(crop) <= 1 + 1e-9


def test_random_crops_are_a_prefix_and_differ_by_picture_and_seed() -> None:
    eight = random_crops(8, seed=3, picture=5)
    assert random_crops(4, seed=3, picture=5) == eight[:4]
    assert random_crops(8, seed=3, picture=6) != eight
    assert random_crops(8, seed=4, picture=5) != eight


def test_flip_is_half_and_can_be_off() -> None:
    assert 60 < sum(c.flip for c in random_crops(200)) < 140
    assert not any(c.flip for c in random_crops(200, flip=False))
    assert [c.box for c in random_crops(9, flip=False)] == [c.box for c in random_crops(9)]


def test_ten_crops_are_five_and_their_mirror_images() -> None:
    crops = ten_crops(0.5)
    assert len(set(crops)) == 10
    assert [c.box for c in crops[:5]] == [c.box for c in crops[5:]]
    assert [c.flip for c in crops] == [False] * 5 + [True] * 5


def test_the_papers_crops_have_four_ninths_of_the_area() -> None:
    views = paper_twelve()
    assert views[0] is None
    assert len(views) == 12
    for view in views[2:]:
        assert view is not None
        assert _area(view) == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    "arguments",
    [{"n": -1}, {"n": 1, "scale": (0.0, 1.0)}, {"n": 1, "scale": (0.5, 0.4)}, {"n": 1, "aspect": (2.0, 1.0)}],
)
def test_bad_arguments(arguments: dict) -> None:
    with pytest.raises(InputError, match="Expected"):
        random_crops(**arguments)
    with pytest.raises(InputError, match="Expected"):
        ten_crops(0.0)
