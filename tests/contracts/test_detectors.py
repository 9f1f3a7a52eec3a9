"""Every registered detector finds alike alone and in a batch, inside the picture, and survives being saved."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from coloured import colours, squares
from seewhy.dense import Detector, detectors
from seewhy.dense.detection.fit import fit_detector
from seewhy.dense.saving import load_detector, save_detector
from seewhy.pictures.boxes import BoxData

NAMES = [name for name in detectors if not getattr(detectors[name], "takes_folder", False)]
TRAINED = [name for name in NAMES if hasattr(detectors[name], "fit")]
FEW = {"n_steps": 3, "n_shapes": 3, "parts": 2, "rounds": 1, "least_presence": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BoxData:
    return squares(tmp_path_factory.mktemp("contract") / "boxes", 8)


def made(name: str, data: BoxData) -> Detector:
    cls: Any = detectors[name]
    few = {f.name: FEW[f.name] for f in fields(cls) if f.name in FEW}
    if name in TRAINED:
        return fit_detector(data, colours(), method=name, folds=2, **few).keeping(least=0.0)
    return cls(**few).build(list(data.classes), colours())


@pytest.mark.parametrize("name", list(detectors))
def test_a_class_says_what_it_is(name: str) -> None:
    cls: Any = detectors[name]
    assert cls.name == name
    assert name in cls.__module__.split(".")[-2:], "a file of its own name"
    assert all(isinstance(getattr(cls, a), str) and getattr(cls, a) for a in ("paper", "needs", "cost"))
    assert cls.__doc__
    assert hash(cls()) == hash(cls()), "frozen"


@pytest.mark.parametrize("name", NAMES)
def test_boxes_are_alike_alone_and_in_a_batch(name: str, data: BoxData) -> None:
    detector = made(name, data)
    assert detector.classes == data.classes
    images = [p.image for p in data.pictures[:3]]
    for image, found in zip(images, detector.detect_all(images), strict=True):
        alone = detector.detect(image)
        assert json.dumps(alone.to_json()) == json.dumps(found.to_json())
        width, height = alone.size
        for one in alone.regions:
            left, top, right, bottom = one.box
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert 0 <= one.score <= 1
            assert one.label in data.classes
    assert any(len(found) for found in detector.detect_all(images))


@pytest.mark.parametrize("name", TRAINED)
def test_one_that_is_trained_comes_back(name: str, data: BoxData, tmp_path: Path) -> None:
    detector: Any = made(name, data)
    again = load_detector(save_detector(detector, tmp_path / "det"), encoder=colours())
    image = data.pictures[0].image
    assert again.detect(image).to_json() == detector.detect(image).to_json()
    assert made(name, data).detect(image).to_json() == detector.detect(image).to_json(), "no seed, another result"
