"""A training step beside a bare torch loop's, on the same network, batches and optimiser, in one process.

    python benchmarks/training_step.py [--steps 200] [--rounds 7] [--batch-size 32] [--json]

SeeWhy's is the public call, ``seewhy.training.loop.train`` with a task, as it is, history and random seeds included.
The bare loop draws an order, takes rows, computes cross entropy and how often it is right, and steps; it keeps both
numbers of each step, as ours does. ``pixels`` is a small ResNet on 32-pixel pictures in memory; ``features`` is one
linear layer on 1,280 numbers, the least work that a step here ever is, and shows what the loop itself costs. The
weights both end at are compared as well.
"""

from __future__ import annotations

import argparse
import copy
import json
from typing import Any

import torch
from side_by_side import in_turn, keep_memory, ratios
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from seewhy.learning.adaptation.backbone import GlobalAverage, SmallResNet
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised

N, CLASSES = 512, 10


def bare(network: nn.Module, x: Tensor, y: Tensor, how: Training) -> list[tuple[float, float]]:
    """As it is written by hand, with the order, rates and decays that ours has."""
    flat = [p for p in network.parameters() if p.ndim < 2]
    deep = [p for p in network.parameters() if p.ndim >= 2]
    groups = [{"params": deep, "weight_decay": how.weight_decay}, {"params": flat, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=how.lr)
    per_epoch, losses = len(x) // how.batch_size, []
    network.train()
    for step in range(how.n_steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        rows = order[place * how.batch_size : (place + 1) * how.batch_size]
        scores, wanted = network(x[rows]), y[rows]
        loss = cross_entropy(scores, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append((loss.item(), (scores.argmax(1) == wanted).float().mean().item()))
    return losses


def compared(start: nn.Module, x: Tensor, how: Training, rounds: int) -> dict[str, Any]:
    """Seconds of both, in turn, and how far their weights are apart."""
    y = torch.arange(N) % CLASSES
    data, ends = TrainingData(N, {"pixels": x, "labels": y}), {}

    def ours() -> None:
        ends["ours"] = copy.deepcopy(start)
        train(Supervised(ends["ours"]), data, how)

    def theirs() -> None:
        ends["bare"] = copy.deepcopy(start)
        bare(ends["bare"], x, y, how)

    times = in_turn({"ours": ours, "bare": theirs}, rounds)
    apart = max(
        (a - b).detach().abs().max().item() for a, b in zip(*(e.parameters() for e in ends.values()), strict=True)
    )
    return {
        "milliseconds a step": {name: round(1000 * one.median / how.n_steps, 3) for name, one in times.items()},
        "ours over bare": times["ours"].over(times["bare"]),
        "weights apart": apart,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=200, help="of each training")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = options.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    small = nn.Sequential(SmallResNet(), GlobalAverage(), nn.Linear(64, CLASSES))
    found = {}
    for name, start, x, n_steps in (
        ("pixels", small, torch.randn(N, 3, 32, 32), args.steps),
        ("features", nn.Linear(1280, CLASSES), torch.randn(N, 1280), 10 * args.steps),
    ):
        how = Training(n_steps, args.batch_size, lr=1e-3, schedule="constant")
        found[name] = compared(start, x, how, args.rounds)
    if args.json:
        print(json.dumps({"threads": args.threads, **found}, indent=2))
        return
    for name, one in found.items():
        print(
            f"{name}: {one['milliseconds a step']} ms a step; ours over bare {ratios(one['ours over bare'])}; ", end=""
        )
        print(f"weights apart by {one['weights apart']:.1g}")


if __name__ == "__main__":
    main()
