"""Fine-tuning: kept only where held-out pictures show a gain, from weights of which a part stays, and resumable."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import seewhy
from seewhy.classifiers.encoded_set import HeldOut, HoldOut
from seewhy.classifiers.fit_answers import fit_answers
from seewhy.classifiers.fitting import Fitting
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app, main
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.errors import DataError, InputError, ModelError, UnknownNameError
from seewhy.heads.head import Head, Projected
from seewhy.heads.normalise import Normalise
from seewhy.learning.adaptation import fine_tune
from seewhy.learning.adaptation.fine_tune import FineTune, paired_gain, right_of
from seewhy.learning.encoders.adapted import open_adaptation
from seewhy.learning.encoders.image_copy import ImageCopy
from seewhy.pictures.answers import Answers
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from seewhy.training.task import optimiser_of
from tiny import CLASSES, build, class_folders, colour_reader, colours, noise, picture, tiny_tokens

HOW: dict[str, Any] = {"epochs": 10, "lr": 0.02, "batch_size": 16, "n_crops": 0}


def stripes(root: Path, n: int) -> Path:
    """Stripes across or down, in any colour."""
    for k, label in enumerate(("across", "down")):
        (root / label).mkdir(parents=True)
        for i in range(n):
            rng = np.random.default_rng([k, i])
            wave = np.sin(np.arange(32) * rng.uniform(0.8, 1.2) + rng.uniform(0, 6)) * 40
            lines = wave[:, None] if k == 0 else wave[None, :]
            pixels = rng.uniform(60, 190, 3) + lines[..., None] + rng.normal(0, 20, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / label / f"{label}{i}.png")
    return root


def untrained(seed: int = 0) -> Encoder:
    """Five random convolutions, whose maps have sides of 32, 16, 8, 4 and 2."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU()]
        for width, wider in ((4, 6), (6, 8), (8, 8)):
            layers += [nn.Conv2d(width, wider, 3, 2, 1), nn.ReLU()]
        return build(nn.Sequential(*layers, nn.Conv2d(8, 4, 3, 2, 1), nn.Tanh()), GlobalAverage(), Layout(), 4)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(stripes(tmp_path_factory.mktemp("stripes") / "s", 40))


@pytest.fixture(scope="module")
def tuned(samples: Samples) -> seewhy.Classifier:
    return FineTune(train="all", **HOW).fit(untrained(), samples)


def test_what_the_frozen_encoder_cannot_see_is_learnt(tuned: seewhy.Classifier, tmp_path: Path) -> None:
    measures = tuned.measures
    assert measures["kept"] == "tuned"
    assert measures["tuned_accuracy"] - measures["frozen_accuracy"] > measures["gain_error"] > 0
    assert measures["held_out_accuracy"] == measures["tuned_accuracy"]
    assert tuned.held_out is not None
    assert len(tuned.held_out.labels) == measures["n_held_out"] == 16
    assert tuned.held_out.logits is not None
    assert torch.allclose(tuned.held_out.logits, tuned.head(tuned.held_out.pooled), atol=1e-4)
    new = load_samples(stripes(tmp_path / "new", 60))
    later = [s for s in new.items if int(Path(str(s.image)).stem.strip("acrosdwn")) >= 40]
    right = [p.label == s.label for p, s in zip(tuned.predict([s.image for s in later]), later, strict=True)]
    assert sum(right) / len(right) > measures["frozen_accuracy"] + 0.1


def test_labels_are_checked_with_the_network_that_has_not_learnt_them(
    tuned: seewhy.Classifier, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuned.base.fingerprint == untrained().fingerprint != tuned.encoder.fingerprint
    monkeypatch.setattr("seewhy.classifiers.saving.load", lambda *_args, **_how: tuned)
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda _name, engine: untrained())
    folder, found = Path(samples.items[0].image).parents[1], []
    for more in (["-m", "tuned"], []):
        done = CliRunner().invoke(app, ["check", str(folder), *more, "--store", "none", "--json", "-q"])
        found.append(json.loads(done.stdout))
    assert found[0]["accuracy"] == found[1]["accuracy"] < tuned.measures["tuned_accuracy"]
    assert found[0]["findings"] == found[1]["findings"]


