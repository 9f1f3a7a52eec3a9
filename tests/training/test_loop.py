"""The one training loop: the same weights whatever happens on the way."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import DataError, ForeignFileError, InputError
from seewhy.progress import Progress
from seewhy.storage.reading import read_tensors
from seewhy.storage.tensors import marked_tensors
from seewhy.training.augmentation import TrainingPictures
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Task, classified, rates
from tiny import tiny_cnn

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
Y = X @ torch.arange(5.0) + 3


DATA = TrainingData(40, {"x": X, "y": Y})
ONE = TrainingData(1, {})


class Line(Task):
    """A small network that learns a linear map, and a queue that turns."""

    needs = ("x", "y")

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at, self.calls = stop_at, 0
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1))
        self.frozen = nn.Linear(5, 1).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(()))

    def features(self, batch: Batch) -> Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            self.stop()
        return self.net(batch["x"])[:, 0] + 0 * self.queue

    def stop(self) -> None:
        raise KeyboardInterrupt

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        off = (features - batch["y"] + 0.01 * torch.randn(len(batch))).square().mean()
        return {"loss": off, "off": off.sqrt()}

    def after_step(self) -> None:
        self.queue += self.net[0].bias.sum()


class Plain(Task):
    """Modules, and a function of them that is made small."""

    def __init__(self, modules: Mapping[str, nn.Module], loss: Any, games: bool = False) -> None:
        super().__init__()
        self.parts, self.of, self.games = nn.ModuleDict(dict(modules)), loss, games

    def features(self, batch: Batch) -> None:
        return None

    def loss(self, features: None, batch: Batch) -> Mapping[str, Tensor]:
        return self.of(self.parts)

    def players(self) -> Mapping[str, nn.Module]:
        return dict(self.parts.items()) if self.games else super().players()


HOW = Training(60, 8, lr=0.05, checkpoint_every=7)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "per_epoch", "constant"])
def test_a_stopped_run_ends_at_the_same_weights(optimiser: str, schedule: str, ema: float, tmp_path: Path) -> None:
    how = replace(HOW, optimiser=optimiser, schedule=schedule, lr=0.05 if optimiser == "adamw" else 0.002)
    how = replace(how, ema=ema, clip=5.0 if ema else None)
    straight = Line()
    whole = train(straight, DATA, how)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    kept = (tmp_path / "c", "a linear map")
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=25), DATA, how, checkpoint=kept)
    assert not any("frozen" in name for name in read_tensors(kept[0])[0]), "it is not trained"
    again, progress = Line(), Progress()
    again.frozen.load_state_dict(straight.frozen.state_dict())
    rest = train(again, DATA, how, checkpoint=kept, progress=progress)
    assert rest.resumed_at == 21
    assert progress.notes == ["resuming at step 22"]
    assert rest.history == whole.history
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not again.training


def test_another_or_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    for text in ("another thing", None):
        path = tmp_path / "c"
        train(Line(), DATA, HOW, checkpoint=(path, "one thing"))
        if text is None:
            path.write_bytes(path.read_bytes()[:-10])
        progress = Progress()
        done = train(Line(), DATA, HOW, checkpoint=(path, text or "one thing"), progress=progress)
        assert done.resumed_at == 0
        assert progress.notes == [f"{path} is damaged or belongs to another training; starting at step 1"]


def test_a_checkpoint_whose_history_is_not_of_whole_steps_is_not_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "c"
    train(Line(), DATA, HOW, checkpoint=(path, "x"))
    tensors, about = read_tensors(path)
    whole = tensors["history"]

    def changed(names: Any, numbers: Tensor) -> None:
        path.write_bytes(marked_tensors({**tensors, "history": numbers}, {**about, "history": json.dumps(names)}))

    for names, numbers in (
        (["loss", "off"], whole[:-1]), (["loss", "off", "more"], whole[:40]), (["loss", "loss"], whole), ([], whole),
        (["loss", "off"], whole.view(1, -1)), ("lo", whole), ([1, 2], whole),
    ):  # fmt: skip
        changed(names, numbers)
        progress = Progress()
        done = train(Line(), DATA, HOW, checkpoint=(path, "x"), progress=progress)
        assert (done.resumed_at, progress.notes[0]) == (0, f"{path} is damaged; starting at step 1")
    changed(["other"], whole[:20])
    with pytest.raises(DataError, match=r"got other\. Delete the checkpoint and start again\."):
        train(Line(), DATA, HOW, checkpoint=(path, "x"))


def test_what_is_no_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("mine")
    with pytest.raises(ForeignFileError, match="Move it away"):
        train(Line(), DATA, HOW, checkpoint=(path, "x"))
    assert path.read_text() == "mine"


class Killed(Line):
    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(code: str) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    begun = f"import sys\nsys.path[:0] = {paths!r}\nfrom test_loop import *\n"
    assert subprocess.run([sys.executable, "-c", begun + code], timeout=120).returncode == -9


def test_a_killed_process_is_gone_on_from(tmp_path: Path) -> None:
    killed(f"train(Killed(40), DATA, HOW, checkpoint=(Path({str(tmp_path / 'c')!r}), 'killed'))")
    straight, again = Line(), Line()
    again.frozen.load_state_dict(straight.frozen.state_dict())
    train(straight, DATA, HOW)
    assert train(again, DATA, HOW, checkpoint=(tmp_path / "c", "killed")).resumed_at == 35
    torch.testing.assert_close(again.state_dict(), straight.state_dict())
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


class OfPictures(Killed):
    """Learns from pictures that are decoded anew, two crops of each."""

    needs = ("views", "boxes", "y")

    def features(self, batch: Batch) -> Tensor:
        rows = sum(view.mean((2, 3)) for view in batch["views"])
        return super().features(Batch(batch.index, {"x": torch.cat([rows, batch["boxes"][:, :, :2].mean(0)], 1)}))


def pictures(folder: Path) -> TrainingData:
    """22 noisy pictures of several sizes, one of which cannot be read."""
    draw = np.random.default_rng(0)
    for i in range(22):
        pixels = draw.integers(0, 256, (40 + i, 60 - i, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (folder / "07.png").write_bytes(b"nothing")
    read = TrainingPictures(tiny_cnn(), [str(p) for p in sorted(folder.iterdir())], None, Progress(), n_views=2)
    return TrainingData(22, {"y": Y[:22], "pixels": read})


def test_a_process_killed_within_an_epoch_of_pictures_is_gone_on_from(tmp_path: Path) -> None:
    """Five batches an epoch; the checkpoint is of step 7 and the kill at 10, while the next pictures are decoded."""
    (tmp_path / "d").mkdir()
    how, kept = replace(HOW, n_steps=13, batch_size=4, lr=0.01), tmp_path / "c"
    killed(
        f"d = Path({str(tmp_path / 'd')!r})\n"
        f"train(OfPictures(10), pictures(d), Training(**{vars(how)!r}), checkpoint=(d.parent / 'c', 'killed'))"
    )
    straight, again = OfPictures(), OfPictures()
    again.frozen.load_state_dict(straight.frozen.state_dict())
    whole = train(straight, pictures(tmp_path / "d"), how)
    rest = train(again, pictures(tmp_path / "d"), how, checkpoint=(kept, "killed"))
    assert rest.resumed_at == 7
    assert rest.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(*(t.state_dict().values() for t in (again, straight)), strict=True))


def test_batches_are_the_same_whatever_thread_reads_them(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    ahead = list(data.batches(range(12), 4, seed=3))
    alone = [data.batch(step, 4, seed=3) for step in reversed(range(12))][::-1]
    for a, b in zip(ahead, alone, strict=True):
        assert a.index == b.index
        assert all(torch.equal(x, y) for x, y in zip(a["views"], b["views"], strict=True))
        assert torch.equal(a["boxes"], b["boxes"])
        assert a["boxes"].shape == (2, len(a), 4)
    assert not torch.equal(ahead[0]["views"][0], ahead[0]["views"][1])
    assert sum(7 in b.index for b in ahead) == 0
    assert [f.image for f in data.pictures.progress.failures] == [str(tmp_path / "07.png")]


def test_a_box_says_what_a_view_shows(tmp_path: Path) -> None:
    """A picture whose red and green say where a pixel lies."""
    side = 96
    ramp = np.linspace(0, 255, side).round().astype(np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.zeros((side, side), np.uint8)], 2
    )
    reader = TrainingPictures(tiny_cnn(), [pixels], None, Progress(), n_views=4)
    batch = TrainingData(1, {"pixels": reader}).batch(0, 1, seed=0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (reader.transform.mean, reader.transform.std))
    for view, box, flipped in zip(batch["views"], batch["boxes"][:, 0], batch["flipped"][:, 0], strict=True):
        seen = view[0] * std + mean
        seen = seen.flip(2) if flipped else seen
        assert float(seen[0].mean()) == pytest.approx(float(box[0] + box[2]) / 2, abs=0.02)
        assert float(seen[1].mean()) == pytest.approx(float(box[1] + box[3]) / 2, abs=0.02)
    assert len({bool(f) for f in batch["flipped"][:, 0]}) == 2


def test_one_cycle_is_that_of_torch() -> None:
    n = 50
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=n)
    for step in range(n):
        group = optimiser.param_groups[0]
        assert rates("one_cycle", step, n, 1) == pytest.approx((group["lr"], group["momentum"]), abs=1e-9)
        optimiser.step()
        if step < n - 1:
            theirs.step()


def test_every_epoch_shows_every_sample_once() -> None:
    data = TrainingData(12, {"x": torch.arange(12)})
    steps = [batch.index for batch in data.batches(range(12), 3, seed=5)]
    for epoch in range(3):
        assert sorted(i for step in steps[4 * epoch : 4 * epoch + 4] for i in step) == list(range(12))
    assert steps[0] != steps[4]
    (few,) = TrainingData(2, {"x": torch.arange(2)}).batches([7], 32, seed=0)
    assert sorted(few.index) == [0, 1]


def test_random_state_and_other_gradients_are_left_alone() -> None:
    module, beside = Line(), nn.Linear(5, 5)
    task = Plain({"line": module}, lambda parts: {"loss": (parts["line"].net(X) + beside(X)).square().mean()})
    before = torch.get_rng_state()
    with torch.no_grad():
        train(task, DATA, replace(HOW, n_steps=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert beside.weight.grad is None


def test_players_learn_each_from_its_own_term() -> None:
    """Two numbers that multiply: one wants the product small, the other wants it large."""
    module = {"low": nn.Linear(1, 1, bias=False), "high": nn.Linear(1, 1, bias=False)}
    module["low"].weight.data.fill_(2.0)
    module["high"].weight.data.fill_(3.0)

    def loss(parts: Any) -> Mapping[str, Tensor]:
        product = (parts["low"].weight * parts["high"].weight).sum()
        return {"low": product, "high": -product}

    how = Training(1, 1, "sgd", lr=0.1, weight_decay=0, schedule="constant")
    done = train(Plain(module, loss, games=True), ONE, how)
    # Nesterov's first step is 1.9 gradients long; both move from the same place.
    assert module["low"].weight.item() == pytest.approx(2 - 0.19 * 3)
    assert module["high"].weight.item() == pytest.approx(3 + 0.19 * 2)
    assert done.history == ({"low": 6.0, "high": -6.0},)


def test_the_milestones_of_comet() -> None:
    found = [rates("milestones", step, 200, 1)[0] for step in (0, 79, 80, 120, 160, 199)]
    assert found == pytest.approx([1.0, 1.0, 0.2, 0.04, 0.008, 0.008])


def test_parts_learn_at_their_own_rates() -> None:
    module = nn.ModuleDict({"fast": nn.Linear(1, 1), "slow": nn.Linear(1, 1)})
    for part in module.values():
        part.weight.data.zero_()
        part.bias.data.zero_()
    slow = (("parts.slow.", 0.1),)
    how = Training(1, 1, "sgd", 0.1, bias_lr=2.0, schedule="constant", part_lr=slow)
    train(Plain(module, lambda parts: {"loss": -sum(p.sum() for p in parts.parameters())}), ONE, how)
    found = {n: p.item() for n, p in module.named_parameters()}
    wanted = {"fast.weight": 0.19, "fast.bias": 0.38, "slow.weight": 0.019, "slow.bias": 0.038}
    assert found == pytest.approx(wanted)


def test_scales_biases_and_normalisation_do_not_decay() -> None:
    """Without a gradient only the decay moves: by its rate where there is one."""
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.LayerNorm(2)})
    module.register_parameter("logit_scale", nn.Parameter(torch.ones(3)))
    for p in module.parameters():
        p.data.fill_(1.0)
    how = Training(1, 1, lr=0.1, weight_decay=0.5, schedule="constant", part_decay=(("parts.whole.b", 2.0),))
    train(Plain({"whole": module}, lambda parts: {"loss": 0 * sum(p.sum() for p in parts.parameters())}), ONE, how)
    moved = {n: 1 - p.mean().item() for n, p in module.named_parameters() if p.mean().item() != 1}
    assert moved == pytest.approx({"a.weight": 0.05, "b.weight": 0.1})


def test_a_gradient_is_cut_and_an_average_follows() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.zero_()
    how = Training(2, 1, "sgd", 0.1, weight_decay=0, schedule="constant", nesterov=False, clip=0.5, ema=0.75)
    train(Plain({"one": module}, lambda parts: {"loss": -100 * parts["one"].weight.sum()}), ONE, how)
    first, second = 0.05, 0.05 + 0.05 * 1.9  # momentum's sums of a gradient of length a half
    assert module.weight.item() == pytest.approx(0.75 * (0.25 * first) + 0.25 * second, rel=1e-5)


def test_a_task_is_told_what_it_lacks() -> None:
    with pytest.raises(InputError) as caught:
        train(Line(), TrainingData(40, {"x": X}), HOW)
    assert str(caught.value) == "Line requires the columns x, y, got x. Add y."


def test_a_task_that_is_frozen_is_told_so() -> None:
    task = Line()
    train(task, DATA, replace(HOW, n_steps=1))
    with pytest.raises(InputError) as caught:
        train(task, DATA, HOW)
    assert str(caught.value) == ("Line has no trainable parameter. Call requires_grad_(True) on the weights to train.")


def test_errors() -> None:
    with pytest.raises(InputError, match=r"The training data must have at least one sample\."):
        train(Line(), TrainingData(0, {}), HOW)
    module = nn.Linear(1, 1)
    with pytest.raises(InputError) as caught:
        train(Plain({"one": module}, lambda _: {"loss": module.weight.sum() * torch.nan}), ONE, HOW)
    assert str(caught.value) == (
        "The loss is not finite at step 1. Lower the learning rate, for example to a tenth of 0.05."
    )
    with pytest.raises(InputError, match="`n_steps` of Training must be"):
        Training(0)
    with pytest.raises(InputError, match="`ema` of Training must be"):
        Training(1, ema=1.0)


class Drawing(Line):
    """What each step drew, and how often it was told that the weights had moved."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []
        self.moved: list[Tensor] = []

    def features(self, batch: Batch) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        return super().features(batch)

    def after_step(self) -> None:
        self.moved.append(self.net[0].bias.detach().clone())


