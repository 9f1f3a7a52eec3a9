"""What each change does to a picture: closed forms, the authors' numbers, and equal amounts where that is promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from seewhy.errors import InputError
from seewhy.prototypes.perturbations import (
    PROPERTIES,
    EqualChanges,
    PaperChanges,
    coloured,
    denoise,
    find_changes,
    non_local_mean,
    picture_change,
    warp,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "characteristics.json").read_text())


def cat() -> np.ndarray:
    """The picture of the golden numbers."""
    part = Image.fromarray(skimage.data.chelsea()[40:240, 90:340])
    return np.asarray(part.resize((125, 100), Image.Resampling.BICUBIC))


def noise(seed: int = 0, shape: tuple[int, ...] = (24, 31, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def flat(*colour: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (30, 26, 3)).copy()


def grey(picture: np.ndarray) -> np.ndarray:
    """Pillow's ITU-R 601 luma, whole numbers."""
    return np.asarray(Image.fromarray(picture).convert("L"))


def test_brightness_is_a_product() -> None:
    x = noise()
    assert np.array_equal(coloured(x, "brightness", 0.8), np.floor(x * np.float32(0.8)).astype(np.uint8))


def test_contrast_goes_to_the_mean_grey() -> None:
    x = noise()
    mean = int(grey(x).mean() + 0.5)
    expected = x * 0.45 + mean * 0.55
    assert np.abs(coloured(x, "contrast", 0.45) - expected).max() <= 1
    assert (coloured(x, "contrast", 0.0) == mean).all()
    assert np.array_equal(coloured(x, "contrast", 1.0), x)


def test_saturation_goes_to_the_picture_s_grey() -> None:
    x = noise()
    expected = x * 0.7 + grey(x)[..., None] * 0.3
    assert np.abs(coloured(x, "saturation", 0.7) - expected).max() <= 1
    assert np.array_equal(coloured(x, "saturation", 0.0), np.repeat(grey(x)[..., None], 3, 2))


def test_a_third_of_a_turn_exchanges_the_channels() -> None:
    assert np.abs(coloured(flat(200, 40, 40), "hue", 1 / 3).astype(int) - flat(40, 200, 40)).max() <= 3


@pytest.mark.parametrize("name", ["hue", "saturation"])
@pytest.mark.parametrize("changes", [PaperChanges(), EqualChanges()], ids=lambda c: c.name)
def test_a_grey_picture_has_no_hue_and_no_saturation(changes: PaperChanges | EqualChanges, name: str) -> None:
    x = np.repeat(noise(1, (24, 31, 1)), 3, 2)
    assert np.array_equal(changes.change(x, name), x)


@pytest.mark.parametrize("name", ["texture", "shape"])
@pytest.mark.parametrize("changes", [PaperChanges(), EqualChanges()], ids=lambda c: c.name)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (180, 30, 90), (1, 2, 3)])
def test_a_uniform_picture_has_no_texture_and_no_shape(
    changes: PaperChanges | EqualChanges, name: str, colour: tuple[int, int, int]
) -> None:
    assert np.array_equal(changes.change(flat(*colour), name), flat(*colour))


def test_a_warp_moves_pixels_and_loses_none() -> None:
    x = np.arange(60 * 45, dtype=np.uint8).reshape(60, 45)[..., None].repeat(3, 2)
    numbered = np.arange(60 * 45).reshape(60, 45)
    stacked = np.stack([numbered % 256, numbered // 256, np.zeros_like(numbered)], 2).astype(np.uint8)
    moved = warp(stacked, 4, 0.05).astype(int)
    assert sorted((moved[..., 0] + 256 * moved[..., 1]).flatten()) == list(range(60 * 45))
    assert not np.array_equal(warp(x, 4, 0.05), x)
    assert np.array_equal(warp(x, 0.99, 0.05), x)  # int() rounds towards zero


def test_a_warp_by_hand() -> None:
    """With frequency 1/2 row i rolls by int(2 sin(π i / 2)) = 0, 2, 0, −2, …, then each column likewise."""
    x = np.zeros((4, 6, 3), np.uint8)
    x[1, 1] = 9  # row 1: two to the right, to column 3; column 3 rolls by −2, from row 1 to row 3
    assert [tuple(at) for at in np.argwhere(warp(x, 2, 0.5)[..., 0])] == [(3, 3)]


def test_denoising_by_the_definition() -> None:
    """The means, pixel by pixel and patch by patch, as the formula says."""
    channels = np.random.default_rng(2).uniform(0, 40, (2, 9, 8)).astype(np.float32)
    patch, search, strength = 3, 5, 10.0
    wide = np.pad(channels, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    expected = np.zeros_like(channels)
    for y in range(9):
        for x in range(8):
            mine, weights = wide[:, y + 2 : y + 5, x + 2 : x + 5], 0.0
            for v in range(y - 2, y + 3):
                for u in range(x - 2, x + 3):
                    other = wide[:, v + 2 : v + 5, u + 2 : u + 5]
                    weight = np.exp(-((mine - other) ** 2).sum() / patch**2 / 2 / strength**2)
                    expected[:, y, x] += weight * wide[:, v + 3, u + 3]
                    weights += weight
            expected[:, y, x] /= weights
    assert np.abs(non_local_mean(channels, strength, patch, search) - expected).max() < 1e-3


def test_denoising_takes_noise_and_leaves_an_edge() -> None:
    clean = np.full((48, 48, 3), 60, np.uint8)
    clean[:, 24:] = 190
    noisy = (clean + np.random.default_rng(0).normal(0, 4, clean.shape)).clip(0, 255).astype(np.uint8)
    assert picture_change(denoise(noisy, 6), clean) < 0.4 * picture_change(noisy, clean)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (17, 2)])
def test_tiny_pictures_are_changed_too(size: tuple[int, int]) -> None:
    x = noise(3, (*size, 3))
    for changes in (PaperChanges(), EqualChanges()):
        assert all(c.shape == x.shape and c.dtype == np.uint8 for c in changes(x))


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_authors_numbers(name: str) -> None:
    found = PaperChanges().change(cat(), name).reshape(-1)[::97].astype(int)
    difference = np.abs(found - GOLDEN["values"][name])
    assert difference.max() <= GOLDEN["tolerance"][name]
    assert difference.mean() <= GOLDEN["tolerance"]["texture_mean"]


def test_opencv_s_numbers_where_no_colour_space_is_between() -> None:
    green = cat()[None, ..., 1].astype(np.float32)
    found = np.rint(non_local_mean(green, 8.0)).reshape(-1)[::97]
    assert np.abs(found - GOLDEN["values"]["grey"]).max() <= GOLDEN["tolerance"]["grey"]


@pytest.mark.parametrize("name", PROPERTIES)
def test_equal_changes_are_equal(name: str) -> None:
    """A warp moves whole pixels, so it comes near in steps."""
    changes = EqualChanges()
    assert picture_change(cat(), changes.change(cat(), name)) == pytest.approx(changes.level, rel=0.1)
    half = EqualChanges(changes.level / 2)
    assert picture_change(cat(), half.change(cat(), name)) == pytest.approx(half.level, rel=0.2)


def test_the_paper_s_changes_are_not() -> None:
    levels = [picture_change(cat(), c) for c in PaperChanges()(cat())]
    assert max(levels) > 4 * min(levels)


def test_strengths_by_name() -> None:
    assert find_changes("paper") == PaperChanges()
    with pytest.raises(InputError) as error:
        find_changes("papper")
    expected = "`strengths` must be 'calibrated' or 'paper', got 'papper'."
    assert str(error.value) == expected