def test_saved_it_is_a_delta_that_another_base_refuses(tuned: seewhy.Classifier, tmp_path: Path) -> None:
    folder = tuned.save(tmp_path / "model")
    again = seewhy.load(folder, encoder=untrained())
    assert torch.equal(again.probabilities(noise(4)), tuned.probabilities(noise(4)))
    assert again.digest == tuned.digest
    with pytest.raises(ModelError, match="with the fingerprint"):
        seewhy.load(folder, encoder=untrained(1))
    assert again.explain(picture(CLASSES[0], 1), measure=False).where is not None


def test_descriptions_are_measured_on_its_held_out_pictures(tuned: seewhy.Classifier, tmp_path: Path) -> None:
    told = tuned.with_descriptions({"across": "flat lines", "down": "tall lines"})
    assert told.words_accuracy_on == "16 held-out pictures"
    assert told.words is not None
    assert told.held_out is not None
    cosines = Projected(untrained().text)(told.held_out.pooled) @ told.words.class_weight().T
    assert told.words_accuracy == pytest.approx(float((cosines.argmax(1) == told.held_out.labels).float().mean()))
    again = seewhy.load(told.save(tmp_path / "model"), encoder=untrained())
    for classifier in (told, again):
        words = classifier.explain(picture(CLASSES[0], 1)).words
        assert words is not None
        assert {w.text for w in words.words} == {"flat lines", "tall lines"}


def test_without_a_gain_the_frozen_answer_is_kept(tmp_path: Path) -> None:
    samples, notes = load_samples(class_folders(tmp_path / "d", 12)), Progress()
    kept = FineTune(epochs=1, n_crops=0).fit(colours_with_weights(), samples, progress=notes)
    plain = Linear(n_crops=0).fit(colours_with_weights(), samples)
    assert kept.network is None
    assert kept.recipe == "fine_tune"
    assert kept.measures["kept"] == "frozen"
    assert torch.equal(kept.head.weight, plain.head.weight)
    assert kept.measures["held_out_accuracy"] == plain.measures["held_out_accuracy"]
    assert any("shows no gain (" in note and note.endswith("frozen encoder is kept") for note in notes.notes)
    again = seewhy.load(kept.save(tmp_path / "model"), encoder=colours_with_weights())
    assert again.predict(picture(CLASSES[0], 99)).label == CLASSES[0]


def colours_with_weights() -> Encoder:
    """Reads colours perfectly, through a convolution that can be trained."""
    trunk = nn.Sequential(nn.Conv2d(3, 3, 4, 4, bias=False))
    with torch.no_grad():
        trunk[0].weight.copy_(torch.eye(3)[..., None, None].expand(3, 3, 4, 4) / 16)
    return build(trunk, GlobalAverage(), Layout(), 3, classifier=colour_reader().classifier)


