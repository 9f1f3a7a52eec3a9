"""How long `seewhy adapt` trains, once pictures and texts are looked at: heads behind lite0, and the choice of `keep`.

    python benchmarks/adapt_speed.py [--n 6000] [--epochs 20] [--batch-size 512] [--threads 1]

Features are random numbers, as their values cost nothing: `--n` pictures of 1,280, five sentences of 384 each. What is
timed is what `Adapt.fit` does with them, for the objective `clip` and the sizes of the defaults: the steps, and then
each `keep` that is tried on 1,000 held-out pictures. Looking, reading, and what lite0 fits once and keeps are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from side_by_side import cpu_seconds, keep_memory

import seewhy
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded
from seewhy.learning.adapt import KEEPS, Adapt
from seewhy.learning.pooled import PooledPairs
from seewhy.learning.way import N_CHOSEN_ON
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.training.loop import train

TEXTS = 5


def looked_at(on: Encoder, n: int, seed: int) -> PooledPairs:
    """Random features in the place of pictures and sentences."""
    draw = torch.Generator().manual_seed(seed)
    width = on.text.sentences(["a"]).shape[1]  # type: ignore[attr-defined]
    sentences = torch.nn.functional.normalize(torch.randn(TEXTS * n, width, generator=draw), dim=1)
    pairs = torch.stack([torch.arange(n).repeat_interleave(TEXTS), torch.arange(TEXTS * n)], 1)
    names = tuple(map(str, range(n)))
    items = tuple(Sample(f"{name}.jpg") for name in names)
    pooled = torch.rand(n, 1280, generator=draw)
    encoded = [Encoded(name, name, one[None]) for name, one in zip(names, pooled, strict=True)]
    texts = tuple(map(str, range(TEXTS * n)))
    return PooledPairs(items, encoded, texts=texts, sentences=sentences, pairs=pairs)


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Seconds by the clock, and of the CPU."""
    wall, cpu = time.perf_counter(), sum(cpu_seconds())
    call()
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "CPU seconds": round(sum(cpu_seconds()) - cpu, 2),
    }


def measured(how: Adapt, n: int) -> dict[str, Any]:
    on = seewhy.encoder("lite0")
    own, held = looked_at(on, n, 0), looked_at(on, N_CHOSEN_ON, 1)
    heads, task, data = how.prepared(on, own, Progress())
    training = how.training(data, on)
    steps = timed(lambda: train(task, data, training))
    choice = how._measure(on, heads, own, held, Progress())
    return {
        "steps": training.n_steps,
        "training": steps,
        "choosing keep": timed(lambda: [choice(keep) for keep in (0.0, *KEEPS)]),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--n", type=int, default=6000, help="pictures")
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--batch-size", type=int, default=512)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = options.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    found = measured(Adapt(epochs=args.epochs, batch_size=args.batch_size), args.n)
    if args.json:
        print(json.dumps({"threads": args.threads, **found}, indent=2))
        return
    for name, one in found.items():
        print(f"{name}: {one}")


if __name__ == "__main__":
    main()
