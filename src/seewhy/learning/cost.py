"""What a training will cost on this machine, measured on a part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from .outputs import Cost
from .pooled import PooledSet, encode_pictures
from .way import Way

N_LOOKED_AT = 32
N_STEPS = 3


def _cost(n: int, n_texts: int, whole: Training, learns: Any, each: float, step: Callable[[], float]) -> Cost:
    """Weights are counted before the steps, which freeze them."""
    weights = sum(p.numel() for p in learns.parameters() if p.requires_grad)
    looking, a_step = each * n, step()
    seconds = round(looking, 1), round(a_step, 3), round(looking + a_step * whole.n_steps, 1)
    return Cost(True, n, n_texts, whole.n_steps, weights, *seconds)


def _timed(look: Callable[[int], PooledSet]) -> tuple[PooledSet, float]:
    """Some pictures, and the seconds of each; the engine starts before, and is not counted."""
    look(1)
    start = time.perf_counter()
    encoded = look(N_LOOKED_AT)
    return encoded, (time.perf_counter() - start) / len(encoded)


def count(
    on: Encoder,
    items: Sequence[Sample],
    n_texts: int,
    begun: Callable[[Float[Tensor, "n p"]], tuple[Task, TrainingData]],
    whole: Training,
) -> Cost:
    """Look at some pictures, train a few steps of what learns from pooled ones, and count."""
    some = items[:: max(1, len(items) // N_LOOKED_AT)][:N_LOOKED_AT]
    encoded, each = _timed(lambda n: encode_pictures(on, some[:n], None, Progress()))
    task, data = begun(encoded.pooled)
    few = replace(whole, n_steps=N_STEPS, warmup=0, batch_size=min(whole.batch_size, len(encoded)))
    return _cost(len(items), n_texts, whole, task, each, lambda: train(task, data, few).seconds_per_step)


def estimate(how: Way[Any, Any], on: Encoder, read: Any, *, validation: bool = False) -> Cost:
    """Look at some pictures, train a few steps on copies, and count."""
    encoded, each = _timed(lambda n: how.look(on, how.some(read, n), None, Progress()))
    part, task, data = how.prepared(on, encoded, Progress())
    n, n_texts = len(read), how.n_texts(read)
    whole = how.training(_grown(data, (n if validation else round((1 - how.held_out) * n)) / len(encoded)), on)
    few = replace(how.training(data, on), n_steps=N_STEPS, warmup=0)
    times = whole.batch_size / min(few.batch_size, data.n_samples)
    return _cost(n, n_texts, whole, part, each, lambda: times * train(task, data, few).seconds_per_step)


def _grown(data: TrainingData, times: float) -> TrainingData:
    """As many more samples, of each kind that batches keep apart; without columns."""
    if data.apart is None:
        return TrainingData(max(2, round(times * data.n_samples)), {})
    counts = [max(2, round(times * n)) for n in data.apart.unique(return_counts=True)[1].tolist()]
    apart = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return TrainingData(len(apart), {}, apart)
