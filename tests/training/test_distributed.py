"""Two processes train what one would: losses, weights, what is drawn; killed, they end at the same bits."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from killing import CONTEXT
from seewhy.errors import DataError, InputError
from seewhy.learning.contrast import Contrast, Drawn, RegionalContrast
from seewhy.learning.objectives.pairs import CLIP, SigLIP
from seewhy.learning.objectives.regional import GLoRIA
from seewhy.learning.objectives.vectors import LOOK, SupCon
from seewhy.learning.pretrain import Views
from seewhy.seeded import seeded
from seewhy.training.batches import Batch, Processes, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised

N = 22
DRAW = torch.Generator().manual_seed(5)
IMAGE, TEXT = torch.randn(N, 6, generator=DRAW), torch.randn(3 * N, 4, generator=DRAW)
TEXTS = Drawn([[3 * i, 3 * i + 1, 3 * i + 2][: 1 + i % 3] for i in range(N)], lambda rows: TEXT[rows])
VIEWS = Drawn([[i, (i + 3) % N] for i in range(N)], lambda rows: (IMAGE[rows], 1.1 * IMAGE[rows].roll(1, 1)))
DATA = TrainingData(N, {"image": IMAGE, "text": TEXTS, "labels": torch.arange(N) % 3, "pixels": IMAGE, "views": VIEWS})
HOW = Training(4, 11, "sgd", lr=0.1, schedule="constant", weight_decay=0.0)
"""Eleven samples: six for one process and five for the other."""


HALF = Training(3, 11, checkpoint_every=2)


def contrast(objective: Any = None, drop: float = 0.0, seed: int = 0) -> Contrast:
    with seeded(seed):
        image = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(drop), nn.Linear(8, 5))
        return Contrast(image, nn.Linear(4, 5), objective or CLIP(), column="image")


def classes(seed: int = 0) -> Supervised:
    with seeded(seed):
        return Supervised(nn.Linear(6, 3))


class Cells(nn.Module):
    """Two cells of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        regions = self.layer(image.view(-1, 2, 3))
        return regions.mean(1), regions


class Words(nn.Module):
    """One word, or now and then two, as long as the longest."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 5)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        said = torch.stack([text[:, 0] < 9, text[:, 0] > 1], 1)
        longest = int(said.any(0).sum())
        words = self.layer(text.view(-1, 2, 2))[:, :longest]
        return words[:, 0], words, said[:, :longest]


def regional(objective: Any, seed: int) -> RegionalContrast:
    with seeded(seed):
        return RegionalContrast(Cells(), Words(), objective, column="image")


def of_views(objective: Any, seed: int) -> Views:
    with seeded(seed):
        head = nn.Sequential(nn.ReLU(), nn.Linear(8, 5))
        return Views(nn.Linear(6, 8), head, objective, width=5, n_classes=3, n_pictures=N, n_steps=4)


CASES: dict[str, Callable[[int], tuple[Any, Training]]] = {
    "clip": lambda seed: (contrast(CLIP(), seed=seed), HOW),
    "siglip": lambda seed: (contrast(SigLIP(), seed=seed), HOW),
    "parts": lambda seed: (contrast(CLIP(), seed=seed), Training(**asdict(HOW) | {"micro_batch": 2})),
    "clipped": lambda seed: (contrast(CLIP(), seed=seed), Training(**asdict(HOW) | {"clip": 0.05, "ema": 0.5})),
    "words": lambda seed: (regional(GLoRIA(), seed), replace(HOW, lr=0.01)),
    "classes": lambda seed: (classes(seed), HOW),
    "supcon": lambda seed: (of_views(SupCon(), seed), HOW),
    "supcon's queue": lambda seed: (of_views(SupCon(n_store=16, momentum=0.5), seed), HOW),
    "look": lambda seed: (of_views(LOOK(k=3, n_views=2, momentum=0.5), seed), HOW),
    "look in parts": lambda seed: (of_views(LOOK(k=3, cold="warm_up"), seed), replace(HOW, micro_batch=2)),
}


def trained(case: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights, and the losses of all steps."""
    task, how = CASES[case](seed)
    done = train(task, DATA, how)
    return {**task.state_dict(), "told": torch.tensor([[*row.values()] for row in done.history])}


