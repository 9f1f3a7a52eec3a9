"""What a training will cost on this machine, measured on a part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder
from ..pictures.samples import Sample
from ..progress import Progress
from ..training.batches import TrainingData
from ..training.loop import Training, train
from ..training.task import Task
from .seen_pairs import look_at_pictures
from .way import Way

N_LOOKED_AT = 32
N_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """Of a training.

    Attributes:
        n_pictures: with texts.
        n_texts: each once.
        n_steps: batches.
        n_weights: that are trained.
        seconds_looking: until every picture is seen and every text read, if none is known yet.
        seconds_per_step: of the whole batch.
        seconds: in all, without choosing how much is kept.
    """

    n_pictures: int
    n_texts: int
    n_steps: int
    n_weights: int
    seconds_looking: float
    seconds_per_step: float
    seconds: float


def count(
    on: Encoder,
    items: Sequence[Sample],
    n_texts: int,
    begun: Callable[[Float[Tensor, "n p"]], tuple[Task, TrainingData]],
    whole: Training,
) -> Cost:
    """Look at some pictures, train a few steps of what learns from pooled ones, and count.

    Args:
        on: the encoder.
        items: pictures.
        n_texts: that are read.
        begun: pooled pictures → what learns, and from what.
        whole: the training that is asked about.

    Raises:
        DataError: none of the pictures can be read.
    """
    some = items[:: max(1, len(items) // N_LOOKED_AT)][:N_LOOKED_AT]
    look_at_pictures(on, some[:1], None, Progress())  # the engine starts, and is not counted
    start = time.perf_counter()
    pooled = look_at_pictures(on, some, None, Progress())[2]
    looking = (time.perf_counter() - start) / len(pooled) * len(items)
    task, data = begun(pooled)
    weights = sum(p.numel() for p in task.parameters() if p.requires_grad)
    few = replace(whole, n_steps=N_STEPS, warmup=0, batch_size=min(whole.batch_size, len(pooled)))
    step = train(task, data, few).seconds_per_step
    total = looking + step * whole.n_steps
    return Cost(len(items), n_texts, whole.n_steps, weights, round(looking, 1), round(step, 3), round(total, 1))


def estimate(how: Way, on: Encoder, read: Any, *, validation: bool = False) -> Cost:
    """Look at some pictures, train a few steps on copies, and count."""
    some = how.some(read, N_LOOKED_AT)
    how.look(on, how.some(read, 1), None, Progress())  # the engine starts, and is not counted
    begun = time.perf_counter()
    seen = how.look(on, some, None, Progress())
    looking = (time.perf_counter() - begun) / len(seen) * len(read)
    part, task, data = how.prepared(on, seen, Progress())
    weights = sum(p.numel() for p in part.parameters() if p.requires_grad)
    n_trained = len(read) if validation else round((1 - how.held_out) * len(read))
    whole = how.training(_grown(data, n_trained / len(seen)), on)
    few = replace(how.training(data, on), n_steps=N_STEPS, warmup=0)
    done = train(task, data, few)
    step = done.seconds_per_step * whole.batch_size / min(few.batch_size, data.n_samples)
    total = looking + step * whole.n_steps
    seconds = (round(looking, 1), round(step, 3), round(total, 1))
    return Cost(len(read), how.n_texts(read), whole.n_steps, weights, *seconds)


def _grown(data: TrainingData, times: float) -> TrainingData:
    """As many more samples, of each kind that batches keep apart; without columns."""
    if data.apart is None:
        return TrainingData(max(2, round(times * data.n_samples)), {})
    counts = [max(2, round(times * n)) for n in data.apart.unique(return_counts=True)[1].tolist()]
    apart = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return TrainingData(len(apart), {}, apart)
