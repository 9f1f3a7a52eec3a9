"""OGEN: generator, losses and gradients against the authors', its teacher, names of the vocabulary, resuming."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from seewhy.encoders.names import imagenet_classes, own_vectors
from seewhy.errors import InputError
from seewhy.learning.adaptation.ogen import (
    OGEN,
    SAME,
    FeatureGenerator,
    LocalMean,
    OGENTask,
    Question,
    neighbours,
    unknown_names,
)
from seewhy.learning.adaptation.prompt_recipe import Lesson
from seewhy.learning.adaptation.prompts import Names, SharedPrompt, opened, other_names
from seewhy.progress import Progress
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from tiny_words import opened as with_words

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ogen.json").read_text("utf-8"))
D = 512


def unit(n: int, seed: int, width: int = D) -> Tensor:
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


class Told:
    """Names whose vectors follow the prompt: ``names + mean(prompt) P``."""

    def __init__(self, vectors: Tensor, follow: Tensor | None = None) -> None:
        self.vectors, self.follow = vectors, torch.zeros(8, vectors.shape[1]) if follow is None else follow

    def read(self, context: Tensor) -> Tensor:
        return normalize(self.vectors + context.mean(0) @ self.follow, dim=1)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fixed_task(names: Told, mean: Tensor, deviation: Tensor, weights: torch.Generator, **settings: Any) -> OGENTask:
    """A task of which everything is given, as the authors' code was run."""
    n = len(mean)
    labels, classes = torch.arange(n), tuple("abcdefgh"[:n])
    lesson = Lesson(with_words(), classes, names, unit(n, 20), labels, 8, 1, 0.1)  # type: ignore[arg-type]
    generator = FeatureGenerator(D, dropout=0.0)
    for part in (generator.attention, generator.mlp):
        for _, p in sorted(part.named_parameters()):
            p.data = torch.randn(p.shape, generator=weights) * 0.05
    how = OGEN(**{"distil": 0.0, "extrapolation": "released", **settings})
    made = OGENTask(how, SharedPrompt(torch.zeros(2, 8)), lesson, 20.0, names)  # type: ignore[arg-type]
    made.generator, made.mean, made.deviation = generator, mean, deviation
    made.near = neighbours(mean, how.k)
    return made.eval()


def golden_task(names: Tensor, **settings: Any) -> OGENTask:
    deviation = torch.rand(5, D, generator=drawn(10)) * 0.05
    return fixed_task(Told(names), unit(5, 9), deviation, drawn(GOLDEN["seed"]), **settings)


def test_generator_and_loss_against_the_authors() -> None:
    names, image, labels = torch.cat([unit(5, 7), unit(4, 12)]), unit(3, 8), torch.tensor([0, 3, 4])
    made = golden_task(names)
    assert made.near.tolist() == GOLDEN["near"]
    asked = made.nearest(names, labels)
    assert asked.tolist() == GOLDEN["near_new"]
    question = Question(image, labels, torch.rand(1, D, generator=drawn(11)), asked)
    with torch.no_grad():
        own = made.answers(question, made.generator, names)
        for found, wanted in zip(own[1:], GOLDEN["first"], strict=True):
            torch.testing.assert_close(found.features[:, :6], torch.tensor(wanted), atol=1e-4, rtol=1e-3)
        warm = made.distance(question, own) * D / image.shape[1]
        assert float(warm) == pytest.approx(GOLDEN["warm"], rel=1e-4)
        whole = warm + sum(a.weight * cross_entropy(a.scores(20.0), a.labels) for a in own)
        assert float(whole) == pytest.approx(GOLDEN["whole"], rel=1e-4)


def gradient(weights: Tensor) -> Tensor:
    assert weights.grad is not None
    return weights.grad


def gradients(*weights: Tensor) -> list[float]:
    return [float(gradient(one).norm()) for one in weights]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"k={c['k']}")
