"""Masks in a folder beside pictures: which is a picture's, what of it is the object, and what is none."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import DataError, ImageError
from seewhy.pictures.object_masks import mask_beside
from seewhy.types import Transform

SIZE = (8, 8)
VIEW = Transform(SIZE, SIZE, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def photo(folder: Path, name: str, size: tuple[int, int] = SIZE) -> Path:
    (folder / "photos").mkdir(exist_ok=True)
    Image.new("RGB", size).save(folder / "photos" / name)
    return folder / "photos" / name


def test_the_object_is_what_is_brighter_than_half_of_the_brightest(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), 30, np.uint8)  # a ground that is not black
    pixels[2:5, 1:4] = (0, 0, 200)  # one channel is enough
    Image.fromarray(pixels).save(tmp_path / "a[1].png")
    found = mask_beside(tmp_path, photo(tmp_path, "a[1].jpg"), VIEW)
    assert found is not None
    assert found.nonzero().tolist() == [[y, x] for y in range(2, 5) for x in range(1, 4)]
    Image.fromarray(pixels // 100).save(tmp_path / "dark.png")  # values 0 and 2, as label files have them
    dark = mask_beside(tmp_path, photo(tmp_path, "dark.jpg"), VIEW)
    assert dark is not None
    assert dark.equal(found)


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_of_nothing_or_of_all_is_none(tmp_path: Path, value: int) -> None:
    Image.new("L", (8, 8), value).save(tmp_path / "a.png")
    assert mask_beside(tmp_path, photo(tmp_path, "a.jpg"), VIEW) is None
    assert mask_beside(tmp_path, "b.jpg", VIEW) is None


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none must be a folder with one mask per picture\."):
        mask_beside(tmp_path / "none", "a.jpg", VIEW)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match=r"a\.png"):
        mask_beside(tmp_path, "a.jpg", VIEW)


@pytest.mark.parametrize(
    ("mask", "picture", "fits"),
    [
        ((16, 16), (8, 8), True), ((7, 4), (14, 8), True), ((7, 4), (13, 7), True), ((7, 4), (14, 12), False),
        ((8, 16), (8, 8), False), ((20, 15), (10, 7), True), ((32, 4_194_336), (32, 32), False),
    ],
)  # fmt: skip
def test_a_mask_of_another_shape_than_its_picture_is_told(
    tmp_path: Path, mask: tuple[int, int], picture: tuple[int, int], fits: bool
) -> None:
    pixels = np.zeros((min(mask[1], 99), mask[0]), np.uint8)
    pixels[:2, :2] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    if mask[1] > 99:  # its header alone
        data = bytearray((tmp_path / "a.png").read_bytes())
        data[20:24] = mask[1].to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data)
    of = photo(tmp_path, "a.jpg", picture)
    if fits:
        assert mask_beside(tmp_path, of, VIEW) is not None
        return
    with pytest.raises(ImageError, match=f"has {mask[0]} by {mask[1]} pixels, but its picture .* has {picture[0]} by"):
        mask_beside(tmp_path, of, VIEW)
