"""RISE and occlusion through the engine, beside Captum's Occlusion and a plain torch loop, on the same masks.

Rounds are interleaved, so that whatever else the machine does falls on all alike; the median round counts. The
correlation is of our map with the peer's. The last part says how far fewer masks are from many: the correlation with
the mean of two runs of ``--limit`` masks of other seeds each, random against stratified and centred ones.

    python benchmarks/perturbation_speed.py
    python benchmarks/perturbation_speed.py --pictures FOLDER --rounds 5 --limit 4000 --json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import captum.attr
import torch
from files_to_embeddings import read_pictures
from rich.console import Console
from rich.table import Table
from torch import Tensor

from seewhy.attributions.occlusion import Occlusion
from seewhy.attributions.rise import RISE
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import EncoderOutput
from seewhy.encoders.find import encoder as load_encoder
from seewhy.heads.head import Target

Maps = Callable[[], Tensor]


def eager(model: Classifier) -> Callable[[Tensor], Tensor]:
    """The whole network in plain torch."""
    return lambda pixels: model.head(model.encoder.head(model.encoder.trunk(pixels)))


def captum_occlusion(model: Classifier, look: EncoderOutput, target: Target) -> Tensor:
    """Captum on the torch module, a window of 32 at a stride of 16, 16 windows at a time."""
    assert look.pixels is not None
    with torch.no_grad():
        peer = captum.attr.Occlusion(eager(model))
        return peer.attribute(
            look.pixels, (3, 32, 32), strides=(3, 16, 16), target=target.index, perturbations_per_eval=16
        )[:, 0]


@torch.no_grad()
def plain_rise(model: Classifier, look: EncoderOutput, target: Target, n_masks: int) -> Tensor:
    """The authors' loop: all masks at once, batches of 100 through the torch module."""
    assert look.pixels is not None
    size = (look.pixels.shape[2], look.pixels.shape[3])
    masks = torch.cat(list(RISE(n_masks=n_masks).draw(size, 64)))
    network, found = eager(model), []
    for picture, index in zip(look.pixels, target.index, strict=True):
        shown = (picture * part[:, None] for part in masks.split(100))
        scores = torch.cat([network(part).softmax(1)[:, index] for part in shown])
        found.append(torch.einsum("n,nhw->hw", scores, masks) / n_masks / 0.5)
    return torch.stack(found)


def correlation(ours: Tensor, theirs: Tensor) -> float:
    """Mean over pictures, of maps as vectors."""
    pairs = zip(ours.flatten(1), theirs.flatten(1), strict=True)
    return sum(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs) / len(ours)


def race(runs: dict[str, Maps], rounds: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Median seconds, and the maps."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    maps: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            maps[name] = run()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}, maps


def fewer_masks(model: Classifier, look: EncoderOutput, target: Target, limit: int) -> list[dict[str, Any]]:
    """Correlation with the limit for fewer and fewer masks."""
    many = sum(RISE(n_masks=limit, centred=True, seed=seed)(model, look, target) for seed in (101, 102))
    assert isinstance(many, Tensor)
    rows = []
    for n in (limit // 16, limit // 8, limit // 4, limit // 2):
        random = correlation(RISE(n_masks=n, seed=1)(model, look, target), many)
        quick = correlation(RISE.quick(n, seed=1)(model, look, target), many)
        rows.append({"masks": n, "random (paper)": round(random, 4), "stratified, centred": round(quick, 4)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=Path, help="folder of photographs; left out, smooth noise")
    parser.add_argument("--n", type=int, default=2)
    parser.add_argument("--masks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=0, help="masks of the limit; 0 leaves that part out")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = Pretrained().build(load_encoder("lite0", engine=options.engine))
    look = model.encoder.encode(read_pictures(options.pictures, options.n, model.encoder))
    target = Target(model.head.probabilities(look.pooled).argmax(1))
    runs: dict[str, Maps] = {
        "occlusion": lambda: Occlusion(window=32, stride=16)(model, look, target),
        "captum occlusion": lambda: captum_occlusion(model, look, target),
        "rise": lambda: RISE(n_masks=options.masks)(model, look, target),
        "plain torch rise": lambda: plain_rise(model, look, target, options.masks),
    }
    seconds, maps = race(runs, options.rounds)
    rows = [
        {
            "method": ours,
            "engine": f"{model.encoder.engine.name} {model.encoder.engine.precision}",
            "ours_s": round(seconds[ours], 2),
            "peer": peer,
            "peer_s": round(seconds[peer], 2),
            "faster": round(seconds[peer] / seconds[ours], 2),
            "correlation": round(correlation(maps[ours], maps[peer]), 5),
        }
        for ours, peer in (("occlusion", "captum occlusion"), ("rise", "plain torch rise"))
    ]
    tables = [rows] + ([fewer_masks(model, look, target, options.limit)] if options.limit else [])
    if options.json:
        print(json.dumps(tables))
        return
    for lines in tables:
        table = Table(*lines[0], box=None)
        for line in lines:
            table.add_row(*map(str, line.values()))
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
