"""Memory of a contrastive step: a batch of 4,096 in micro-batches beside a batch of 256, each in a process of its own.

    python benchmarks/contrastive_memory.py [--batch 4096] [--micro-batch 256] [--json]

A small ResNet on 32-pixel pictures and a linear layer on the texts' vectors are trained by ``clip`` for two steps, by
the public call. ``peak`` is the most memory in MB that the process held; what it held before the first step, the
libraries and the pictures of 4,096 samples in all cases, is ``before``. ``whole`` computes the large batch in one
piece.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from typing import Any

import torch
from torch import nn

from seewhy.learning.adaptation.backbone import GlobalAverage, SmallResNet
from seewhy.learning.contrast import Contrast
from seewhy.learning.objectives.pairs import CLIP
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train


def held() -> float:
    """Most megabytes so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(batch: int, micro: int | None, n: int) -> dict[str, Any]:
    """In a new process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(SmallResNet(), GlobalAverage(), nn.Linear(64, 64))
    task = Contrast(network, nn.Linear(32, 64), CLIP(), hold=True)
    data = TrainingData(n, {"pixels": torch.randn(n, 3, 32, 32), "text": torch.randn(n, 32)})
    before = held()
    done = train(task, data, Training(2, batch, micro_batch=micro))
    return {"before": round(before), "peak": round(held()), "seconds per step": round(done.seconds_per_step, 2)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=4096)
    options.add_argument("--micro-batch", type=int, default=256)
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = options.parse_args()
    asked = {"small": (args.micro_batch, None), "parts": (args.batch, args.micro_batch), "whole": (args.batch, None)}
    found: dict[str, Any] = {}
    for name, (batch, micro) in asked.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(measure, (batch, micro, args.batch))
    for name in ("parts", "whole"):
        found[f"{name} over small"] = round(found[name]["peak"] / found["small"]["peak"], 2)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, one in found.items():
        print(f"{name}: {one}")


if __name__ == "__main__":
    main()