def test_each_step_draws_anew_and_is_followed_once_its_weights_have_moved() -> None:
    task = Drawing()
    before = task.net[0].bias.detach().clone()
    train(task, DATA, replace(HOW, n_steps=6))
    assert len(set(task.drawn)) == 6
    assert len(task.moved) == 6
    assert all(not torch.equal(a, b) for a, b in zip([before, *task.moved], task.moved, strict=False))


def test_pictures_at_different_places_of_a_batch_are_cut_differently(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    reader = TrainingPictures(tiny_cnn(), [pixels] * 4, None, Progress())
    boxes = TrainingData(4, {"pixels": reader}).batch(0, 4, seed=0)["boxes"][0]
    assert len({tuple(box) for box in boxes.tolist()}) == 4


def test_a_rate_rises_evenly_while_it_warms_up() -> None:
    moved = []
    for warmup in (0, 4):
        weight = nn.Linear(1, 1, bias=False)
        start = weight.weight.detach().clone()
        how = Training(1, optimiser="sgd", lr=0.1, weight_decay=0.0, schedule="constant", warmup=warmup)
        train(Plain({"w": weight}, lambda parts: {"loss": parts["w"].weight.sum()}), ONE, how)
        moved.append(float(start - weight.weight))
    assert moved[1] == pytest.approx(moved[0] / 4)


def test_scores_of_classes_are_judged_row_by_row() -> None:
    scores = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
    found = classified(scores, torch.tensor([0, 1, 2, 0]))
    assert found["right"] == 0.75
    right, wrong = math.log(1 + 2 * math.exp(-2)), math.log(math.exp(2) + 2)
    assert found["loss"].item() == pytest.approx((3 * right + wrong) / 4, rel=1e-6)
