"""Every registered recipe makes a classifier that decides alike alone and in a batch, and survives being saved."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from registered import MAKE, check_class, only_on, pairs, small
from seewhy.classifiers import classifiers
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.certainty import held_out_lines
from seewhy.classifiers.saving import load
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Encoder
from seewhy.errors import DataError, ImageError, InputError, ModelError
from seewhy.explanation.prediction import Prediction
from seewhy.language.matching import Caption
from seewhy.language.questions import Difference, Pair
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import InMemory
from seewhy.types import Failure
from tiny import CLASSES, class_folders, noise, picture

PAIRS = [Pair(("moss", "rust"), (Difference("colour", "moss, green", "rust, brown"),))]
WORDS = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES})


def captions_of(folders: Path) -> list[Caption]:
    """A text of each picture, found by its name."""
    return [Caption(str(p), "", (f"a picture called {p.stem}",)) for p in sorted(folders.rglob("*.png"))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 4)


FITTED = [name for name in classifiers if hasattr(classifiers[name], "fit")]


def make(name: str, encoder: Encoder, folders: Path) -> Classifier:
    """Of small settings and of what ``fit`` or ``build`` takes, by the name of the argument."""
    recipe = small(classifiers, name)
    function = recipe.fit if name in FITTED else recipe.build
    given = {
        "samples": load_samples(folders),
        "labels": CLASSES[:3],
        "descriptions": WORDS,
        "captions": captions_of(folders),
        "pairs": PAIRS,
    }
    taken = {"samples", *recipe.takes} if name in FITTED else signature(function).parameters
    given = {k: v for k, v in given.items() if k in taken}
    made: Classifier
    try:
        made = function(encoder, **given)
    except (InputError, ModelError) as error:
        if not re.search("descriptions|no text encoder", str(error), re.IGNORECASE):
            raise
        del given["descriptions"]  # it has no words, and said so
        made = function(encoder, **given)
    return made


@pytest.fixture(params=[*pairs(classifiers, [*classifiers], ("cnn", "tokens"))], ids="-".join, scope="module")
def made(request: pytest.FixtureRequest, folders: Path) -> Classifier:
    recipe, encoder = request.param
    return make(recipe, MAKE[encoder](), folders)


@pytest.mark.parametrize("name", [*classifiers])
def test_class_attributes_and_file_name(name: str) -> None:
    check_class(classifiers, name)
    assert small(classifiers, name).parameters().items() >= classifiers[name].small.items()
    assert hasattr(classifiers[name], "fit") or hasattr(classifiers[name], "build")


def test_probabilities(made: Classifier) -> None:
    found = made.probabilities(noise(5))
    assert found.shape == (5, len(made.classes))
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    alone = torch.cat([made.probabilities(noise(5)[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)
    order = [3, 1, 4, 0, 2]
    torch.testing.assert_close(made.probabilities(noise(5)[order]), found[order], atol=1e-6, rtol=1e-5)


def test_predictions_come_in_order_and_a_broken_picture_in_its_place(made: Classifier, folders: Path) -> None:
    names = sorted(map(str, folders.rglob("*.png")))[:4]
    names.insert(2, "nowhere.png")
    results = list(made.predict_all(names, batch_size=2))
    assert [r.image for r in results] == names
    assert results[2] == Failure("nowhere.png", "does not exist; check the spelling and the folder")
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Prediction):
            scores = [r.score for r in result.top]
            alone = made.predict(name)
            assert alone.label == result.label
            assert [r.score for r in alone.top] == pytest.approx(scores, abs=1e-6)
            assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("recipe", FITTED)
def test_pictures_in_memory_do_as_well_as_files(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = class_folders(tmp_path / "gone", 4)
    captions = [replace(c, image=Path(c.image).name) for c in captions_of(folders)]
    arrays = {str(p): np.asarray(Image.open(p)) for p in folders.rglob("*.png")}
    samples = load_samples(folders)
    items = tuple(replace(s, pixels=InMemory(s.image, lambda s=s: arrays[s.image])) for s in samples.items)
    shutil.rmtree(folders)
    monkeypatch.setitem(globals(), "load_samples", lambda _: replace(samples, items=items))
    monkeypatch.setitem(globals(), "captions_of", lambda _: captions)
    made = make(recipe, MAKE[(only_on(classifiers[recipe]) or ("cnn",))[0]](), folders)
    assert made.classes == CLASSES[:3]
    assert isinstance(made.explain(picture("moss", 0), measure=False).prediction, Prediction)
    made.save(tmp_path / "model")


def test_what_fit_says_of_the_held_out_pictures_can_be_said_of_every_recipe(made: Classifier) -> None:
    if made.recipe in FITTED:
        assert held_out_lines(made.measures)


def test_a_broken_picture_alone_is_an_error(made: Classifier) -> None:
    with pytest.raises(ImageError) as caught:
        made.predict("nowhere.png")
    assert str(caught.value) == "nowhere.png: does not exist; check the spelling and the folder"


def test_explanations_speak_for_the_prediction(made: Classifier) -> None:
    why = made.explain(picture("moss", 0))
    assert why.prediction == made.predict(picture("moss", 0))
    data = why.to_json()
    assert data["where"]["target"] == why.prediction.label
    assert {"method", "deletion", "insertion", "deletion_random", "insertion_random"} <= set(data["where"])
    target = made.classes[-1]
    assert made.explain(picture("moss", 0), target=target, measure=False).to_json()["where"]["target"] == target


def test_an_unknown_target_is_refused(made: Classifier) -> None:
    with pytest.raises(DataError) as caught:
        made.explain(picture("moss", 0), target="mosss")
    assert str(caught.value) == (
        f"There is no class 'mosss' among the {len(made.classes)} classes. Did you mean 'moss'?"
    )


def test_saved_and_loaded_it_decides_the_same(made: Classifier, tmp_path: Path) -> None:
    base = made.encoder if made.network is None else made.network.base
    again = load(made.save(tmp_path / "model"), encoder=base)
    assert torch.equal(again.probabilities(noise(5)), made.probabilities(noise(5)))
    before, after = (m.explain(picture("rust", 1)).to_json() for m in (made, again))
    assert {k: after[k] for k in ("top", "where", "model")} == {k: before[k] for k in ("top", "where", "model")}
    assert [(n["image"], n["box"]) for n in after["like"]] == [(n["image"], n["box"]) for n in before["like"]]
    assert [(w["text"], w["score"]) for w in after["words"]] == [(w["text"], w["score"]) for w in before["words"]]
    assert repr(again) == repr(made)
