"""What a training will cost on this machine, measured on a part of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..encoders.base import Encoder
from ..pictures.samples import Sample
from ..progress import Progress
from .adapt import Adapt
from .loop import train
from .seen_pairs import look_at_pairs

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


def estimate(how: Adapt, on: Encoder, items: Sequence[Sample]) -> Cost:
    """Look at some pictures, train a few steps on copies, and count.

    Raises:
        DataError: none of the pictures can be read.
    """
    some = items[:: max(1, len(items) // N_LOOKED_AT)][:N_LOOKED_AT]
    look_at_pairs(on, some[:1], None, Progress())  # the engine starts, and is not counted
    begun = time.perf_counter()
    seen = look_at_pairs(on, some, None, Progress())
    texts = {text for item in items for text in item.texts}
    looking = (time.perf_counter() - begun) / len(seen) * len(items)
    part, task, data = how.prepared(on, seen, Progress())
    n_trained = len(items) if how.keep is not None else round((1 - how.held_out) * len(items))
    whole = how.training(max(2, n_trained), on)
    few = replace(how.training(len(seen), on), n_steps=N_STEPS, warmup=0)
    done = train(task, data, few)
    step = done.seconds_per_step * whole.batch_size / few.batch_size
    weights = sum(p.numel() for p in part.parameters())
    total = looking + step * whole.n_steps
    return Cost(len(items), len(texts), whole.n_steps, weights, round(looking, 1), round(step, 3), round(total, 1))
