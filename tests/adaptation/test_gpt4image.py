"""GPT4Image: weight 0 is no texts, texts are found again, files are the same, and the encoder stays as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.saving import load
from seewhy.encoders.stream import file_digest
from seewhy.errors import DataError, InputError
from seewhy.language.matching import Caption
from seewhy.learning.adaptation.backbone import Predictor, Start, new_predictor
from seewhy.learning.adaptation.gpt4image import GPT4Image, JointTask, projection
from seewhy.learning.contrast import recall
from seewhy.learning.objectives.pairs import GPT4Image as Alignment
from seewhy.pictures.samples import Samples, load_samples, split
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised
from tiny import class_folders, noise, tiny_cnn, tiny_tokens

PIXELS, LABELS = noise(8), torch.arange(8) % 2
TEXTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
DATA = TrainingData(8, {"pixels": PIXELS, "labels": LABELS, "text": TEXTS})


def student(alignment: Alignment | None = None, still: bool = False) -> tuple[Predictor, JointTask]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = new_predictor(2)
        beside = projection("mlp", predictor.weight.shape[1], 5)
        return predictor, JointTask(predictor, beside, alignment or Alignment(), still=still)


def taught(lam: float, steps: int = 3) -> tuple[Predictor, list[dict[str, float]]]:
    predictor, task = student(Alignment(lam=lam))
    done = train(task, DATA, Training(steps, 8, lr=0.01, weight_decay=0.0))
    return predictor, list(done.history)


def test_the_first_loss_is_cross_entropy_and_a_part_of_the_alignment() -> None:
    predictor, task = student()
    with torch.no_grad():
        logits = predictor.train()(PIXELS)
        projected = task.train().beside(predictor.image(PIXELS))
    _, history = taught(0.3)
    order = history[0]
    by_class = float(torch.nn.functional.cross_entropy(logits, LABELS))
    by_text = float(Alignment()(projected, TEXTS))
    assert order["ce"] == pytest.approx(by_class, abs=1e-4)
    assert order["text"] == pytest.approx(by_text, abs=1e-4)
    assert order["loss"] == pytest.approx(by_class + 0.3 * by_text, abs=1e-4)
    assert order["recall"] == pytest.approx(recall(projected, TEXTS))


def test_a_weight_of_0_is_training_without_texts() -> None:
    without, with_texts = student()[0], taught(0.0)[0]
    train(Supervised(without), DATA, Training(3, 8, lr=0.01, weight_decay=0.0))
    for (name, a), (_, b) in zip(without.state_dict().items(), with_texts.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(taught(0.3)[0].weight, without.weight)


def test_texts_are_found_again_after_training() -> None:
    """Eight pictures and their texts: recall rises from little to all, or nothing is wired."""
    history = taught(1.0, steps=60)[1]
    assert history[0]["recall"] < 0.6
    assert history[-1]["recall"] == 1.0


def test_from_nothing_and_saved(tmp_path: Path) -> None:
    """Captions by digest, in another order than the pictures."""
    folder = class_folders(tmp_path / "d", 5)
    paths = sorted(folder.rglob("*.png"), reverse=True)
    captions = [Caption("", file_digest(p) or "", (f"picture {p.stem}",), model="people") for p in paths]
    recipe = GPT4Image("scratch", size=32, n_steps=4, batch_size=4)
    made = recipe.fit(tiny_cnn(), load_samples(folder), captions=captions)
    assert made.encoder.name == "small ResNet, 32 px"
    assert not made.encoder.has_text
    assert made.measures["texts_by"] == ["people"]
    assert set(made.measures["last_steps"]) == {"loss", "ce", "right", "text", "recall"}
    again = load(made.save(tmp_path / "m"), encoder=tiny_cnn())
    assert torch.equal(again.probabilities(noise(3)), made.probabilities(noise(3)))


def test_the_encoder_stays_as_it_was_and_its_copy_learns(tmp_path: Path) -> None:
    folder, on = class_folders(tmp_path / "d", 4), tiny_cnn()
    before = on.encode(noise(2)).pooled.clone()
    captions = [Caption(str(p), "", (p.stem,)) for p in folder.rglob("*.png")]
    made = GPT4Image(n_steps=3, batch_size=4, lr=0.05).fit(on, load_samples(folder), captions=captions)
    assert torch.equal(on.encode(noise(2)).pooled, before)
    assert not torch.equal(made.encoder.encode(noise(2)).pooled, before)


def test_without_texts_it_is_refused(tmp_path: Path) -> None:
    samples = load_samples(class_folders(tmp_path / "d", 3))
    with pytest.raises(InputError) as caught:
        GPT4Image().fit(tiny_cnn(), samples)
    assert str(caught.value) == (
        "gpt4image needs a text for each picture. Write a .jsonl file with seewhy describe match, "
        "and give it with --captions."
    )
    with pytest.raises(DataError, match="have no text"):
        GPT4Image().fit(tiny_cnn(), samples, captions=[Caption("nothing.png", "", ("a",))])
    wrong: dict[str, tuple[object, str]] = {
        "backbone": ("x", "must be 'encoder' or 'scratch', got 'x'. Leave it out to use 'encoder'."),
        "projection": ("x", "must be 'mlp' or 'linear', got 'x'. Leave it out to use 'mlp'."),
        "batch_size": (1, "must be a whole number of at least 2, got 1. Leave it out to use 32."),
        "tau": (-1.0, "must be a number above 0, got -1. Leave it out to use 0.2."),
        "form": ("x", "must be 'clip', 'ctr' or 'byol', got 'x'. Leave it out to use 'clip'."),
    }
    for name, (value, says) in wrong.items():
        with pytest.raises(InputError, match=f"^`{name}` of (the objective )?gpt4image {re.escape(says)}$"):
            GPT4Image(**{name: value})  # type: ignore[arg-type]


def test_it_starts_from_a_layer_that_no_held_out_picture_has_taught(tmp_path: Path) -> None:
    """One step of no length: what is there is the linear classifier of the pictures that are trained on."""
    samples = load_samples(class_folders(tmp_path / "d", 4))
    names, labels = [s.image for s in samples.items], [s.label for s in samples.items]
    held = split(labels, [file_digest(n) or "" for n in names], 0.2, 0)
    flagged = list(zip(samples.items, held, strict=True))
    parts = [Samples(tuple(s for s, h in flagged if h is of), samples.classes) for of in (False, True)]
    recipe = GPT4Image(n_steps=1, batch_size=4, lr=1e-12, n_bank=3, split="random")
    made = recipe.fit(tiny_cnn(), samples, captions=[Caption(n, "", (n,)) for n in names])
    linear = Linear(n_crops=0, n_bank=3)
    own, every = linear.fit(tiny_cnn(), parts[0], validation=parts[1]), linear.fit(tiny_cnn(), samples)
    torch.testing.assert_close(made.head.weight, own.head.weight, atol=1e-6, rtol=0)
    assert not torch.allclose(made.head.weight, every.head.weight, atol=1e-3)


def test_transformers_have_a_temperature_of_their_own() -> None:
    def taus(**given: Any) -> list[float]:
        start, how = Start(given.get("backbone", "encoder")), GPT4Image(**given)
        return [how._alignment(start.of(on)).tau for on in (tiny_cnn(), tiny_tokens())]

    assert taus() == [0.2, 0.05]
    assert taus(backbone="scratch") == [0.2, 0.2]
    assert taus(tau=0.1) == [0.1, 0.1]


@pytest.mark.parametrize("pretrained", [True, False])
def test_batch_normalisation_stays_as_it_was_trained(pretrained: bool) -> None:
    predictor, task = student(still=pretrained)
    before = {n: b.clone() for n, b in predictor.named_buffers() if "running" in n}
    weights = predictor.weight.clone()
    train(task, DATA, Training(2, 8))
    after = dict(predictor.named_buffers())
    assert before
    assert {torch.equal(b, after[n]) for n, b in before.items()} == {pretrained}
    assert not torch.equal(predictor.weight, weights)
