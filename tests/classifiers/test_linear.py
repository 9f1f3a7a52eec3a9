"""The linear recipe: it learns, its held-out figures are honest, and it says what it was given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.classifiers.encoded_set import spread
from seewhy.classifiers.linear.recipe import UNCHOSEN, Linear
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Samples, load_samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.types import Failure
from tiny import class_folders, noise, picture, tiny_cnn, tiny_tokens

ENCODER = tiny_cnn()
FAST = Linear(n_crops=1)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", 6)


@pytest.mark.parametrize("solver", ["logistic", "svm"])
@pytest.mark.parametrize("make", [tiny_cnn, tiny_tokens])
def test_separable_classes_are_learnt(folders: Path, solver: str, make: type) -> None:
    model = Linear(solver=solver, n_crops=2).fit(make(), load_samples(folders))
    assert model.measures["held_out_accuracy"] == 1
    assert model.measures["n_held_out"] == 18
    assert model.measures["n_pictures"] == 18
    assert [model.predict(picture(c, 50)).label for c in model.classes] == list(model.classes)
    assert model.classes == ("moss", "rust", "sky")
    assert model.trained_on == "18 of your pictures, 3 classes"
    assert model.measures["temperature"] > 0


def test_the_same_twice_and_through_the_store(folders: Path, tmp_path: Path) -> None:
    samples = load_samples(folders)
    store = FeatureStore(tmp_path / "store.sqlite")
    models = [FAST.fit(ENCODER, samples, store=s) for s in (None, store, store)]
    for other in models[1:]:
        torch.testing.assert_close(other.head.weight, models[0].head.weight, atol=1e-6, rtol=1e-5)
        assert other.measures == models[0].measures
        assert other.bank.pictures == models[0].bank.pictures
    assert torch.equal(models[1].probabilities(noise(4)), models[2].probabilities(noise(4)))


def test_labels_without_meaning_have_no_held_out_accuracy(tmp_path: Path) -> None:
    """On coin tosses the figure must be near chance: nothing of a held-out picture, copy or crop, is trained on."""
    rng = np.random.default_rng(0)
    for i in range(80):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
        image = Image.fromarray(pixels).resize((40, 40), Image.Resampling.NEAREST)
        image.save(folder / f"{i}.png")
        if i < 40:
            image.save(folder / f"copy of {i}.png")
    model = Linear(n_crops=1, held_out=0.5).fit(ENCODER, load_samples(tmp_path))
    assert model.measures["n_held_out"] == 120
    assert 0.2 <= model.measures["held_out_accuracy"] <= 0.8


def test_copies_never_straddle_and_two_classes_are_noted(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(folders / "moss" / "moss_0.png", folders / "sky" / "stray.png")
    for i in range(5):
        shutil.copy(folders / "moss" / "moss_1.png", folders / "moss" / f"again {i}.png")
    model = FAST.fit(ENCODER, load_samples(folders))
    assert "1 picture(s) have exact copies in more than one class; these are never held out" in model.measures["notes"]
    held = model.held_out.pooled
    stray = ENCODER.encode(ENCODER.pixels([seewhy_pixels(folders / "sky" / "stray.png")])).pooled
    assert not torch.isclose(held, stray, atol=1e-5).all(1).any()
    repeated = ENCODER.encode(ENCODER.pixels([seewhy_pixels(folders / "moss" / "moss_1.png")])).pooled
    assert int(torch.isclose(held, repeated, atol=1e-5).all(1).sum()) in (0, 6)


def seewhy_pixels(path: Path) -> np.ndarray:
    from seewhy.pictures.images import read_picture

    return read_picture(path, ENCODER.transform).pixels


def test_classes_with_one_picture(tmp_path: Path) -> None:
    folders = class_folders(tmp_path, 1)
    model = FAST.fit(ENCODER, load_samples(folders))
    assert model.measures["held_out_accuracy"] is None
    assert model.measures["n_held_out"] == 0
    assert model.measures["C"] == UNCHOSEN
    assert model.held_out is None
    assert model.likeness is None
    assert [model.predict(picture(c, 0)).label for c in model.classes] == list(model.classes)
    why = model.explain(picture("moss", 9))
    assert why.like.verdict.level in ("not measured", "do not rely")


def test_pictures_that_cannot_be_read_are_named(folders: Path) -> None:
    (folders / "moss" / "moss_9.png").write_text("Not a picture at all.\n")
    progress = Progress()
    model = FAST.fit(ENCODER, load_samples(folders), progress=progress)
    failure = Failure(str(folders / "moss" / "moss_9.png"), "is text, not a picture")
    assert [f.image for f in progress.failures] == [failure.image]
    assert progress.failures[0].error.startswith(failure.error)
    assert model.measures["failures"] == [progress.failures[0].to_json()]
    assert model.measures["n_pictures"] == 18


def test_a_class_of_unreadable_pictures_is_dropped(folders: Path) -> None:
    (folders / "fog").mkdir()
    (folders / "fog" / "1.png").write_text("Not a picture at all.\n")
    assert FAST.fit(ENCODER, load_samples(folders)).classes == ("moss", "rust", "sky")
    shutil.rmtree(folders / "moss")
    shutil.rmtree(folders / "rust")
    with pytest.raises(DataError) as caught:
        FAST.fit(ENCODER, load_samples(folders))
    assert str(caught.value) == (
        "At least two classes must have readable pictures, got 1. Put the pictures of each class into one folder."
    )


def test_balanced_weights_help_the_rare_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, n, light in (("common", 40, 120), ("rare", 4, 135)):
        (tmp_path / label).mkdir()
        for i in range(n):
            pixels = rng.normal(light, 20, (1, 1, 3)) + rng.normal(0, 10, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / label / f"{i}.png")
    samples = load_samples(tmp_path)
    rare = [s.image for s in samples.items if s.label == "rare"]

    def recall(weight: str | None) -> int:
        model = Linear(n_crops=0, held_out=0, class_weight=weight).fit(ENCODER, samples)
        return sum(p.label == "rare" for p in model.predict_all(rare))

    assert recall("balanced") > recall(None)


def test_descriptions_are_checked_before_the_work(folders: Path) -> None:
    with pytest.raises(DataError) as caught:
        FAST.fit(ENCODER, load_samples(folders), descriptions=Descriptions({"moss": ("green",)}))
    assert str(caught.value).startswith("There are no descriptions for 'rust', 'sky'")


def test_words_are_measured_on_held_out_pictures(folders: Path) -> None:
    words = Descriptions({c: (f"{c} word", "other") for c in ("moss", "rust", "sky")})
    model = FAST.fit(ENCODER, load_samples(folders), descriptions=words)
    assert model.words_accuracy_on == "18 held-out pictures, without the class names"
    assert 0 <= model.words_accuracy <= 1
    assert not model.decided_by_words


def test_no_held_out_part_at_all(folders: Path) -> None:
    model = Linear(n_crops=0, held_out=0).fit(ENCODER, load_samples(folders))
    assert model.measures["held_out_accuracy"] is None
    assert len(model.bank.pictures) == 18


def test_the_bank_is_spread_over_the_classes() -> None:
    labels = [0, 0, 0, 1, 2, 2]
    assert spread(labels, [True] * 6, 3) == [0, 3, 4]
    assert spread(labels, [True] * 6, 6) == [0, 1, 3, 4, 5]
    assert spread(labels, [False, *[True] * 5], 3) == [1, 3, 4]
    assert spread([0, 1, 2], [True] * 3, 1) == [0, 1, 2]


@pytest.mark.parametrize(
    "wrong",
    [{"solver": "forest"}, {"class_weight": "balancd"}, {"class_weight": True}, {"held_out": 1.0}, {"held_out": -0.1}],
)
def test_settings_that_do_not_exist_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}` of linear must be"):
        Linear(**wrong)


def test_the_short_way_in(folders: Path, tmp_path: Path) -> None:
    model = seewhy.fit(
        folders, ENCODER, n_crops=0, held_out=0.5, descriptions={c: [c] for c in ("moss", "rust", "sky")}
    )
    assert model.parameters["held_out"] == 0.5
    assert seewhy.load(model.save(tmp_path / "model"), encoder=ENCODER).classes == model.classes
    assert seewhy.pretrained(ENCODER).classes[0] == "moss"
    assert seewhy.zero_shot(["moss", "sky"], ENCODER).classes == ("moss", "sky")
    assert seewhy.described({"a": ["x"], "b": "y"}, ENCODER).words.texts == ("x", "y")
    assert isinstance(seewhy.load_samples(folders), Samples)


def test_with_two_pictures_per_class_what_is_held_out_is_recognised() -> None:
    """Thirty colours: a class that lost one of its two pictures must not lose to all that kept both (0.5 and 0.22)."""
    draw = np.random.default_rng(0)
    colours = draw.uniform(40, 215, (30, 3)).repeat(2, 0)
    seen = [c + draw.normal(0, 8, 3) + draw.normal(0, 30, (32, 32, 3)) for c in colours]
    pictures = [np.clip(pixels, 0, 255).astype(np.uint8) for pixels in seen]
    labels = [f"c{i // 2:02}" for i in range(60)]
    measures = seewhy.fit((pictures, labels), encoder=tiny_cnn(), n_crops=0).measures
    assert measures["n_held_out"] == 60
    assert measures["held_out_accuracy"] > 0.58
    assert measures["C"] > 1, "the strongest penalty only looks best where classes are outvoted"