def join(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def every_case(rank: int, port: int, folder: str) -> None:
    """The second process has other weights at first, which must not matter."""
    join(rank, port)
    for case in CASES:
        save_file(trained(case, seed=rank), f"{folder}/{case}.{rank}")
    try:
        train(classes(), DATA, Training(1, 1))
    except InputError as error:
        Path(folder, f"said.{rank}").write_text(str(error))
    try:
        train(Supervised(nn.BatchNorm1d(6)), DATA, HOW)
    except InputError as error:
        Path(folder, f"norm.{rank}").write_text(str(error))

    kept = (Path(folder, f"own.{rank}"), "each looks for its own")
    train(classes(), DATA, HALF, checkpoint=kept)
    try:
        train(classes(), DATA, HALF, checkpoint=kept)
    except DataError as error:
        Path(folder, f"apart.{rank}").write_text(str(error))


def start(world: int, target: Any, *args: Any) -> list[Any]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    both = [CONTEXT.Process(target=target, args=(rank, port, *args)) for rank in range(world)]
    for process in both:
        process.start()
    return both


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    both = start(2, every_case, str(tmp_path))
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    for case in CASES:
        alone, *found = trained(case), *(load_file(tmp_path / f"{case}.{rank}") for rank in range(2))
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0, msg=f"{case}: the processes are apart")
        for name, value in alone.items():
            torch.testing.assert_close(found[0][name], value, rtol=1e-6, atol=1e-6, msg=lambda m: f"{case} {name}: {m}")  # noqa: B023
    assert (tmp_path / "said.1").read_text() == (
        "`batch_size` must be at least the number of processes (2), got 1. Start fewer processes or raise batch_size."
    )
    assert (tmp_path / "own.0").exists()
    assert not (tmp_path / "own.1").exists(), "the first alone writes"
    assert (tmp_path / "apart.0").read_text() == (tmp_path / "apart.1").read_text()
    assert (tmp_path / "apart.1").read_text() == (
        "All processes must resume at the same step, got the steps 3, 0. Put the checkpoint "
        "where every machine can read it."
    )
    assert "but 2 processes compute a part of each batch. Put" in (tmp_path / "norm.0").read_text()


def test_shares_are_all_there_is() -> None:
    for n, world in ((8, 3), (3, 3), (7, 2)):
        cuts = [Processes(rank, world).share(n) for rank in range(world)]
        assert [i for a, b in cuts for i in range(a, b)] == list(range(n))
        assert {b - a for a, b in cuts} <= {n // world, n // world + 1}


class Watched(Contrast):
    """Leaves a byte for every step, so that it can be killed at any of them."""

    steps: Path

    def after_step(self) -> None:
        super().after_step()
        with open(self.steps, "ab") as file:
            file.write(b".")
        time.sleep(0.003)


LONG = Training(40, 11, lr=0.02, checkpoint_every=4, ema=0.9, clip=1.0, micro_batch=3)


def long_run(rank: int, port: int, folder: str, world: int) -> None:
    if world > 1:
        join(rank, port)
    torch.set_num_threads(1)
    task = contrast(drop=0.2)
    task.__class__, task.steps = Watched, Path(folder, f"steps.{rank}")  # type: ignore[assignment]
    done = train(task, DATA, LONG, checkpoint=(Path(folder, "checkpoint"), "long"))
    assert len(done.history) == 40
    save_file(dict(task.state_dict()), f"{folder}/end.{rank}")


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_killed_at_any_step_it_ends_at_the_same_bits(world: int, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    draw = random.Random(1)
    for mark in [*sorted(draw.randint(1, 6) for _ in range(5)), None]:
        for folder in (killed,) if mark is not None else (killed, whole):
            done = killed / "steps.0"
            before = done.stat().st_size if done.exists() else 0
            both = start(world, long_run, str(folder), world)
            if mark is not None:
                end = time.monotonic() + 60
                while (not done.exists() or done.stat().st_size < before + mark) and time.monotonic() < end:
                    time.sleep(0.001)
                assert both[0].is_alive(), "It ended before that moment."
                for process in draw.sample(both, len(both)):
                    process.kill()
            for process in both:
                process.join(60)
                assert process.exitcode == (0 if mark is None else -9)
    for rank in range(world):
        ends = [load_file(folder / f"end.{rank}") for folder in (killed, whole)]
        torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_a_text_is_drawn_by_seed_step_and_place() -> None:
    said = Drawn([list("abcdefgh")] * 12, list)
    data = TrainingData(12, {"text": said})
    steps = [data.batch(step, 12, seed=0)["text"] for step in range(3)]
    assert steps[0] != steps[1] != steps[2]
    assert len(set(steps[0])) > 3
    assert data.batch(0, 12, seed=0)["text"] == steps[0]
    assert data.batch(0, 12, seed=1)["text"] != steps[0]
    halves = [data.batch(0, 12, 0, None, Processes(rank, 2)) for rank in range(2)]
    assert [*halves[0]["text"], *halves[1]["text"]] == steps[0]
    assert isinstance(halves[0], Batch)
