"""Insertion and deletion beside a loop like the RISE authors', and ROAD beside pytorch-grad-cam, in one run.

The loop is the authors' procedure: one picture at a time, 224 pixels a step, one forward pass a step of the plain torch
module. Ours does the same passes in batches, once in torch and once in the fastest engine here. "Forward passes alone"
are the same passes of the torch module and nothing else: no program that looks at every step in torch can be faster, so
the ratio of the loop to them is the most that can be won there. The rows with a tolerance look only where the curve
bends, and say how many passes that took. The table has wall and processor seconds a picture and the largest and mean
difference of the areas.

    python benchmarks/metric_speed.py
    python benchmarks/metric_speed.py --n 64 --steps 224 --pictures photos/
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files_to_embeddings import read_pictures
from torch import Tensor

from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.find import encoder as load_encoder
from seewhy.heads.head import Target
from seewhy.metrics.base import upsampled
from seewhy.metrics.removal import ROAD, Deletion, Insertion, blurred


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds, processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - wall, time.process_time() - processor


def loop(model: Callable[[Tensor], Tensor], pixels: Tensor, heat: Tensor, target: int, steps: int, mode: str) -> float:
    """One picture, one forward pass a step."""
    first, last = (pixels, torch.zeros_like(pixels)) if mode == "deletion" else (blurred(pixels), pixels)
    order = np.argsort(-heat.flatten().numpy(), kind="stable")
    current, end = first.flatten(1).clone().numpy(), last.flatten(1).numpy()
    values = []
    cuts = np.linspace(0, len(order), steps + 1).round().astype(int)
    for i in range(steps + 1):
        if i:
            part = order[cuts[i - 1] : cuts[i]]
            current[:, part] = end[:, part]
        values.append(float(model(torch.from_numpy(current).reshape(1, *pixels.shape))[0, target]))
    return float(np.trapezoid(values, dx=1 / steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2, help="pictures")
    parser.add_argument("--steps", type=int, default=224)
    parser.add_argument("--tolerance", type=float, default=0.01, help="of the rows that look where the curve bends")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs; smooth noise where none is given")
    parser.add_argument("--threads", type=int, help="of torch, for both; 1 where other programs are running")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.2, 0.5, 0.8], help="removed by ROAD")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    fast, plain = (Pretrained().build(load_encoder("lite0", engine=e)) for e in ("auto", "torch"))
    pictures = read_pictures(args.pictures, args.n, plain.encoder).contiguous()
    module = plain.encoder.module.eval()

    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x).softmax(1)

    look = fast.encoder.encode(pictures)
    classes = fast.head.probabilities(look.pooled).argmax(1)
    maps = upsampled(GradCAM()(fast, look, Target(classes)), (224, 224))
    targets = classes.tolist()
    for c in (fast, plain):
        c.probabilities(pictures[:1])
    n_seen = [0]

    def theirs() -> list[float]:
        jobs = zip(pictures, maps, targets, strict=True)
        return [loop(model, p, m, t, args.steps, mode) for p, m, t in jobs for mode in ("deletion", "insertion")]

    def ours(classifier: Any, tolerance: float = 0.0) -> list[float]:
        n_seen[0] = 0

        def probabilities(x: Tensor) -> Tensor:
            n_seen[0] += len(x)
            return classifier.probabilities(x)

        both = (m(n_steps=args.steps, tolerance=tolerance) for m in (Deletion, Insertion))
        judges = list(both)
        jobs = zip(pictures, maps, targets, strict=True)
        return [j(probabilities, p, m[None], t)[0].value for p, m, t in jobs for j in judges]

    def passes_alone() -> list[float]:
        with torch.no_grad():
            for picture in pictures:
                batch = picture.expand(4, -1, -1, -1).contiguous(memory_format=torch.channels_last)
                for _ in range(2 * (args.steps + 1) // 4):
                    module(batch)
        return []

    what = "insertion + deletion"
    first: dict[str, list[float]] = {}

    def row(
        what: str, who: str, cost: list[float], gaps: np.ndarray | None = None, passes: float | None = None
    ) -> None:
        """Print a line; the first of its kind is what the others are compared with."""
        before = first.setdefault(what, cost)
        record = {
            "what": what,
            "who": who,
            "wall_s": round(cost[0] / args.n, 3),
            "processor_s": round(cost[1] / args.n, 3),
            "times_as_fast": round(before[0] / cost[0], 2),
            "times_less_processor": round(before[1] / cost[1], 2),
        }
        if passes is not None:
            record["passes"] = round(passes)
        if gaps is not None:
            record |= {"largest_gap": round(float(gaps.max()), 5), "mean_gap": round(float(gaps.mean()), 5)}
        print(json.dumps(record), flush=True)

    reference, *base = timed(theirs)
    row(what, "loop, torch", base, passes=2 * (args.steps + 1))
    row(what, "forward passes alone, torch", timed(passes_alone)[1:], passes=2 * (args.steps + 1))
    for c, tolerance in itertools.product((plain, fast), (0.0, args.tolerance)):
        found, *cost = timed(lambda c=c, tolerance=tolerance: ours(c, tolerance))
        name = f"seewhy, {c.encoder.engine.name} {c.encoder.engine.precision}"
        name += f", tolerance {tolerance:g}" if tolerance else ""
        row(what, name, cost, np.abs(np.subtract(found, reference)), n_seen[0] / args.n)
    for who, cost, gaps in road(pictures, maps, targets, module, (plain, fast), args.fractions):
        row("ROAD", who, cost, gaps)


def road(
    pictures: Tensor, maps: Tensor, targets: list[int], module: torch.nn.Module, ours: Any, fractions: list[float]
) -> Iterator[tuple[str, list[float], np.ndarray | None]]:
    """ROAD combined on the same pictures, maps and percentiles; their noise and ours differ."""
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    percentiles = [round(100 * f) for f in fractions]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = ((maps - low) / (high - low)).numpy()
    goals = [ClassifierOutputSoftmaxTarget(t) for t in targets]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference, *base = timed(lambda: ROADCombined(percentiles=percentiles)(pictures, scaled, goals, module))
    yield "pytorch-grad-cam", base, None
    metric = ROAD(fractions=tuple(fractions))
    for c in ours:
        jobs = list(zip(pictures, maps, targets, strict=True))
        found, *cost = timed(
            lambda c=c, jobs=jobs: [metric(c.probabilities, p, m[None], t)[0].value for p, m, t in jobs]
        )
        gaps = np.abs(np.subtract(found, reference))
        yield f"seewhy, {c.encoder.engine.name} {c.encoder.engine.precision}", cost, gaps


if __name__ == "__main__":
    main()
