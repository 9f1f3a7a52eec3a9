"""Every registered segmenter names pixels alike alone and in a batch, and one that is trained survives being saved."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from coloured import colours, masked, picture
from seewhy.dense import Segmenter, segmenters
from seewhy.dense.saving import load_segmenter, save_segmenter
from seewhy.pictures.pixel_classes import MaskedPictures, load_masks

NAMES = [name for name in segmenters if not getattr(segmenters[name], "takes_folder", False)]
TRAINED = [name for name in NAMES if hasattr(segmenters[name], "fit")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MaskedPictures:
    return load_masks(masked(tmp_path_factory.mktemp("contract") / "masks", 4))


def made(name: str, data: MaskedPictures) -> Segmenter:
    """Of two steps, where it is trained in steps."""
    cls: Any = segmenters[name]
    method = cls(**{f.name: 2 for f in fields(cls) if f.name == "n_steps"})
    found = method.fit(colours(), data) if name in TRAINED else method.build(colours(), list(data.classes))
    assert isinstance(found, Segmenter)
    assert found.parameters.keys() == asdict(method).keys()
    return found


@pytest.mark.parametrize("name", list(segmenters))
def test_a_class_says_what_it_is(name: str) -> None:
    cls: Any = segmenters[name]
    assert cls.name == name
    assert name in cls.__module__.split(".")[-2:], "a file of its own name"
    assert all(isinstance(getattr(cls, a), str) and getattr(cls, a) for a in ("paper", "needs", "cost"))
    assert cls.__doc__
    assert hash(cls()) == hash(cls()), "frozen"


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_named_alike_alone_and_in_a_batch(name: str, data: MaskedPictures) -> None:
    segmenter = made(name, data)
    pictures = [picture(), picture(64, 96), picture(160, 40)]
    together = list(segmenter.segment_all(pictures))
    for pixels, found in zip(pictures, together, strict=True):
        alone = segmenter.segment(pixels)
        assert alone.mask.shape == pixels.shape[:2]
        assert alone.mask.max() < len(data.classes)
        assert all(0 <= s.score <= 1 and s.label in data.classes for s in alone.regions)
        assert sum(s.area for s in alone.regions) == alone.mask.size
        assert (alone.mask != found.mask).mean() < 0.001


@pytest.mark.parametrize("name", TRAINED)
def test_one_that_is_trained_comes_back(name: str, data: MaskedPictures, tmp_path: Path) -> None:
    segmenter = made(name, data)
    again = load_segmenter(save_segmenter(segmenter, tmp_path / "seg"), encoder=colours())
    assert again.classes == segmenter.classes
    assert again.parameters == segmenter.parameters
    assert (again.segment(picture()).mask == segmenter.segment(picture()).mask).all()
    same = made(name, data)
    assert (same.segment(picture()).mask == segmenter.segment(picture()).mask).all(), "no seed, another result"
