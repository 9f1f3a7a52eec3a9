"""OGEN: generator and loss against the authors', the warming, the teacher's window, names read only if given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from seewhy.errors import InputError
from seewhy.learning.adaptation.prompt_recipe import Lesson
from seewhy.learning.adaptation.prompts import Names, SharedPrompt, opened
from seewhy.learning.adaptation.ogen import OGEN, FeatureGenerator, OGENTask, neighbours
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from tiny_words import opened as with_words

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ogen.json").read_text("utf-8"))
D = 512


def unit(n: int, seed: int, width: int = D) -> Tensor:
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


class Told:
    """Names that are given vectors."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def read(self, context: Tensor) -> Tensor:
        return self.vectors


def golden_task(text: Tensor, new: Tensor | None, **settings: Any) -> OGENTask:
    image, labels = unit(5, 20), torch.arange(5)
    lesson = Lesson(with_words(), tuple("abcde"), Told(text), image, labels, 10, 1, 0.1)  # type: ignore[arg-type]
    generator = FeatureGenerator(D, dropout=0.0)
    order = {"attention": "attention", "mlp": "mlp"}
    draw = torch.Generator().manual_seed(GOLDEN["seed"])
    for part in order:
        for _, p in sorted(getattr(generator, part).named_parameters()):
            p.data = torch.randn(p.shape, generator=draw) * 0.05
    names = None if new is None else Told(new)
    prompt = SharedPrompt(torch.zeros(1, 8))
    made = OGENTask(OGEN(**{"distil": 0.0, **settings}), prompt, lesson, 20.0, names)  # type: ignore[arg-type]
    made.generator = generator
    made.mean = unit(5, 9)
    made.deviation = torch.rand(5, D, generator=torch.Generator().manual_seed(10)) * 0.05
    made.near = neighbours(made.mean, 3)
    return made.eval()


def test_generator_and_loss_against_the_authors() -> None:
    text, new, image, labels = unit(5, 7), unit(4, 12), unit(3, 8), torch.tensor([0, 3, 4])
    made = golden_task(text, new)
    assert made.near.tolist() == GOLDEN["near"]
    u = torch.rand(1, D, generator=torch.Generator().manual_seed(11))
    near = made.near[labels]
    value = made.mean[near] + u * made.deviation[near]
    with torch.no_grad():
        one = made.generator(text[labels][:, None], text[near], value)
        back = made.generator(text[near], text[labels][:, None], image[:, None])
        unknown = made.generator(new[torch.tensor(GOLDEN["near_new"])], text[labels][:, None], image[:, None])
        for found, wanted in zip((one, back, unknown), GOLDEN["first"], strict=True):
            torch.testing.assert_close(found[:, :6], torch.tensor(wanted), atol=GOLDEN["tolerance"], rtol=1e-3)
        assert float(made.made(image, text, labels, value)["generated"]) == pytest.approx(GOLDEN["warm"], rel=1e-4)
        made.n_done.fill_(2)  # a fifth of ten epochs has gone
        terms = made.made(image, text, labels, value)
        whole = terms["loss"] + 0.25 * cross_entropy(20 * image @ text.T, labels)
        assert float(whole) == pytest.approx(GOLDEN["whole"], rel=1e-4)
        without = golden_task(text, None)
        without.n_done.fill_(2)
        known = without.made(image, text, labels, value)["loss"]
        assert float(terms["loss"] - known) > 0.1


def test_from_each_near_class_alone() -> None:
    text, image, labels = unit(5, 7), unit(3, 8), torch.tensor([0, 3, 4])
    alone = golden_task(text, None, extrapolation="per_class")
    value = alone.mean[alone.near[labels]]
    with torch.no_grad():
        found = [
            alone.generator(text[labels][:, None], text[alone.near[labels]][:, [j]], value[:, [j]]) for j in range(3)
        ]
        wanted = sum(((one - image) ** 2).sum(1).mean() for one in found) / 3
        back = alone.generator(text[alone.near[labels]], text[labels][:, None], image[:, None])
        wanted = wanted + ((back - value.flatten(0, 1)) ** 2).sum(1).mean()
        assert float(alone.made(image, text, labels, value)["generated"]) == pytest.approx(float(wanted), rel=1e-5)


def small(**settings: Any) -> tuple[OGENTask, TrainingData]:
    on = with_words()
    classes = ("moss", "rust", "sky", "sand")
    image = unit(16, 3, 8)
    labels = torch.arange(16) % 4
    lesson = Lesson(on, classes, Names(opened(on), classes), image, labels, 10, 4, 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = OGEN(**settings).task(lesson)
    assert isinstance(made, OGENTask)
    return made, TrainingData(16, {"image": image, "labels": labels})


def trained(steps: int, **settings: Any) -> tuple[OGENTask, list[dict[str, float]]]:
    made, data = small(**settings)
    done = train(made, data, Training(steps, 4, optimiser="sgd", lr=0.1, part_lr=made.rates))
    return made, list(done.history)


def test_the_generator_learns_alone_at_first() -> None:
    before = small()[0]
    warm, history = trained(8)
    assert torch.equal(warm.prompt.vectors, before.prompt.vectors)
    assert not torch.equal(warm.generator.mlp[0].weight, before.generator.mlp[0].weight)  # type: ignore[arg-type]
    assert all(step["loss"] == step["generated"] for step in history)
    after, history = trained(12)
    assert not torch.equal(after.prompt.vectors, before.prompt.vectors)
    assert history[8]["loss"] > history[8]["generated"]


def test_the_teacher_is_an_average_of_a_window_that_widens() -> None:
    made, _ = small()
    made.past.copy_(torch.arange(9.0)[:, None, None].expand_as(made.past))
    counts = {}
    for epoch in range(1, 11):
        made.n_done.fill_(4 * epoch)
        counts[epoch] = float(made.teacher()[0, 0])
    assert counts[1] == 8  # one epoch has gone: there is nothing else
    assert counts[2] == 7 * 0.5 + 8 * 0.5
    assert counts[3] == pytest.approx((6 * 4 + 7 * 2 + 8 * 3) / 9)
    assert counts[10] < counts[5] < counts[3]
    taught, history = trained(24)
    assert bool(taught.taught.any())
    assert history[8]["distilled"] == 0
    assert history[-1]["distilled"] > 0
    assert {step["distilled"] for step in trained(24, distil=0.0)[1]} == {0.0}


def test_no_name_is_read_unless_it_is_given() -> None:
    assert small()[0].new is None
    one = trained(12, new_names=("wren", "oak"))[0].prompt.vectors
    assert not torch.equal(one, trained(12)[0].prompt.vectors)
    with pytest.raises(InputError) as caught:
        small(new_names=("wren", "moss"))
    assert str(caught.value) == (
        "The new name 'moss' is one of the 4 classes with pictures. Names of other classes were expected. Drop it."
    )


def test_values_that_cannot_be() -> None:
    with pytest.raises(InputError) as caught:
        OGEN(extrapolation="both")  # type: ignore[arg-type]
    assert str(caught.value) == ("ogen was given extrapolation='both'. 'joint' or 'per_class' was expected. Change it.")
    with pytest.raises(InputError, match=r"^ogen was given window_min=3, window_max=2\. "):
        OGEN(window_min=3, window_max=2)
