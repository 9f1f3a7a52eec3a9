"""LOOK's and SupCon's loss and gradient over a store of many pictures, beside plain ones over the full matrix.

    python benchmarks/store_losses.py [--store 65536] [--batch 256] [--width 128] [--k 20] [--json]

The plain ones are written as a careful user writes them: all products at once, pictures of the same number masked, the
k highest, votes by one-hot classes (LOOK); a log softmax, and the mean over the class (SupCon). Clock and CPU seconds
(user and system) are the least of several rounds that take turns; ``peak`` is the most memory in MB above what the
process held before, each in a process of its own (Linux); ``differ`` the largest difference of losses and gradients.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from seewhy.learning.objectives.look import votes
from seewhy.learning.objectives.queue import own_places
from seewhy.learning.objectives.vectors import against_store

TEMPERATURE = 0.1
EPS = 1e-4
N_CLASSES = 100


def world(n: int, b: int, d: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(N_CLASSES, d, generator=draw)
    classes, labels = (torch.randint(0, N_CLASSES, (m,), generator=draw) for m in (n, b))
    noise = [torch.randn(m, d, generator=draw) for m in (n, b)]
    store, query = (normalize(centres[y] + 2 * e, dim=1) for y, e in zip((classes, labels), noise, strict=True))
    return query, labels, torch.arange(b), store, classes, torch.arange(n)


def plain_look(q: Tensor, y: Tensor, i: Tensor, store: Tensor, classes: Tensor, of: Tensor, k: int) -> Tensor:
    cosine = (q @ store.T).masked_fill(i[:, None] == of, float("-inf"))
    near, where = cosine.topk(k, 1, sorted=False)
    share = (near / TEMPERATURE).softmax(1)
    chance = torch.einsum("bk,bkc->bc", share, one_hot(classes[where], N_CLASSES).to(share))
    return -(chance[torch.arange(len(q)), y] + EPS).log().mean()


def our_look(q: Tensor, y: Tensor, i: Tensor, store: Tensor, classes: Tensor, of: Tensor, k: int) -> Tensor:
    return -(votes(q, y, store, classes, k, TEMPERATURE, own_places(i, of))[0] + EPS).log().mean()


def plain_supcon(q: Tensor, y: Tensor, i: Tensor, store: Tensor, classes: Tensor, of: Tensor, k: int) -> Tensor:
    chance = (q @ store.T / TEMPERATURE).log_softmax(1)
    right = (y[:, None] == classes).float()
    return -((chance * right).sum(1) / right.sum(1).clamp(min=1)).mean()


def our_supcon(q: Tensor, y: Tensor, i: Tensor, store: Tensor, classes: Tensor, of: Tensor, k: int) -> Tensor:
    return against_store(q, y, store, classes, TEMPERATURE)


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "look": (plain_look, our_look),
    "supcon": (plain_supcon, our_supcon),
}


def both(loss: Callable[..., Tensor], given: tuple[Tensor, ...], k: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    query = given[0].clone().requires_grad_()
    value = loss(query, *given[1:], k)
    return value.detach(), torch.autograd.grad(value, query)[0]


def timed(name: str, n: int, b: int, d: int, k: int, rounds: int = 9) -> dict[str, Any]:
    torch.set_num_threads(1)
    given, found = world(n, b, d), {}
    least = {which: [float("inf"), float("inf")] for which in ("plain", "ours")}
    for _ in range(rounds):
        for which, loss in zip(least, LOSSES[name], strict=True):
            cpu, clock = time.process_time(), time.perf_counter()
            found[which] = both(loss, given, k)
            spent = (time.perf_counter() - clock, time.process_time() - cpu)
            least[which] = [min(pair) for pair in zip(least[which], spent, strict=True)]
    differ = max(float((a - c).abs().max()) for a, c in zip(*found.values(), strict=True))
    told: dict[str, Any] = {which: {"clock": round(s[0], 4), "cpu": round(s[1], 4)} for which, s in least.items()}
    ratio = [round(a / c, 2) for a, c in zip(least["plain"], least["ours"], strict=True)]
    return {**told, "times faster": {"clock": ratio[0], "cpu": ratio[1]}, "differ": differ}


def peak(name: str, ours: bool, n: int, b: int, d: int, k: int) -> float:
    """MB above what was held before, in a new process."""
    torch.set_num_threads(1)
    both(LOSSES[name][ours], world(512, 8, d), 4)
    given = world(n, b, d)
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
    before = held("VmRSS")
    both(LOSSES[name][ours], given, k)
    return round(held("VmHWM") - before, 1)


def held(which: str) -> float:
    """MB now, or at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--store", type=int, default=65536)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--width", type=int, default=128)
    options.add_argument("--k", type=int, default=20)
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = options.parse_args()
    found: dict[str, Any] = {}
    for name in LOSSES:
        found[name] = timed(name, args.store, args.batch, args.width, args.k)
        for n in (args.store // 4, args.store):
            for which in ("plain", "ours"):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    mb = pool.apply(peak, (name, which == "ours", n, args.batch, args.width, args.k))
                found[name].setdefault("peak", {})[f"{which}, {n}"] = mb
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, one in found.items():
        print(f"{name}: {one}")


if __name__ == "__main__":
    main()