def test_held_out_pictures_are_not_learnt(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    own = fine_tune.TrainingData

    def listening(n: int, columns: dict[str, Any]) -> Any:
        shown.extend(columns["pixels"].pictures)
        return own(n, columns)

    monkeypatch.setattr(fine_tune, "TrainingData", listening)
    made = FineTune(train="all", **{**HOW, "epochs": 1}).fit(untrained(), samples)
    assert len(shown) == 64
    assert made.known is not None
    learnt = {Path(name).name for name in made.known.names} if made.measures["kept"] == "tuned" else set()
    assert not learnt or learnt == {Path(str(p)).name for p in shown}


def test_a_mix_of_0_is_the_frozen_network(samples: Samples) -> None:
    asked = FineTune(mix=0.0, **{**HOW, "epochs": 1})
    network, head, before = trained(asked, samples)
    assert network.tensors() == {}
    assert torch.equal(head.weight, before.weight)
    whole, _, _ = trained(replace(asked, mix=1.0), samples)
    half, _, _ = trained(replace(asked, mix=0.5), samples)
    start = dict(ImageCopy.before(untrained()).state_dict())
    for name, value in half.tensors().items():
        assert torch.allclose(value, (start[name] + whole.tensors()[name]) / 2, atol=1e-6), name


def trained(how: FineTune, samples: Samples) -> Any:
    """The network, its head and the head before."""
    kept: dict[str, Any] = {}

    class Listening(FineTune):
        def _task(self, encoder: Encoder, head: Any) -> Any:
            kept["before"] = head
            return super()._task(encoder, head)

        def _tuned(self, *given: Any) -> Any:
            kept["tuned"] = super()._tuned(*given)
            return kept["tuned"]

    Listening(**how.parameters()).fit(untrained(), samples)
    network, head, _ = kept["tuned"]
    return network, head, kept["before"]


@pytest.mark.parametrize(
    ("which", "still"), [("late_stages", {"trunk.0", "trunk.2"}), ("last_stage", {f"trunk.{i}" for i in (0, 2, 4, 6)})]
)
def test_the_finest_maps_keep_their_weights(samples: Samples, which: Any, still: set[str]) -> None:
    network, _, _ = trained(FineTune(train=which, **{**HOW, "epochs": 1}), samples)
    layers = {f"trunk.{i}" for i in (0, 2, 4, 6, 8)}
    assert {name.rpartition(".")[0] for name in network.tensors()} == layers - still


def test_tokens_are_tuned(samples: Samples) -> None:
    made = FineTune(**{**HOW, "epochs": 1}).fit(tiny_tokens(), samples)
    assert made.measures["kept"] in ("tuned", "frozen")
    assert made.measures["first_steps"]["loss"] > 0


def test_a_buffer_with_five_axes_is_left_as_it_is(samples: Samples) -> None:
    encoder = untrained()
    encoder.trunk.register_buffer("windows", torch.zeros(1, 1, 1, 2, 2))
    assert FineTune(**{**HOW, "epochs": 1}).fit(encoder, samples).measures["first_steps"]["loss"] > 0


def test_a_stopped_training_goes_on_with_the_same_weights(
    samples: Samples, tuned: seewhy.Classifier, tmp_path: Path
) -> None:
    class Stopping(Progress):
        def measured(self, n: int, numbers: Any) -> None:
            if n == 20:
                raise KeyboardInterrupt

    how, place = FineTune(train="all", **HOW), tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        how.fit(untrained(), samples, progress=Stopping(), checkpoint=place)
    notes = Progress()
    again = replace(how).fit(untrained(), samples, progress=notes, checkpoint=place)
    assert any("resuming at step 21" in note for note in notes.notes)
    assert tuned.network is not None
    assert again.network is not None
    assert torch.equal(again.head.weight, tuned.head.weight)
    for name, value in tuned.network.tensors().items():
        assert torch.equal(again.network.tensors()[name], value), name


def test_the_error_of_a_gain_counts_groups() -> None:
    before = torch.tensor([True, False, False, True, False, False])
    after = torch.tensor([True, True, True, False, False, True])
    gain, error = paired_gain(before, after, None)
    differences = np.array([0, 1, 1, -1, 0, 1])
    assert gain == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std() / 6**0.5)
    pairs = torch.tensor([7, 3, 3, 5, 5, 7])
    sums = np.array([[0, 1], [1, 1], [-1, 0]]).sum(1) - 2 * differences.mean()
    assert paired_gain(before, after, pairs)[1] == pytest.approx(np.sqrt((sums**2).sum()) / 6)


def test_frozen_decisions_are_found_by_the_place_of_the_picture() -> None:
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    measured = HeldOut(torch.zeros(3, 1), torch.tensor([0, 1, 1]), logits=logits)
    outcome: Any = SimpleNamespace(measured=measured, index=torch.tensor([4, 1, 2]))
    assert right_of(outcome, torch.tensor([1, 2, 4])).tolist() == [False, True, True]


