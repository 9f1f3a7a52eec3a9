"""A training says what it will take of memory, stays within what is free, and refuses what cannot fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InputError
from seewhy.learning.objectives.vectors import SimCLR
from seewhy.learning.pretrain import Views
from seewhy.progress import Progress
from seewhy.training import memory
from seewhy.training.augmentation import TrainingPictures
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.memory import StepMemory, free_memory, gigabytes, measure
from seewhy.training.task import Task
from tiny import tiny_cnn
from training.test_loop import pictures

CPU = torch.device("cpu")
HOW = Training(3, 16, lr=0.01)
KEPT = 4 * 3 * 32 * 32
"""Bytes of a view, which are what :class:`Squared` keeps of it."""


class Squared(nn.Module):
    """Keeps its input until its gradient is known, and its own weight: nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 1), 0.5))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels * self.weight).mean((2, 3))


def views(tower: nn.Module, *, hold: bool = True) -> Views:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(3, 4)
    sizes = {"width": 4, "n_classes": 0, "n_pictures": 22, "n_steps": 3}
    return Views(tower, head, SimCLR(), hold=hold, **sizes)


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    found = pictures(tmp_path)
    return TrainingData(found.n_samples, {"pixels": found.columns["pixels"]})


def test_what_a_step_keeps_is_measured(data: TrainingData) -> None:
    task = views(Squared()).train()
    found = measure(task, data, 16, 0, CPU)
    assert found is not None
    assert found.splits
    assert found.per_sample == pytest.approx(2 * KEPT, rel=0.05), "two views of each picture"
    assert found.fixed == pytest.approx(3 * 4 * (3 + 16) + 3 * 16 * 2 * KEPT, rel=0.05)


def test_measuring_changes_nothing(data: TrainingData) -> None:
    task = views(nn.Sequential(nn.BatchNorm2d(3), Squared()), hold=False).train()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    random = torch.get_rng_state()
    with torch.random.fork_rng():
        found = measure(task, data, 16, 0, CPU)
    assert found is not None
    assert not found.splits, "its statistics are of the whole batch"
    torch.testing.assert_close(dict(task.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("need", "free", "size"), [(1, 100, None), (6, 100, 8), (20, 100, 2), (60, 100, 1), (6, 1000, None)]
)
def test_as_much_is_computed_at_once_as_half_of_what_is_free_is_enough_for(
    need: int, free: int, size: int | None
) -> None:
    found = StepMemory(need, 0, free, 10**9, splits=True)
    assert found.at_once(16) == size
    assert replace(found, splits=False).at_once(16) is None
    assert replace(found, parts=need).at_once(16) in (None, 1)


class Counted(Squared):
    """How many views it was given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.given.append(len(pixels))
        return super().forward(pixels)


def test_a_batch_that_does_not_fit_is_computed_in_parts_with_the_same_gradient(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 pictures took 8.3 GB without a word."""
    whole, parts, progress = views(Counted()), views(Counted()), Progress()
    train(whole, data, HOW)
    fixed = 3 * 4 * 19 + 3 * 16 * 2 * KEPT
    monkeypatch.setattr(memory, "free_memory", lambda _: 2 * (fixed + 5.6 * 2 * KEPT))
    train(parts, data, HOW, progress=progress)
    assert max(whole.network[0].given) == 30, "one picture of the batch cannot be read"
    assert max(parts.network[0].given) == 10
    (note,) = progress.notes
    assert note.startswith(
        "a step of 16 samples would take about 0.0 GB of memory, but 0.0 GB are free: micro-batches of 5"
    )
    assert note.endswith(" with the same gradient and one more forward pass")
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)


def test_what_cannot_fit_is_refused_before_it_starts(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 1000)
    with pytest.raises(InputError) as caught:
        train(views(Squared()), data, HOW)
    assert str(caught.value) == (
        "A step of 16 samples needs about 0.0 GB of memory even with one sample at a time, but 0.0 "
        "GB are free. Use a smaller batch size, smaller pictures, or a machine with more "
        "memory."
    )
    with pytest.raises(InputError, match="with micro-batches of 16 samples"):
        train(views(nn.Sequential(nn.BatchNorm2d(3), Squared()), hold=False), data, HOW)


