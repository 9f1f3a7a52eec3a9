"""What is done to views: drawn by the place alone, as often as asked for, and boxes that say what is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError, UnknownNameError
from seewhy.progress import Progress
from seewhy.training.augmentation import TrainingPictures
from seewhy.training.distortions import AUGMENTATIONS, Augmentation, augmentation
from tiny import picture, tiny_cnn

PLAIN = Augmentation(jitter=0.0, grey=0.0, blur=(0.0,), solarise=(0.0,))


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed])


def test_nothing_asked_for_nothing_done() -> None:
    pixels = picture("moss", 1)
    assert np.array_equal(PLAIN.distort(pixels, drawn(), 0), pixels)


def test_each_alone() -> None:
    pixels = picture("moss", 1)
    grey = replace(PLAIN, grey=1.0).distort(pixels, drawn(), 0)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    sun = replace(PLAIN, solarise=(0.0, 1.0))
    assert np.array_equal(sun.distort(pixels, drawn(), 0), pixels)
    turned = sun.distort(pixels, drawn(), 1)
    assert np.array_equal(turned, np.where(pixels < 128, pixels, 255 - pixels))
    soft = replace(PLAIN, blur=(1.0,)).distort(np.repeat(pixels, 6, 0).repeat(6, 1), drawn(), 0)
    assert not np.array_equal(soft, np.repeat(pixels, 6, 0).repeat(6, 1))


@pytest.mark.parametrize("which", ["brightness", "contrast", "saturation", "hue"])
def test_of_the_jitter_each_alone(which: str) -> None:
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    pixels = picture("rust", 2)
    how = replace(PLAIN, jitter=1.0, **{**still, which: 0.4})
    changed = how.distort(pixels, drawn(3), 0).astype(float)
    assert np.abs(changed - pixels).mean() > 0.5
    assert np.array_equal(replace(how, jitter=0.0).distort(pixels, drawn(3), 0), pixels)
    if which == "brightness":
        assert changed.mean() != pytest.approx(pixels.mean(), abs=1)
    if which == "hue":
        assert changed.max(2).mean() == pytest.approx(pixels.max(2).mean(), abs=2)


def test_as_often_as_asked_for_and_the_same_for_the_same_place() -> None:
    pixels, how = picture("sky", 1), replace(PLAIN, grey=0.2)
    changed = [not np.array_equal(how.distort(pixels, drawn(i), 0), pixels) for i in range(400)]
    assert 0.14 < np.mean(changed) < 0.26
    full = AUGMENTATIONS["byol"]
    assert np.array_equal(full.distort(pixels, drawn(5), 1), full.distort(pixels, drawn(5), 1))


def test_views_say_which_part_they_show() -> None:
    """The picture tells its own place: red grows across, green down."""
    across = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
    where = np.stack([across, across.T, np.zeros_like(across)], 2)
    encoder = tiny_cnn()
    read = TrainingPictures(encoder, [where] * 3, None, Progress(), n_views=2, augmentation=PLAIN)
    index, found = read.batch([0, 1, 2], [drawn(i) for i in range(3)])
    assert index == [0, 1, 2]
    assert found["boxes"].shape == (2, 3, 4)
    for v in range(2):
        for i in range(3):
            left, top, right, bottom = found["boxes"][v, i].tolist()
            red, green = ((found["views"][v][i, c] * 0.25 + 0.5) for c in (0, 1))
            ends = (red[:, -1].mean().item(), red[:, 0].mean().item())
            low, high = ends if found["flipped"][v, i] else ends[::-1]
            assert (low, high) == (pytest.approx(left, abs=0.05), pytest.approx(right, abs=0.05))
            assert green[0].mean().item() == pytest.approx(top, abs=0.05)
            assert green[-1].mean().item() == pytest.approx(bottom, abs=0.05)
    assert not found["boxes"][0].equal(found["boxes"][1])


def test_a_crop_has_the_size_asked_for() -> None:
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (PLAIN.crop(drawn(i)).box for i in range(200))]
    assert 0.2 <= min(areas) < 0.25
    assert 0.95 < max(areas) <= 1.0


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"scale": (0.5, 0.2)}, {"aspect": (2.0, 1.0)}])
def test_a_crop_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^The augmentation was given scale=.* the smaller first, were expected\."):
        Augmentation(**wrong)


@pytest.mark.parametrize("wrong", [{"grey": 1.5}, {"hue": 0.6}, {"blur": ()}, {"solarise": (-1.0,)}])
def test_what_is_no_part_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^The augmentation was given parts outside 0 to 1: .* Change them\.$"):
        Augmentation(**wrong)
    with pytest.raises(UnknownNameError, match="byol"):
        augmentation("boyl")
