"""The versions of a picture: how many, how large, and always the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy.classifiers.linear.jitter import paper_twelve, random_crops, ten_crops
from seewhy.types import Crop


def _area(crop: Crop) -> float:
    left, top, right, bottom = crop.box
    return (right - left) * (bottom - top)


def test_random_crops_are_a_prefix_and_differ_by_picture_and_seed() -> None:
    eight = random_crops(8, seed=3, picture=5)
    assert random_crops(4, seed=3, picture=5) == eight[:4]
    assert random_crops(8, seed=3, picture=6) != eight
    assert random_crops(8, seed=4, picture=5) != eight


def test_half_are_mirrored() -> None:
    assert 60 < sum(c.flip for c in random_crops(200)) < 140


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


def _apart(values: np.ndarray, low: float, high: float) -> float:
    """Largest distance between the values' distribution and the uniform one (Kolmogorov and Smirnov)."""
    ordered = np.sort((values - low) / (high - low))
    return float(np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max())


def test_the_defaults_are_those_of_inception_crops_with_a_tenth_at_least() -> None:
    boxes = np.array([c.box for c in random_crops(1500, seed=6)])
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert _apart(width * height, 0.1, 1.0) < 0.05
    free = width < 1
    assert _apart(boxes[free, 0] / (1 - width[free]), 0, 1) < 0.05
    small = width * height < 0.7  # any ratio fits there
    assert _apart(np.log(width / height)[small], np.log(3 / 4), np.log(4 / 3)) < 0.05