def test_losses_and_gradients_against_the_authors(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    at, k, n = 100 * case["seed"], case["k"], case["n_known"]
    follow, context = torch.randn(8, D, generator=drawn(at + 1)) * 0.05, torch.randn(2, 8, generator=drawn(at + 2))
    told = Told(torch.cat([unit(n, at + 3), unit(case["n_new"], at + 4)]), follow)
    deviation = torch.rand(n, D, generator=drawn(at + 7)) * 0.05
    made = fixed_task(told, unit(n, at + 6), deviation, drawn(at + 8), k=k)
    made.prompt.vectors.data = context
    assert made.near.tolist() == case["near"]
    u = torch.rand(1, D, generator=drawn(at + 9))
    monkeypatch.setattr(torch, "rand", lambda *shape: u)
    batch: Any = {"image": unit(len(case["labels"]), at + 5), "labels": torch.tensor(case["labels"])}
    warm = made.generated(batch, made.features(batch)[1])
    warm.backward()
    assert float(warm.detach()) == pytest.approx(case["warm"], rel=1e-4)
    assert made.prompt.vectors.grad is None
    first, inner = (made.generator.get_parameter(name) for name in ("mlp.0.weight", "attention.in_proj_weight"))
    assert gradients(first, inner) == pytest.approx(case["warm_generator"][:2], rel=1e-4)
    made.zero_grad()
    image, names = made.features(batch)
    asked = made.nearest(names, batch["labels"])
    assert asked.flatten().tolist() == case["near_new"]
    question = Question(image, batch["labels"], u, asked)
    own = made.answers(question, made.generator, names)
    order = (own[1], own[2], own[3], own[0])
    found = [float(cross_entropy(a.scores(20.0), a.labels).detach()) for a in order]
    assert found == pytest.approx(case["entropies"], rel=1e-4)
    assert [a.weight for a in order] == pytest.approx([0.25, 0.25 / k, 0.5 / k, 0.25])
    torch.testing.assert_close(own[2].features[:, :4], torch.tensor(case["u2"]), atol=1e-4, rtol=1e-3)
    whole = made.loss((image, names), batch)["loss"]
    whole.backward()
    assert float(whole.detach()) == pytest.approx(case["whole"], rel=1e-4)
    assert gradient(made.prompt.vectors).flatten()[:8].tolist() == pytest.approx(
        case["whole_prompt"], rel=1e-3, abs=1e-6
    )
    assert gradients(first, inner) == pytest.approx(case["whole_generator"][:2], rel=1e-4)
    assert gradient(first)[3, 5].item() == pytest.approx(case["whole_generator"][2], rel=1e-3, abs=1e-6)


def test_from_each_near_class_alone() -> None:
    names, image, labels = torch.cat([unit(5, 7), unit(4, 12)]), unit(3, 8), torch.tensor([0, 3, 4])
    alone = golden_task(names, extrapolation="per_class")
    text, near, generator, draw = names[:5], alone.near[labels], alone.generator, torch.zeros(1, D)
    question = Question(image, labels, draw, alone.nearest(names, labels))
    with torch.no_grad():
        found = [generator(text[labels][:, None], text[near][:, [j]], alone.mean[near][:, [j]]) for j in range(3)]
        wanted = sum(((one - image) ** 2).sum(1).mean() for one in found) / 3
        back = generator(text[near], text[labels][:, None], image[:, None])
        wanted = wanted + ((back - alone.mean[near].flatten(0, 1)) ** 2).sum(1).mean()
        own = alone.answers(question, generator, names)
        assert float(alone.distance(question, own)) == pytest.approx(float(wanted), rel=1e-5)
        assert own[1].labels.tolist() == [0, 0, 0, 3, 3, 3, 4, 4, 4]
        assert len(own[3].features) == 9


def test_an_unknown_class_is_made_of_its_nearest_known_ones_at_once() -> None:
    names, image, labels = torch.cat([unit(5, 7), unit(4, 12)]), unit(3, 8), torch.tensor([0, 3, 4])
    joint = golden_task(names, extrapolation="joint")
    text, new, draw = names[:5], names[5:], torch.rand(1, D, generator=drawn(3))
    asked = joint.nearest(names, labels)
    question = Question(image, labels, draw, asked)
    with torch.no_grad():
        made = joint.answers(question, joint.generator, names)[3]
        for j in range(4):
            around = (text @ new[j]).argsort(descending=True)[:3]
            assert asked[j].tolist() == around.tolist()
            value = joint.mean[around] + draw * joint.deviation[around]
            one = joint.generator(new[j][None, None], text[around][None], value[None])[0]
            torch.testing.assert_close(made.features[j], one, atol=1e-5, rtol=1e-4)
    assert made.labels.tolist() == [0, 1, 2, 3]
    assert torch.equal(made.among, new)
    assert made.weight == pytest.approx(0.5 / 3)


def small(**settings: Any) -> tuple[OGENTask, TrainingData]:
    on = with_words()
    classes = ("moss", "rust", "sky", "sand")
    image = unit(16, 3, 8)
    labels = torch.arange(16) % 4
    lesson = Lesson(on, classes, Names(opened(on), classes), image, labels, 8, 4, 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = OGEN(**{"new_names": (), "generator_steps": 8, **settings}).task(lesson)
    assert isinstance(made, OGENTask)
    return made, TrainingData(16, {"image": image, "labels": labels})


def trained(steps: int, **settings: Any) -> tuple[OGENTask, list[dict[str, float]]]:
    made, data = small(**settings)
    done = train(made, data, Training(steps, 4, optimiser="sgd", lr=0.1, part_lr=made.rates))
    return made, list(done.history)


def test_the_generator_learns_alone_before_the_prompt() -> None:
    few, many = small(generator_steps=1)[0], small(generator_steps=40)[0]
    assert torch.equal(few.prompt.vectors, many.prompt.vectors)
    text = many.names.read(many.prompt.vectors)
    batch: Any = small()[1].columns
    with torch.no_grad(), torch.random.fork_rng():
        apart = [float(task.eval().generated(batch, text)) for task in (few, many)]
    assert apart[1] < 0.9 * apart[0]
    assert all(p.requires_grad for p in many.trained())
    assert dict(small()[0].rates) == {"generator.": pytest.approx(1.0), "prompt.": 4.0}
    again = small(generator_steps=40)[0]
    assert all(torch.equal(p, q) for p, q in zip(again.trained(), many.trained(), strict=True))
    after, history = trained(4)
    assert not torch.equal(after.prompt.vectors, few.prompt.vectors)
    assert history[0]["loss"] > history[0]["generated"]


@pytest.mark.parametrize(("least", "most", "n_epochs"), [(2, 9, 10), (1, 3, 7), (4, 4, 5), (2, 9, 40)])
def test_the_local_mean_is_that_of_the_stored_checkpoints(least: int, most: int, n_epochs: int) -> None:
    local, stored, windows = LocalMean(5, least, most, n_epochs), [], []
    for t in range(1, n_epochs + 1):
        weights = torch.randn(5, generator=drawn(t))
        local.keep(weights)
        stored.append(weights.half().float())
        width = int((1 - math.cos(math.pi * t / n_epochs)) / 2 * (most - least) + least)
        m = min(t, width)
        factors = [1 / max(m, 2) * (1 - 1 / max(m, 2)) ** (m - 1 - i) for i in range(m)]
        factors[0] = 1 - sum(factors[1:])
        wanted = sum(f * w for f, w in zip(factors, stored[-m:], strict=True))
        torch.testing.assert_close(local.mean(), wanted)
        windows.append(local.window)
    assert windows[-1] == min(most, n_epochs)
    assert windows == sorted(windows)


def test_the_teacher_is_the_whole_model_as_it_was() -> None:
    made, _ = trained(18, new_names=("wren", "oak"))
    assert made.past is not None
    teacher = made.teacher()
    assert teacher is not None
    assert teacher.epoch == 5  # the start, and four epochs
    mean = made.past.mean()
    n = made.prompt.vectors.numel()
    prompt = mean[:n].view_as(made.prompt.vectors)
    assert torch.equal(teacher.text, made.names.read(prompt))
    assert len(teacher.text) == 6
    own = torch.cat([p.flatten() for p in teacher.generator.parameters()])
    assert torch.equal(own, mean[n:])
    assert not torch.allclose(own, torch.cat([p.flatten() for p in made.generator.parameters()]))
    assert not teacher.generator.training


def test_what_the_teacher_says_is_the_loss_again_with_its_answers() -> None:
    names, image, labels = torch.cat([unit(5, 7), unit(4, 12)]), unit(3, 8), torch.tensor([0, 3, 4])
    made = golden_task(names, extrapolation="joint")
    question = Question(image, labels, torch.rand(1, D, generator=drawn(3)), made.nearest(names, labels))
    other = golden_task(names, extrapolation="joint").generator
    other.get_parameter("mlp.0.weight").data *= 1.5
    own = made.answers(question, made.generator, names)
    with torch.no_grad():
        past = made.answers(question, other, unit(9, 30))
        wanted = torch.zeros(())
        for a, b in zip(own, past, strict=True):
            p, q = (20 * b.features @ b.among.T).softmax(1), (20 * a.features @ a.among.T).softmax(1)
            wanted = wanted + a.weight * (p * (p / q).log()).sum(1).mean()
        for a, b in zip(own[1:], past[1:], strict=True):
            wanted = wanted + (a.features - b.features).square().sum(1).mean()
        assert float(made.between(own, past)) == pytest.approx(float(wanted), rel=1e-4)
        assert float(made.between(own, own)) == pytest.approx(0.0, abs=1e-6)


def test_distillation_counts_from_the_start() -> None:
    history = trained(4)[1]
    assert all(step["distilled"] > 0 for step in history)
    none, history = trained(4, distil=0.0)
    assert {step["distilled"] for step in history} == {0.0}
    assert none.past is None
    twice, once = trained(1, distil=2.0)[1][0], trained(1, distil=1.0)[1][0]
    assert twice["loss"] - once["loss"] == pytest.approx(once["distilled"], rel=1e-3)


def test_stopped_within_an_epoch_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    def run(at: int | None) -> OGENTask:
        made, data = small(new_names=("wren", "oak"))
        how = Training(14, 4, optimiser="sgd", lr=0.1, part_lr=made.rates, checkpoint_every=1)
        train(made, data, how, checkpoint=(tmp_path / "kept", "a"), progress=None if at is None else Stopped(at))
        return made

    class Stopped(Progress):
        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

        def measured(self, step: int, terms: Any) -> None:
            if step == self.at:
                raise KeyboardInterrupt

    whole = run(None)
    (tmp_path / "kept").unlink()
    for at in (2, 9):  # within the first epoch and a later one
        with pytest.raises(KeyboardInterrupt):
            run(at)
    again = run(None)
    assert torch.equal(again.prompt.vectors, whole.prompt.vectors)
    assert all(torch.equal(a, b) for a, b in zip(again.trained(), whole.trained(), strict=True))
    assert again.past is not None
    assert whole.past is not None
    assert torch.equal(again.past.past, whole.past.past)


def test_unknown_names_are_of_the_vocabulary_and_nothing_that_was_named() -> None:
    on = with_words()
    made = small(new_names=None)[0]
    names = made.facts["unknown_names"]
    assert len(names) == 4
    assert made.names.n == 8
    assert names == list(unknown_names(on, ("moss", "rust", "sky", "sand"), (), 4))
    free = unknown_names(on, ("cat", "fire_truck"), ("Goldfish", "couches"), 1000)
    assert not {"tabby", "Persian cat", "Egyptian cat", "fire engine", "goldfish", "studio couch"} & set(free)
    assert "tench" in free
    assert small(new_names=())[0].names.n == 4
    assert small(new_names=())[0].facts == {"unknown_names": []}
    one = trained(2, new_names=("wren", "oak"))[0].prompt.vectors
    assert not torch.equal(one, trained(2)[0].prompt.vectors)
    with pytest.raises(InputError) as caught:
        small(new_names=("wren", "moss"))
    assert str(caught.value) == ("`new_names` must not contain classes with pictures, got 'moss'. Remove this name.")


def test_new_names_are_compared_as_they_are_spoken() -> None:
    """Bravo apple juice beside Bravo-Apple-Juice, and heron twice, were taken."""
    assert other_names(("heron", "sea_gull", "Heron", "sea-gull"), ("Bravo-Apple-Juice",)) == ("heron", "sea_gull")
    with pytest.raises(InputError) as caught:
        small(new_names=("wren", "MOSS"))
    assert "got 'MOSS' (class 'moss')." in str(caught.value)
    with pytest.raises(InputError, match=r"\(class 'Bravo-Apple-Juice'\)"):
        other_names(("bravo apple juice",), ("Bravo-Apple-Juice",))
    assert small(new_names=("wren", "oak", "Wren"))[0].facts == {"unknown_names": ["wren", "oak"]}


@pytest.mark.parametrize(
    ("classes", "kinds"),
    [
        (
            ("dog", "cat"),
            "toy poodle,Australian terrier,golden retriever,collie,Irish terrier,Labrador retriever,tabby",
        ),
        (("sofa", "bike"), "bicycle-built-for-two,studio couch,tricycle,mountain bike"),
        (("tabby", "Egyptian cat"), "tiger cat,Siamese cat"),
        (("bird", "car"), "robin,junco,flamingo,limousine,convertible,sports car"),
    ],
)
def test_kinds_of_ones_own_classes_are_no_unknown_names(classes: tuple[str, ...], kinds: str) -> None:
    """A toy poodle beside dogs, a studio couch beside sofas: they were the nearest names."""
    free = unknown_names(with_words(), classes, (), 1000)
    assert not set(kinds.split(",")) & set(free)
    assert {"hamster", "lemon"} <= set(free)
    assert len(free) > 700


def test_the_nearest_names_come_first() -> None:
    on = with_words()
    names = unknown_names(on, ("moss", "rust"), (), 1000)
    assert unknown_names(on, ("moss", "rust"), (), 7) == names[:7]
    vocabulary = [*on.classes, *(c.label for c in imagenet_classes())]
    rows = own_vectors(on.text, [*dict.fromkeys(vocabulary)]).float()
    centre = rows.mean(0)

    def near(name: str) -> float:
        one, *others = (normalize(v - centre, dim=0) for v in own_vectors(on.text, [name, "moss", "rust"]).float())
        return max(float(one @ other) for other in others)

    cosines = [near(name) for name in names[:20]]
    assert cosines == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
    assert cosines[0] < SAME
    assert near(names[-1]) < cosines[-1]


def test_a_vocabulary_of_nothing_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.learning.adaptation.ogen.SAME", -2.0)
    with pytest.raises(InputError) as caught:
        unknown_names(with_words(), ("moss", "rust"), ("sky",), 2)
    assert re.sub(r"of \d+ names", "of N names", str(caught.value)) == (
        "ogen needs at least 2 names of other objects, but found 0 in its vocabulary of N names. Give `new_names`, "
        "or set new_names=() to use none."
    )


def test_values_that_cannot_be() -> None:
    with pytest.raises(InputError) as caught:
        OGEN(extrapolation="both")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "`extrapolation` of ogen must be 'joint', 'per_class' or 'released', got 'both'. Leave it out to use 'joint'."
    )
    with pytest.raises(
        InputError, match=r"^`window_max` must be at least `window_min`, got window_min=3 and window_max=2\."
    ):
        OGEN(window_min=3, window_max=2)
