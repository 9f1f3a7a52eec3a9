"""A saved classifier: whole or not at all, refused in plain words when something is wrong, and never code."""

from __future__ import annotations

import builtins
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.classifiers import saving
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear import Linear
from seewhy.classifiers.pretrained import Pretrained
from seewhy.classifiers.saving import CARD, TENSORS, load
from seewhy.data import load_samples
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, ModelError, WeightsError
from tiny import CLASSES, class_folders, noise, tiny_cnn

ENCODER = tiny_cnn()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = class_folders(tmp_path_factory.mktemp("data"), 5)
    words = Descriptions({c: (f"{c} ünder light", "round") for c in CLASSES[:3]})
    return Linear(n_crops=1).fit(ENCODER, load_samples(folder), descriptions=words)


@pytest.fixture
def folder(fitted: Classifier, tmp_path: Path) -> Path:
    return fitted.save(tmp_path / "model")


def refused(folder: Path, kind: type[Exception], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load(folder, encoder=options.get("encoder", ENCODER))
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / CARD).read_text("utf-8"))
    change(card)
    (folder / CARD).write_text(json.dumps(card), "utf-8")


def test_everything_comes_back(fitted: Classifier, folder: Path) -> None:
    again = load(folder, encoder=ENCODER)
    assert torch.equal(again.probabilities(noise(8)), fitted.probabilities(noise(8)))
    for name in ("recipe", "parameters", "classes", "likeness", "trained_on", "measures", "words_accuracy"):
        assert getattr(again, name) == getattr(fitted, name), name
    assert again.words.texts == fitted.words.texts
    assert torch.equal(again.words.vectors, fitted.words.vectors)
    assert again.bank.pictures == fitted.bank.pictures
    assert torch.equal(again.bank.pixel_boxes, fitted.bank.pixel_boxes)
    torch.testing.assert_close(again.bank.vectors, fitted.bank.vectors, atol=1e-3, rtol=1e-3)
    assert torch.equal(again.held_out.labels, fitted.held_out.labels)
    assert (again.bank.thumbnail(0) == fitted.bank.thumbnail(0)).all()
    assert sorted(p.name for p in folder.iterdir()) == [CARD, TENSORS]


def test_saved_twice_it_is_the_same_and_the_old_one_is_gone(fitted: Classifier, folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    load(folder, encoder=ENCODER).save(folder)
    fitted.save(folder)
    assert json.loads((folder / CARD).read_text("utf-8")) == json.loads(before[CARD])
    assert (folder / TENSORS).read_bytes() == before[TENSORS]
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("stage", ["tensors", "card", "swap"])
def test_a_save_that_fails_leaves_the_old_one(
    fitted: Classifier, folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    wrote = saving.write_atomic

    def write(path: Path, data: bytes | str) -> Path:
        if path.name == {"tensors": TENSORS, "card": CARD}.get(stage):
            raise OSError(28, "No space left on device")
        return wrote(path, data)

    def swap(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_atomic", write)
    if stage == "swap":
        monkeypatch.setattr(saving, "_swap", swap)
    with pytest.raises(DataError) as caught:
        Pretrained().build(ENCODER).save(folder)
    assert str(caught.value) == (
        f"{folder} could not be written: [Errno 28] No space left on device. Free some space or give another place."
    )
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_never_replaced(fitted: Classifier, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for place in (mine, mine / "thesis.txt", tmp_path):
        with pytest.raises(DataError) as caught:
            fitted.save(place)
        assert str(caught.value) == f"{place} exists and is not a SeeWhy classifier. Give another name."
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_what_is_no_classifier_is_refused(tmp_path: Path, folder: Path) -> None:
    missing = tmp_path / "none"
    assert refused(missing, ModelError) == (
        f"{missing} is not a saved SeeWhy classifier ([Errno 2] No such file or directory: "
        f"'{missing / CARD}'). Make one with: seewhy fit PHOTOS -o {missing}"
    )
    (folder / CARD).write_text("{oops")
    assert refused(folder, ModelError) == (
        f"{folder} is not a saved SeeWhy classifier (Expecting property name enclosed in double quotes: line 1 "
        f"column 2 (char 1)). Make one with: seewhy fit PHOTOS -o {folder}"
    )
    os.remove(folder / TENSORS)
    (folder / CARD).write_text("{}")
    assert refused(folder, ModelError).startswith(f"{folder} is not a saved SeeWhy classifier ([Errno 2]")


def test_a_newer_format_is_refused(folder: Path) -> None:
    edit(folder, lambda card: card.update(format=99))
    assert refused(folder, ModelError) == (
        f"{folder} has format 99; this SeeWhy reads 1. Update SeeWhy with: pip install -U seewhy, "
        "or fit the classifier again."
    )


def test_a_card_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / CARD).write_text("[1, 2]")
    assert refused(folder, ModelError) == (
        f"{folder} has format None; this SeeWhy reads 1. Update SeeWhy with: pip install -U seewhy, "
        "or fit the classifier again."
    )


@pytest.mark.parametrize("cut", [0, 7, 100, -10])
def test_damaged_tensors_are_refused(folder: Path, cut: int) -> None:
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[:cut])
    message = refused(folder, WeightsError)
    assert message.startswith(f"{folder / TENSORS} is damaged (")
    assert message.endswith("). Fit the classifier again.")


@pytest.mark.parametrize("key", ["classes", "feature", "scale", "words", "encoder", "bank", "likeness", "measures"])
@pytest.mark.parametrize("value", ["gone", 3, "odd"])
def test_a_damaged_card_is_refused_or_harmless(folder: Path, key: str, value: object) -> None:
    """A changed field is either refused by name or still gives a classifier; never anything but a ModelError."""

    def change(card: dict[str, Any]) -> None:
        if value == "gone":
            del card[key]
        else:
            card[key] = value

    edit(folder, change)
    try:
        load(folder, encoder=ENCODER)
    except ModelError as error:
        assert str(folder) in str(error)  # noqa: PT017
    else:
        assert value != "gone"


def test_classes_that_do_not_match_the_head_are_refused(folder: Path) -> None:
    edit(folder, lambda card: card.update(classes=["a", "b"]))
    assert refused(folder, ModelError) == (
        f"{folder / CARD} is damaged (ValueError('2 classes for 3 rows')). Fit the classifier again."
    )


def test_other_weights_are_refused(folder: Path) -> None:
    assert refused(folder, ModelError, encoder=tiny_cnn(seed=1)) == (
        f"{folder} was made with other weights of 'tiny' than those found here. "
        "Bring the same weights, or fit the classifier again."
    )


def test_loading_runs_no_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("loading must not unpickle or evaluate")

    for owner, name in (
        (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load"), (builtins, "eval")
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, never)
    assert load(folder, encoder=ENCODER).classes == CLASSES[:3]


def test_a_pickle_in_place_of_tensors_is_only_damaged(folder: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    (folder / TENSORS).write_bytes(pickle.dumps(Harm()))
    assert refused(folder, WeightsError).startswith(f"{folder / TENSORS} is damaged (")
    assert not (tmp_path / "harm").exists()
