"""Validation pictures of the user's own: chosen and measured on them, never trained on them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.classifiers.linear.choosing import c_path
from seewhy.classifiers.linear.recipe import GRID, Linear
from seewhy.errors import DataError
from seewhy.pictures.samples import load_samples
from tiny import class_folders, tiny_cnn

ENCODER = tiny_cnn()
FAST = Linear(n_crops=1)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "train", 4)


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    """Other pictures of the same classes: those numbered 4 and 5."""
    folder = class_folders(tmp_path / "val", 6)
    for i in range(4):
        for path in folder.glob(f"*/*_{i}.png"):
            path.unlink()
    return folder


def test_all_is_measured_on_them_and_said(train: Path, validation: Path) -> None:
    model = seewhy.fit(train, ENCODER, validation=validation, n_crops=1)
    assert model.trained_on == "12 of your pictures, 3 classes; chosen and measured on 6 validation pictures"
    assert model.measures["measured_on"] == "validation pictures"
    assert (model.measures["n_pictures"], model.measures["n_held_out"]) == (12, 6)
    assert model.measures["held_out_accuracy"] == 1
    assert len(model.held_out.labels) == 6
    assert model.likeness.n == 6
    assert len(model.bank.pictures) == 12
    assert all(str(train) in p.name for p in model.bank.pictures)


def test_they_are_never_trained_on(train: Path, validation: Path) -> None:
    """With every label exchanged they choose another C or temperature, and the direction of the fit stays."""
    exchanged = validation.parent / "exchanged"
    for old, new in {"moss": "rust", "rust": "sky", "sky": "moss"}.items():
        shutil.copytree(validation / old, exchanged / new)
    right = FAST.fit(ENCODER, load_samples(train), validation=load_samples(validation))
    wrong = FAST.fit(ENCODER, load_samples(train), validation=load_samples(exchanged))
    assert wrong.measures["held_out_accuracy"] < 0.5
    assert [wrong.predict(s.image).label for s in load_samples(validation).items] == [
        s.label for s in load_samples(validation).items
    ]
    assert right.bank.pictures == wrong.bank.pictures


def test_an_unknown_class_is_refused_before_the_work(train: Path, validation: Path) -> None:
    (validation / "moss").rename(validation / "mos")
    with pytest.raises(DataError) as caught:
        FAST.fit(ENCODER, load_samples(train), validation=load_samples(validation))
    assert str(caught.value) == (
        "The validation pictures have the class 'mos', which is not one of the 3 training classes. Did you mean 'moss'?"
    )


def test_only_named_groups_say_that_validation_pictures_show_training_objects(train: Path, validation: Path) -> None:
    """By looks, chance joins more the more pictures there are."""

    def notes(*, named: bool) -> list[str]:
        own, others = (
            replace(s, items=tuple(replace(i, group=i.label if named else None) for i in s.items))
            for s in (load_samples(train), load_samples(validation))
        )
        return FAST.fit(ENCODER, own, validation=others).measures["notes"]

    assert notes(named=False) == []
    (note,) = notes(named=True)
    assert note.endswith("of 6 validation pictures are in groups of the training pictures, so the accuracy is too high")


def test_copies_of_training_pictures_measure_nothing(train: Path, validation: Path) -> None:
    shutil.copy(train / "moss" / "moss_0.png", validation / "moss" / "copy.png")
    model = FAST.fit(ENCODER, load_samples(train), validation=load_samples(validation))
    assert model.measures["n_held_out"] == 6
    (copied,) = model.measures["notes"]
    assert copied == "left out 1 validation picture(s) that are exact copies of training pictures"
    with pytest.raises(DataError) as caught:
        FAST.fit(ENCODER, load_samples(train), validation=load_samples(train))
    assert str(caught.value) == (
        "Every validation picture is unreadable, or is a copy of a training picture. Give other validation pictures, "
        "or leave validation out."
    )


def test_a_broken_validation_picture_is_named(train: Path, validation: Path) -> None:
    broken = validation / "sky" / "broken.png"
    broken.write_text("Not a picture at all.\n")
    model = FAST.fit(ENCODER, load_samples(train), validation=load_samples(validation))
    assert [f["image"] for f in model.measures["failures"]] == [str(broken)]
    assert model.measures["n_held_out"] == 6


@pytest.mark.parametrize("n_crops", [0, 3])
@pytest.mark.parametrize("l2", [True, False])
def test_c_is_a_pictures_in_the_scale_of_the_features(train: Path, n_crops: int, l2: bool) -> None:
    """The grid moves with the number of views and the length of the features, and the figure undoes the views."""
    model = Linear(n_crops=n_crops, power=1, l2=l2).fit(ENCODER, load_samples(train))
    c = model.measures["C"]
    if l2:
        assert min(abs(c / g - 1) for g in GRID) < 1e-3
    assert c > 0


def test_a_path_ends_where_weaker_penalties_gain_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.randn(200, 30, generator=g) + 0.3 * y[:, None]
    fold = torch.where(torch.arange(200) % 4 < 2, -1, 0)
    grid = tuple(10.0**e for e in range(-3, 9))
    path = c_path(x, y, 2, fold, grid=grid)
    assert len(path.points) < len(grid)
    assert path.best in path.points
    torch.testing.assert_close(
        float((path.fit.logits(x[fold == 0]).argmax(1) == y[fold == 0]).double().mean()), path.best.accuracy
    )


@pytest.mark.slow
def test_the_command_line(train: Path, validation: Path, tmp_path: Path, command: list[str]) -> None:
    arguments = ["fit", str(train), "-o", str(tmp_path / "m"), "--set", "n_crops=0", "--validation", str(validation)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of 6 validation pictures" in done.stdout