def test_few_pictures_are_shown_more_often_in_smaller_batches() -> None:
    how = FineTune()
    assert (how._training(3200).n_steps, how._training(3200).batch_size) == (8 * 100, 32)
    assert (how._training(64).n_steps, how._training(64).batch_size) == (24 * 8, 8)
    assert how._training(5).batch_size == 5
    assert dict(how._training(64).part_lr) == {f"network.network.{name}": 5.0 for name in ("weight", "bias")}
    rates = {(len(g["params"]), g["multiple"]) for g in optimiser_of(task_of(how), how._training(64)).param_groups}
    assert (1, 5.0) in rates
    assert FineTune(epochs=2)._training(64).n_steps == 2 * 8


def test_the_weights_are_averaged_over_a_tenth_of_the_steps() -> None:
    assert FineTune()._training(3200).ema == pytest.approx(1 - 10 / 800)
    assert FineTune(epochs=1)._training(64).ema == 0.0


@pytest.mark.parametrize(
    ("n", "held_out", "fraction"),
    [(600, 0.2, 0.2), (1600, 0.2, 0.125), (3000, 0.2, 0.1), (3000, 0.05, 0.05), (300, 0.5, 0.5)],
)
def test_of_many_pictures_200_or_a_tenth_are_held_out(n: int, held_out: float, fraction: float) -> None:
    class Stop(Exception):
        pass

    kept: dict[str, Any] = {}

    class Listening(Fitting):
        def look(self, *_: Any, **__: Any) -> Any:
            kept["fraction"] = self.held_out.fraction
            raise Stop

    pictures = Samples(tuple(Sample(f"{i}.jpg", CLASSES[i % 2]) for i in range(n)), CLASSES[:2])
    given = (untrained(), pictures, HoldOut(held_out), None, None, None, Progress(), None)
    with pytest.raises(Stop):
        FineTune(held_out=held_out).learn(Listening(*given))
    assert kept["fraction"] == pytest.approx(fraction)


def task_of(how: FineTune) -> Any:
    return how._task(untrained(), Head(Normalise(), torch.zeros(2, 4), torch.zeros(2)))[1]


def test_in_python_by_name(samples: Samples) -> None:
    how: Any = {"method": "fine_tune", "descriptions": {"across": "flat", "down": "tall"}, "seed": 3}
    made = seewhy.fit(samples, untrained(), settings={**HOW, "epochs": 1}, **how)
    assert made.words is not None
    assert made.recipe == "fine_tune"
    assert made.parameters["seed"] == 3
    with pytest.raises(UnknownNameError, match="Did you mean 'epochs'"):
        seewhy.fit(samples, untrained(), method="fine_tune", settings={"epoch": 1})
    with pytest.raises(InputError, match="got zero_shot"):
        seewhy.fit(samples, untrained(), method="zero_shot")


def test_pictures_that_cannot_be_held_out_are_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        Image.fromarray(pixels if label == "a" else 255 - pixels).save(tmp_path / label / "one.png")
    with pytest.raises(DataError, match="No picture can be held out, so fine-tuning cannot be compared"):
        FineTune(n_crops=0).fit(untrained(), load_samples(tmp_path))


def test_a_frozen_fit_says_what_fine_tuning_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    none = ["--set", "n_crops=0"]
    for n, more, is_said in ((10, none, True), (4, none, False), (10, ["--method", "neighbours"], False)):
        folder = class_folders(tmp_path / f"of{n}{len(more)}{is_said}", n, CLASSES[:2])
        output = str(tmp_path / f"m{n}{is_said}")
        monkeypatch.setattr(sys, "argv", ["seewhy", "fit", str(folder), "-o", output, *more])
        with suppress(SystemExit):
            main()
        assert ("--method fine_tune" in capsys.readouterr().out) is is_said