def test_a_run_that_goes_on_where_there_is_more_memory_computes_the_same_parts(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept, how = (tmp_path / "c", "x"), replace(HOW, checkpoint_every=1)

    class Stops(Progress):
        def measured(self, step: int, terms: Mapping[str, float]) -> None:
            if step == 2:
                raise KeyboardInterrupt

    little = 2 * (3 * 4 * 19 + 3 * 16 * 2 * KEPT + 5.6 * 2 * KEPT)
    monkeypatch.setattr(memory, "free_memory", lambda _: little)
    straight = views(Squared())
    train(straight, data, how)
    with pytest.raises(KeyboardInterrupt):
        train(views(Squared()), data, how, checkpoint=kept, progress=Stops())
    monkeypatch.setattr(memory, "free_memory", lambda _: 10**12)
    again = views(Counted())
    assert train(again, data, how, checkpoint=kept).resumed_at == 2
    assert max(again.network[0].given) == 10
    torch.testing.assert_close(again.state_dict(), straight.state_dict(), rtol=0, atol=0)


def test_large_steps_are_told(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert StepMemory(10**8, 10**8, 4 * 10**10, 2**31, splits=True).say(100, None) == (
        "a step of 100 samples takes about 10.1 GB of memory; 40.0 GB are free"
    )
    assert StepMemory(10**5, 10**8, 4 * 10**10, 2**31, splits=True).say(100, None) is None
    assert gigabytes(0) == "0.0 GB"


class Maps(Task):
    """Learns from maps that are kept, and counts what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.n_passes = nn.Linear(width, 1), 0

    def features(self, batch: Batch) -> Tensor:
        self.n_passes += 1
        return self.layer(batch["maps"])[:, 0]

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": features.square().mean()}


@pytest.mark.parametrize(("width", "passes"), [(10, 3), (2**20, 5)])
def test_small_trainings_without_pictures_are_not_measured(width: int, passes: int) -> None:
    task = Maps(width)
    train(task, TrainingData(16, {"maps": torch.ones(16, width)}), HOW)
    assert task.n_passes == passes


def test_pictures_that_cannot_be_read_are_not_measured() -> None:
    reader: Any = TrainingPictures(tiny_cnn(), ["none.png"] * 4, None, Progress(), n_views=2)
    assert measure(views(Squared()), TrainingData(4, {"pixels": reader}), 4, 0, CPU) is None


def groups(root: Path, version: int, limits: Mapping[str, tuple[str, int, int]]) -> Path:
    """A tree of groups as the kernel shows it, of their limits, what they use and what of it is cached."""
    top = root if version == 2 else root / "memory"
    most, used = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    for place, (limit, taken, cached) in limits.items():
        folder = top / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"memory.{most}").write_text(f"{limit}\n")
        (folder / f"memory.{used}").write_text(f"{taken}\n")
        name = "inactive_file" if version == 2 else "total_inactive_file"
        (folder / "memory.stat").write_text(f"anon 5\n{name} {cached}\n")
    own = root / "own"
    own.write_text("0::/a/b\n" if version == 2 else "5:cpu:/x\n4:memory:/a/b\n")
    return own


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_left_of_a_group_is_that_of_the_tightest(version: int, tmp_path: Path) -> None:
    own = groups(tmp_path, version, {"a/b": ("1000", 700, 100), "a": ("900", 800, 50), ".": ("5000", 900, 0)})
    assert sorted(memory._of_groups(tmp_path, own)) == [150, 400, 4100]
    no_limit = groups(tmp_path / "n", 2, {"a/b": ("max", 700, 100)})
    assert [*memory._of_groups(tmp_path / "n", no_limit)] == []
    assert [*memory._of_groups(tmp_path / "none", tmp_path / "nothing")] == []


def test_processes_of_one_machine_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_of_machine", lambda: 1000)
    monkeypatch.setattr(memory, "_of_groups", lambda: iter([800]))
    assert free_memory(CPU) == 800
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", "4")
    assert free_memory() == 200
