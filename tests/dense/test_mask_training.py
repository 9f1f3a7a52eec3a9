"""What a decoder of masks learns from: places of masks in crops, and pictures of several windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coloured import COLOURS, colours, masked
from seewhy.dense.mask_training import FINER, KEPT, Crops, Maps, channels_of, labels_in
from seewhy.dense.reader import Reader
from seewhy.errors import DataError
from seewhy.pictures.pixel_classes import LEFT_OUT, load_masks
from seewhy.progress import Progress
from tiny import tiny_tokens


def test_a_crop_has_its_part_of_the_mask_and_mirrored_it_is_mirrored() -> None:
    masks = torch.arange(8 * 12, dtype=torch.uint8).view(1, 8, 12).repeat(3, 1, 1)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0], [0.25, 0.5, 0.75, 1.0]])
    found = labels_in(masks, boxes, torch.tensor([False, False, True]), (4, 6))
    assert torch.equal(found[0], masks[0, 1::2, 1::2])
    assert torch.equal(found[1], masks[0, 4:, 3:9])
    assert torch.equal(found[2], found[1].flip(1))


def test_every_step_cuts_what_its_pixels_show(tmp_path: Path) -> None:
    data = load_masks(masked(tmp_path / "data"))
    reader = Reader(colours(), 1.0)
    crops = Crops.of(reader, data, Progress())
    assert crops.masks.shape == (6, KEPT * FINER * 8, KEPT * FINER * 8)
    assert channels_of(crops.maps, crops.layout) == [3]
    batch = crops.data().batch(2, 4, 0)
    labels = labels_in(batch["masks"], batch["boxes"][0], batch["flipped"][0], (32, 32))
    shown = (batch["pixels"] * 0.25 + 0.5) * 255
    colour = torch.tensor(list(COLOURS.values())).float()
    nearest = torch.cdist(shown.permute(0, 2, 3, 1).flatten(1, 2), colour.expand(4, -1, -1)).argmin(2).view(4, 32, 32)
    assert float((nearest == labels).float().mean()) > 0.93
    assert bool(batch["flipped"].any())
    area = (batch["boxes"][0, :, 2:] - batch["boxes"][0, :, :2]).prod(1)
    assert bool(((area >= 0.49) & (area <= 1.001)).all())
    assert len(set(area.tolist())) == 4


def test_pictures_of_several_windows_are_cut_into_parts_as_large(tmp_path: Path) -> None:
    """Tokens take one size: at twice the size there are 2 by 2 windows of 4 by 4 cells on 7 by 7."""
    root = tmp_path / "data"
    masked(root)
    for place in ("images", "labels"):
        for path in (root / place).glob("*.png"):
            Image.fromarray(np.asarray(Image.open(path))[:, :48]).save(path)
    data = load_masks(root)
    crops = Crops.of(Reader(tiny_tokens(), 2.0), data, Progress())
    part = 16 / 49
    assert crops.pictures.augmentation is not None
    assert crops.pictures.augmentation.scale == pytest.approx((0.5 * part, part))
    assert crops.masks.shape[1] == KEPT * FINER * 4
    assert crops.maps.shape == (24, 8, 4, 4)


def test_pictures_without_a_class_are_left_out(tmp_path: Path) -> None:
    root = masked(tmp_path / "data", 3)
    Image.fromarray(np.full((48, 64), LEFT_OUT, np.uint8)).save(root / "labels" / "1.png")
    (root / "images" / "2.png").write_bytes(b"no picture")
    progress, data = Progress(), load_masks(root)
    with pytest.raises(DataError, match=r"At least 2 pictures with masks are needed for training, got 1"):
        Crops.of(Reader(colours(), 1.0), data, progress)
    assert [Path(one.image).name for one in progress.failures] == ["2.png"]
    with pytest.raises(DataError, match=r"At least 2 pictures with masks are needed for training, got 1"):
        Maps.of(Reader(colours(), 1.0), data, lambda e, x: (x, x.mean((2, 3))), Progress())
