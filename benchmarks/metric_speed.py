"""Insertion and deletion beside a loop like the RISE authors', and ROAD beside pytorch-grad-cam, in one run.

The loop is the authors' procedure: one picture at a time, 224 pixels a step, one forward pass a step of the plain torch
module. Ours does the same passes in batches, once in torch and once in the fastest engine here. The table has wall and
processor seconds a picture and the largest difference of the areas.

    python benchmarks/metric_speed.py
    python benchmarks/metric_speed.py --n 64 --steps 224
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.classifiers.pretrained import Pretrained
from seewhy.encoders.find import encoder as load_encoder
from seewhy.metrics.deletion import Deletion
from seewhy.metrics.fills import blurred
from seewhy.metrics.insertion import Insertion
from seewhy.metrics.road import ROAD


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
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.2, 0.5, 0.8], help="removed by ROAD")
    args = parser.parse_args()
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(args.n, 3, 12, 12, generator=rng)
    pictures = torch.nn.functional.interpolate(coarse, (224, 224), mode="bicubic").contiguous()
    maps = torch.nn.functional.interpolate(torch.rand(args.n, 1, 7, 7, generator=rng), (224, 224), mode="bicubic")[:, 0]
    fast, plain = (Pretrained().build(load_encoder("lite0", engine=e)) for e in ("auto", "torch"))
    module = plain.encoder.module.eval()

    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x).softmax(1)

    targets = model(pictures).argmax(1).tolist()
    for c in (fast, plain):
        c.probabilities(pictures[:1])

    def theirs() -> list[float]:
        jobs = zip(pictures, maps, targets, strict=True)
        return [loop(model, p, m, t, args.steps, mode) for p, m, t in jobs for mode in ("deletion", "insertion")]

    def ours(classifier: Any) -> list[float]:
        both = (Deletion(n_steps=args.steps), Insertion(n_steps=args.steps))
        jobs = zip(pictures, maps, targets, strict=True)
        return [b(classifier.probabilities, p, m[None], t)[0].area for p, m, t in jobs for b in both]

    rows = []
    reference, *base = timed(theirs)
    rows.append(("insertion + deletion", "loop, torch", base, 0.0))
    for c in (plain, fast):
        found, *cost = timed(lambda c=c: ours(c))
        name = f"seewhy, {c.encoder.engine.name} {c.encoder.engine.precision}"
        rows.append(("insertion + deletion", name, cost, float(np.abs(np.subtract(found, reference)).max())))
    rows += road(pictures, maps, targets, module, (plain, fast), args.fractions)
    first: dict[str, list[float]] = {}
    for what, who, cost, gap in rows:
        before = first.setdefault(what, cost)
        record = {
            "what": what,
            "who": who,
            "wall_s": round(cost[0] / args.n, 3),
            "processor_s": round(cost[1] / args.n, 3),
            "times_as_fast": round(before[0] / cost[0], 2),
            "times_less_processor": round(before[1] / cost[1], 2),
            "largest_gap": round(gap, 5),
        }
        print(json.dumps(record), flush=True)


def road(
    pictures: Tensor, maps: Tensor, targets: list[int], module: torch.nn.Module, ours: Any, fractions: list[float]
) -> list[tuple[str, str, list[float], float]]:
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
    rows = [("ROAD", "pytorch-grad-cam", base, 0.0)]
    metric = ROAD(fractions=tuple(fractions))
    for c in ours:
        jobs = list(zip(pictures, maps, targets, strict=True))
        found, *cost = timed(
            lambda c=c, jobs=jobs: [metric(c.probabilities, p, m[None], t)[0].value for p, m, t in jobs]
        )
        gap = float(np.abs(np.subtract(found, reference)).max())
        rows.append(("ROAD", f"seewhy, {c.encoder.engine.name} {c.encoder.engine.precision}", cost, gap))
    return rows


if __name__ == "__main__":
    main()
