"""Batches computed in parts: the gradient of the whole, in networks, temperature and bias, with dropout on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.learning.contrast import Contrast
from seewhy.learning.objectives.contrastive import Contrastive
from seewhy.learning.objectives.pairs import CLIP, GIST, SigLIP
from seewhy.seeded import seeded
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.memory import _seed, cached_gradients
from seewhy.training.task import Task

N = 18
DRAW = torch.Generator().manual_seed(5)
IMAGE, TEXT = torch.randn(N, 6, generator=DRAW), torch.randn(N, 4, generator=DRAW)
DATA = TrainingData(N, {"image": IMAGE, "text": TEXT, "labels": torch.arange(N) % 3})
HOW = Training(5, N, "sgd", lr=0.1, schedule="constant", weight_decay=0.0)


def towers(objective: Contrastive, drop: float = 0.3, norm: Any = nn.LayerNorm, **options: Any) -> Contrast:
    with seeded(0):
        image = nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU(), nn.Dropout(drop), nn.Linear(8, 5))
        return Contrast(image, nn.Sequential(nn.Linear(4, 5), nn.Dropout(drop)), objective, column="image", **options)


def learning(task: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in task.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("objective", [CLIP(), SigLIP(), GIST(10, "masked")], ids=lambda o: o.name)
@pytest.mark.parametrize("size", [5, 1, 17])
def test_gradients_are_those_of_the_full_batch(objective: Contrastive, size: int) -> None:
    task, batch = towers(objective, labels=True), DATA.batch(0, N, 0)
    own, seed = learning(task), 7
    with seeded(0):
        terms = cached_gradients(task, batch, list(own.values()), size, seed, 1.0)
        found = {name: p.grad for name, p in own.items()}
        images, texts = [], []
        for i, part in enumerate(batch.parts(size)):
            with seeded(_seed(seed, i)):
                image, text = task.features(part)
            images.append(image)
            texts.append(text)
        whole = task.loss((torch.cat(images), torch.cat(texts)), batch)
    assert terms["loss"].item() == pytest.approx(whole["loss"].item(), abs=1e-6)
    for (name, slope), wanted in zip(
        found.items(), torch.autograd.grad(whole["loss"], list(own.values())), strict=True
    ):
        assert slope is not None
        torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=1e-6, msg=name)


def test_the_temperature_gets_its_gradient_once() -> None:
    """Beside open_clip's accumulation, which puts each part in turn among the kept others and adds all up."""
    task, batch, k = towers(CLIP(), drop=0.0), DATA.batch(0, N, 0), 3
    scale = task.state.log_scale
    whole = torch.autograd.grad(task.loss(task.features(batch), batch)["loss"], scale)[0]
    parts = [task.features(part) for part in batch.parts(N // k)]
    theirs = torch.zeros(())
    for j in range(k):
        mixed = [[f if i == j else f.detach() for i, f in enumerate(side)] for side in zip(*parts, strict=True)]
        image, text = (torch.cat(side) for side in mixed)
        theirs += torch.autograd.grad(task.loss((image, text), batch)["loss"], scale, retain_graph=True)[0]
    cached_gradients(task, batch, list(learning(task).values()), N // k, 0, 1.0)
    assert scale.grad is not None
    assert float(scale.grad / whole) == pytest.approx(1.0, abs=1e-6)
    assert float(theirs / whole) == pytest.approx(k, abs=1e-5)


def test_a_training_in_parts_ends_where_the_whole_one_does() -> None:
    whole, parts = towers(SigLIP(), drop=0.0), towers(SigLIP(), drop=0.0)
    for task in (whole, parts):
        task.text.requires_grad_(False)  # a frozen side has features without a gradient
    told = train(whole, DATA, HOW).history, train(parts, DATA, replace(HOW, micro_batch=4)).history
    assert [set(row) for row in told[0]] == [{"loss", "log_scale", "bias"}] * 5
    for a, b in zip(*told, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=1e-5)
    assert not torch.equal(whole.image[0].weight, towers(SigLIP()).image[0].weight)


def test_a_temperature_is_learnt_does_not_decay_and_is_held() -> None:
    task = towers(CLIP(max_scale=20.0))
    task.state.log_scale.data.fill_(9.0)
    train(task, DATA, replace(HOW, n_steps=1, lr=1e-6))
    assert float(task.state.log_scale.exp()) == pytest.approx(20.0)
    before = [towers(SigLIP()).state.bias.item(), towers(SigLIP()).text[0].weight.norm().item()]
    task = towers(SigLIP())
    train(task, DATA, replace(HOW, n_steps=1, optimiser="adamw", lr=1e-3, weight_decay=500.0))
    assert abs(task.state.bias.item() - before[0]) < 1.1e-3, "Adam's first step is as long as the rate"
    assert task.text[0].weight.norm().item() < 0.6 * before[1], "which decays by half"


def test_statistics_of_a_part_are_refused_before_anything_changes() -> None:
    task = towers(CLIP(), norm=nn.BatchNorm1d)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with pytest.raises(InputError) as caught:
        train(task, DATA, replace(HOW, micro_batch=4))
    assert str(caught.value) == (
        "Contrast uses batch normalisation, but micro_batch=4 computes batches in parts. Put "
        "the batch normalisation into evaluation mode, or do not split the batch."
    )
    torch.testing.assert_close(task.state_dict(), before, rtol=0, atol=0)
    train(task, DATA, replace(HOW, n_steps=1))
    assert int(task.image[1].num_batches_tracked) == 1, "in one piece it may, and nothing watches any more"
    held = towers(CLIP(), norm=nn.BatchNorm1d, hold=True)
    train(held, DATA, replace(HOW, n_steps=1, micro_batch=4))
    assert int(held.image[1].num_batches_tracked) == 0


class Odd(Task):
    """Features that are no rows, or two players."""

    def __init__(self, games: bool) -> None:
        super().__init__()
        self.a, self.b, self.games = nn.Linear(6, 1), nn.Linear(6, 1), games

    def features(self, batch: Batch) -> Any:
        return {"mean": self.a(batch["image"]).mean()}

    def loss(self, features: Any, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": features["mean"]}

    def players(self) -> Mapping[str, nn.Module]:
        return {"a": self.a, "b": self.b} if self.games else super().players()


def test_what_cannot_be_computed_in_parts_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        train(Odd(False), DATA, replace(HOW, micro_batch=4))
    assert str(caught.value) == (
        "With `micro_batch`, Odd must return features with one row per sample, got the shapes () for 4 samples. "
        "Leave `micro_batch` out, or move layers that need the whole batch into the loss."
    )
    with pytest.raises(InputError) as caught:
        train(Odd(True), DATA, replace(HOW, micro_batch=4))
    assert str(caught.value) == ("`micro_batch` must not be set for Odd, which has 2 losses. Leave it out.")


def test_parts_of_a_batch_keep_what_belongs_together() -> None:
    views, boxes = torch.arange(5.0)[:, None], torch.arange(40.0).view(2, 5, 4)
    columns = {"views": (views, -views), "boxes": boxes, "said": {"tokens": views}, "names": list("abcde")}
    first, second = Batch([9, 8, 7, 6, 5], columns).parts(3)
    assert (first.index, second.index, second["names"]) == ([9, 8, 7], [6, 5], ["d", "e"])
    assert torch.equal(second["views"][1], -views[3:])
    assert torch.equal(second["boxes"], boxes[:, 3:])
    assert torch.equal(first["said"]["tokens"], views[:3])