def test_an_encoder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no trainable weights"):
        FineTune(n_crops=0).fit(colours(), load_samples(class_folders(tmp_path / "d", 12)))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Whether stripes go down, and whether the picture is light; one picture in ten has an unknown answer."""
    samples = load_samples(stripes(tmp_path_factory.mktemp("both") / "s", 70))
    items, rows = [], []
    for i, sample in enumerate(samples.items):
        pixels = np.asarray(Image.open(sample.image)).astype(float) + (0 if i % 3 else 60)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(sample.image)
        items.append(replace(sample, label=""))
        rows.append(["" if i % 10 == 0 else sample.label, "light" if i % 3 == 0 else "dark"])
    lines, light = zip(*rows, strict=True)
    return Answers("questions", tuple(items), {"lines": lines, "light": light})


def test_one_network_learns_several_decisions_and_is_saved_once(answers: Answers, tmp_path: Path) -> None:
    progress = Progress()
    how = FineTune(train="all", held_out=0.3, **HOW)
    made = fit_answers(untrained(), answers, how, progress=progress)
    assert any("fine-tuning is better" in note for note in progress.notes)
    assert made.shared is not None
    assert made.encoder.fingerprint != untrained().fingerprint
    assert made.decisions["lines"].measures["held_out_accuracy"] > 0.7
    held = made.decisions["light"].measures["n_held_out"]
    assert 0 < held < len(answers) / 2  # held out for all decisions at once, and learnt by none
    assert made.decisions["light"].known is not None
    assert len(made.decisions["light"].known.names) == len(answers) - held
    folder = made.save(tmp_path / "model")
    assert {one.name for one in folder.iterdir()} == {"encoder", "light", "lines", "outputs.json"}
    again = seewhy.load_multi(folder, encoder=made.encoder)
    pictures = [s.image for s in answers.items[:3]]
    assert [p.to_json() for p in again.predict(pictures)] == [p.to_json() for p in made.predict(pictures)]
    assert again.to_json()["tuned"] is made.to_json()["tuned"] is True
    assert again.save(folder) == folder
    again.save(tmp_path / "copy")
    kept = open_adaptation(tmp_path / "copy" / "encoder", base=untrained()).encoder()
    assert kept.fingerprint == made.encoder.fingerprint
    plain = fit_answers(untrained(), answers, Linear(n_crops=0))
    plain.save(folder)  # over one with a network of its own, which stays there
    again = seewhy.load_multi(folder, encoder=untrained())
    assert again.to_json()["tuned"] is False
    assert again.shared is None
    with pytest.raises(ModelError, match="'tiny'"):
        seewhy.load(folder / "light")  # the error of an encoder that nobody named, not of the network that stayed


def test_unknown_answers_teach_nothing() -> None:
    network = nn.Linear(3, 5, bias=False)
    task = fine_tune.Several(network, 0.0, sizes=[2, 3])
    scores = torch.randn(4, 5, requires_grad=True)
    batch: Any = {"answers": torch.tensor([[0, -1], [-1, -1], [1, 2], [-1, 0]])}
    loss = task.loss(scores, batch)["loss"]
    parts = scores.split([2, 3], 1)
    first = nn.functional.cross_entropy(parts[0][[0, 2]], torch.tensor([0, 1]))
    second = nn.functional.cross_entropy(parts[1][[2, 3]], torch.tensor([2, 0]))
    assert torch.allclose(loss, (first + second) / 2)
    loss.backward()
    assert scores.grad is not None
    assert not scores.grad[1].any()
    assert not task.loss(scores.detach(), {"answers": torch.full((4, 2), -1)})["loss"]  # type: ignore[arg-type]


def test_without_a_gain_the_frozen_network_answers(answers: Answers) -> None:
    progress = Progress()
    made = fit_answers(untrained(), answers, FineTune(train="all", mix=0.0, **HOW), progress=progress)
    assert any("shows no gain" in note for note in progress.notes)
    assert made.shared is None
    assert made.encoder.fingerprint == untrained().fingerprint
    plain = fit_answers(untrained(), answers, Linear(n_crops=0))
    assert made.decisions["light"].measures["n_pictures"] == plain.decisions["light"].measures["n_pictures"]


def test_a_gain_within_its_error_is_none(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.classifiers.fit_answers._gain", lambda *_: (0.03, 0.02))
    how = FineTune(train="last_stage", **{**HOW, "epochs": 1})
    assert fit_answers(untrained(), answers, how).shared is None
    monkeypatch.setattr("seewhy.classifiers.fit_answers._gain", lambda *_: (0.04, 0.02))
    assert fit_answers(untrained(), answers, how).shared is not None
