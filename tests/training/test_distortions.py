"""What is done to views: drawn by the place alone, as often as asked for, and boxes that say what is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError, UnknownNameError
from seewhy.pictures.images import random_crop
from seewhy.progress import Progress
from seewhy.training.augmentation import AUGMENTATIONS, Augmentation, TrainingPictures, augmentation
from seewhy.types import Crop
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


def test_by_as_much_as_asked_for() -> None:
    still = replace(PLAIN, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    flat = np.full((8, 8, 3), 100, np.uint8)
    light = [replace(still, brightness=0.4).distort(flat, drawn(i), 0).mean() / 100 for i in range(200)]
    assert 0.59 < min(light) < 0.65
    assert 1.35 < max(light) < 1.41
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    turned = [replace(still, hue=0.1).distort(red, drawn(i), 0)[0, 0].astype(int) for i in range(200)]
    # A turn of a tenth of the circle is 36 of 60 degrees from red to yellow: 0.6 of the red.
    for channel in (1, 2):
        assert 100 < max(one[channel] for one in turned) < 126
    assert all(one[0] == 200 for one in turned)


def test_blur_is_of_its_view_and_as_wide_as_the_picture_asks_for() -> None:
    def width(side: int, seed: int, how: Augmentation, view: int = 0) -> float:
        edge = np.zeros((side, side, 3), np.uint8)
        edge[:, side // 2 :] = 255
        slope = np.diff(how.distort(edge, drawn(seed), view)[side // 2, :, 0].astype(float))
        place = np.arange(len(slope))
        middle = (slope * place).sum() / slope.sum()
        return float(np.sqrt((slope * (place - middle) ** 2).sum() / slope.sum()))

    how = replace(PLAIN, blur=(1.0, 0.0))
    assert [width(224, 1, how, view) > 0 for view in range(3)] == [True, False, True]
    small, large = (np.mean([width(side, i, how) for i in range(5)]) for side in (224, 448))
    assert large / small == pytest.approx(2, rel=0.15)


def test_the_order_of_colours_is_drawn_and_what_is_drawn_is_drawn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[int] = []
    jittered = Augmentation._jittered
    with monkeypatch.context() as patch:
        patch.setattr(
            Augmentation,
            "_jittered",
            lambda self, image, which, by: first.append(which) or jittered(self, image, which, by),
        )
        for i in range(40):
            replace(PLAIN, jitter=1.0).distort(picture("rust", 2), drawn(i), 0)
    assert {*first[::4]} == {0, 1, 2, 3}
    how = replace(PLAIN, jitter=0.5, grey=0.5, contrast=0.0, saturation=0.0, hue=0.0)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 150
    seen = [how.distort(red, drawn(i), 0)[0, 0] for i in range(300)]
    both = np.mean([one[0] == one[1] and one[0] != round(150 * 0.299) for one in seen])
    assert 0.17 < both < 0.33


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


def cut(how: Augmentation, seed: int) -> Crop:
    return random_crop(drawn(seed), how.scale, how.aspect, how.flip)


def test_a_crop_has_the_size_asked_for() -> None:
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (cut(PLAIN, i).box for i in range(200))]
    assert 0.2 <= min(areas) < 0.25
    assert 0.95 < max(areas) <= 1.0
    crops = [cut(replace(PLAIN, scale=(0.2, 0.5)), i) for i in range(200)]
    shapes = [(b[2] - b[0]) / (b[3] - b[1]) for b in (crop.box for crop in crops)]
    assert 0.74 < min(shapes) < 0.8
    assert 1.25 < max(shapes) < 1.35
    assert 70 < sum(crop.flip for crop in crops) < 130
    assert not any(cut(AUGMENTATIONS["whole"], i).flip for i in range(20))


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"scale": (0.5, 0.2)}, {"aspect": (2.0, 1.0)}])
def test_a_crop_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        InputError,
        match=(
            "`scale` must be two ascending fractions from 0 to 1 and `aspect` two ascending ratios "
            "greater than 0, got scale="
        ),
    ):
        Augmentation(**wrong)


EACH = "`blur` and `solarise` must each have at least one probability from 0 to 1, got"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"grey": 1.5}, "`grey` of the augmentation must be a number from 0 to 1, got 1.5. Leave it out to use 0.2."),
        ({"hue": 0.6}, "`hue` of the augmentation must be a number from 0 to 0.5, got 0.6. Leave it out to use 0.1."),
        ({"blur": ()}, f"{EACH} blur=(), solarise=(0.0,)."),
        ({"solarise": (-1.0,)}, f"{EACH} blur=(0.5,), solarise=(-1.0,)."),
    ],
)
def test_what_is_no_part_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Augmentation(**wrong)
    assert str(caught.value) == says
    with pytest.raises(UnknownNameError, match="byol"):
        augmentation("boyl")
