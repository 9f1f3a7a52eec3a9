"""What the base does for every recipe that learns from pictures, on one that learns next to nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from seewhy.classifiers import classifiers
from seewhy.classifiers.base import Classifier, HeldOut
from seewhy.classifiers.certainty import held_out_lines
from seewhy.classifiers.encoded_set import with_logits
from seewhy.classifiers.fitting import Fitting, Outcome, PictureRecipe
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, InputError
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.pictures.samples import Sample, load_samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from tiny import CLASSES, class_folders, tiny_cnn

WORDS = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES})


@dataclass(frozen=True)
class Means(PictureRecipe):
    """Never registered: the nearest mean, with what a recipe can say of its outcome."""

    name: ClassVar[str] = "means"
    paper: ClassVar[str] = "none"
    needs: ClassVar[str] = "pictures in classes"
    takes: ClassVar = ("descriptions", "checkpoint")

    n_bank: int | None = None
    again: bool = False
    keep: bool = True

    def learn(self, fitting: Fitting) -> Outcome:
        pictures = fitting.look(keep=self.keep)

        def made(of: torch.Tensor) -> Classifier:
            x, y, _ = pictures.rows(of)
            weight = torch.stack([x[y == k].mean(0) for k in range(len(pictures.classes))])
            return Classifier(self.name, {}, fitting.encoder, pictures.classes, Head(Normalise(), weight))

        trial = made(~pictures.held)
        plain = made(pictures.final) if self.again else trial
        held = with_logits(trial.head, pictures.held_out())
        figures = {"n_pictures_seen": len(pictures.items)}
        kept = replace(plain, held_out=held)
        return Outcome(kept, pictures, figures, trial if self.again else None, keep=self.keep)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 5)


def fit(folders: Path, recipe: Means | None = None, **options: Any) -> Classifier:
    return (recipe or Means()).fit(tiny_cnn(), load_samples(folders), **options)


def test_figures_are_of_the_pictures_held_out_and_what_it_was_not_fitted_on_is_not_known(folders: Path) -> None:
    made = fit(folders)
    assert made.held_out is not None
    n = len(made.held_out.labels)
    assert 0 < n == made.measures["n_held_out"] == 15 - made.measures["n_pictures"]
    assert made.measures["n_pictures_seen"] == 15
    right = (made.held_out.logits.argmax(1) == made.held_out.labels).double().mean()  # type: ignore[union-attr]
    assert made.measures["held_out_accuracy"] == round(float(right), 4)
    assert made.measures["split"]["by"] == "looks"
    assert made.known is not None
    assert len(made.known.names) == 15 - n
    assert made.bank is None


def test_fitted_again_on_all_it_knows_all_and_patches_are_judged_by_the_trial(folders: Path) -> None:
    made = fit(folders, Means(n_bank=30, again=True))
    assert made.measures["n_pictures"] == 15
    assert made.measures["n_held_out"] > 0
    assert made.known is not None
    assert len(made.known.names) == 15
    assert made.bank is not None
    assert made.likeness is not None


def test_the_trial_is_what_patches_are_judged_by(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Classifier] = []

    def heard(outcome: Outcome, *_: Any) -> dict[str, Any]:
        asked.extend([outcome.trial or outcome.classifier, outcome.classifier])
        return {}

    monkeypatch.setattr("seewhy.classifiers.fitting._patches", heard)
    made = fit(folders, Means(n_bank=30, again=True))
    trial, final = (c.head.weight for c in asked)
    assert torch.equal(final, made.head.weight)
    assert not torch.equal(final, trial)


@dataclass(frozen=True)
class Thrice(Means):
    """Measured on more than it keeps."""

    def learn(self, fitting: Fitting) -> Outcome:
        found = super().learn(fitting)
        held = found.classifier.held_out
        assert held is not None
        assert held.logits is not None
        more = HeldOut(held.pooled.repeat(3, 1), held.labels.repeat(3), held.logits.repeat(3, 1))
        return replace(found, measured=more)


def test_figures_are_of_all_that_was_measured_though_a_part_is_kept(folders: Path) -> None:
    made = fit(folders, Thrice())
    assert made.held_out is not None
    assert made.measures["n_held_out"] == 3 * len(made.held_out.labels)


def test_part_and_seed_of_the_split_are_fields_where_a_recipe_has_them(folders: Path) -> None:
    @dataclass(frozen=True)
    class Halved(Means):
        held_out: float = 0.5

    assert fit(folders, Halved()).measures["n_held_out"] > fit(folders).measures["n_held_out"]
    with pytest.raises(InputError, match="`fraction` of the split must be"):
        fit(folders, Halved(held_out=2.0))


def test_a_broken_picture_is_reported_and_left_out(folders: Path) -> None:
    samples = load_samples(folders)
    broken = replace(samples, items=(*samples.items, Sample("nowhere.png", CLASSES[0])))
    progress = Progress()
    made = Means().fit(tiny_cnn(), broken, progress=progress)
    assert [f.image for f in progress.failures] == ["nowhere.png"]
    assert made.measures["failures"] == [f.to_json() for f in progress.failures]


def test_pictures_of_the_users_own_are_measured_on(folders: Path, tmp_path: Path) -> None:
    others = class_folders(tmp_path / "others", 2, side=44)
    made = fit(folders, validation=load_samples(others))
    assert made.measures["measured_on"] == "validation pictures"
    assert (made.measures["n_held_out"], made.measures["n_pictures"]) == (6, 15)


def test_descriptions_are_words_of_the_classes_trained_on(folders: Path) -> None:
    made = fit(folders, descriptions=WORDS)
    assert made.words is not None
    assert made.words.classes == made.classes == CLASSES[:3]
    assert made.words_accuracy is not None
    unread = replace(load_samples(folders), items=())
    with pytest.raises(DataError) as caught:
        Means().fit(tiny_cnn(), unread, descriptions=Descriptions({"moss": ("green",)}))
    assert str(caught.value).startswith("There are no descriptions for 'rust', 'sky'.")


@pytest.mark.parametrize("n_bank", [None, 30])
def test_looks_that_are_not_worth_keeping_are_not_kept(folders: Path, tmp_path: Path, n_bank: int | None) -> None:
    for keep, n_kept in ((True, 15), (False, 0)):
        store = FeatureStore(tmp_path / f"{keep}.sqlite")
        fit(folders, Means(n_bank=n_bank, keep=keep), store=store)
        assert len(store) == n_kept


def test_what_a_recipe_does_not_take_is_refused_before_anything_is_looked_at(folders: Path) -> None:
    samples = replace(load_samples(folders), items=())
    with pytest.raises(InputError) as caught:
        Means().fit(tiny_cnn(), samples, captions=[])
    assert str(caught.value) == (
        "The method means does not take captions, only pictures with descriptions. Leave captions out, or use one of "
        "gist, gpt4image."
    )


@pytest.mark.parametrize("name", [n for n in classifiers if issubclass(classifiers[n], PictureRecipe)])
def test_a_recipe_writes_learn_alone(name: str) -> None:
    cls: Any = classifiers[name]
    assert cls.fit is PictureRecipe.fit
    assert set(cls.takes) <= {"descriptions", "captions", "checkpoint"}


def test_lines_of_a_fit_that_measured_validation_pictures(folders: Path, tmp_path: Path) -> None:
    others = class_folders(tmp_path / "others", 2, side=44)
    measures = fit(folders, validation=load_samples(others)).measures
    (line,) = held_out_lines(measures)
    assert line.startswith(
        f"right on {100 * measures['held_out_accuracy']:.1f} % of 6 validation pictures (95 % interval "
    )
