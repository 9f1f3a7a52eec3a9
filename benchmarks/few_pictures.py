"""Is *Right* right after few held-out pictures? Its log loss without and with the correction for their number.

    python benchmarks/few_pictures.py --grocery grocery/ --cifake cifake --fashion fashion --cells BCCD \\
        --encoder lite1 --seeds 5 6 7

Each set is a few classes of a collection, fitted as `seewhy fit` does, and judged on the collection's later list.
``--grocery`` is a folder with class folders in `train` and `test`. ``--chosen`` draws the classes on which the
correction was chosen instead.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import mean

import torch
from strangers import Collection, cells, cifake, drawn, fashion, pooled
from torch import Tensor

import seewhy
from seewhy.classifiers.certainty import trust_inputs
from seewhy.encoders.find import encoder as find
from seewhy.pictures.samples import load_samples
from seewhy.storage.features import FeatureStore
from seewhy.trust.base import Signs

SHAPES = ((8, 60), (5, 30), (3, 40), (5, 10), (4, 12), (2, 20), (3, 12), (10, 15))
"""Classes, and pictures of each at most."""
OF_FEW = ((2, 40), (2, 20), (3, 12))
"""The same for a collection of at most three classes."""


def log_loss(probability: Tensor, right: Tensor) -> float:
    p = probability.double().clamp(1e-6, 1 - 1e-6)
    return float(-torch.where(right, p.log(), (1 - p).log()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("grocery", "cifake", "fashion", "cells"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chosen", action="store_true")
    given = parser.parse_args()
    parts = (tuple(load_samples(given.grocery / part).items) for part in ("train", "test"))
    collections = {"grocery": Collection(*parts)}
    collections |= {"cifake": cifake(given.cifake), "fashion": fashion(given.fashion), "cells": cells(given.cells)}
    encoder, store, rows = find(given.encoder), FeatureStore(), []
    for name, collection in collections.items():
        classes = collection.classes[:]
        random.Random(7).shuffle(classes)
        half = classes[: len(classes) // 2] if given.chosen else classes[len(classes) // 2 :]
        pool = half if len(half) > 3 else classes
        for seed in given.seeds:
            for number, (k, n_each) in enumerate(SHAPES if len(pool) > 3 else OF_FEW):
                draw = random.Random(f"{seed} {number} {name} {given.chosen}")
                samples = drawn(collection, k, n_each, draw, pool)
                model = seewhy.fit(samples, encoder, store=store)
                trust = model.measured_trust
                if trust is None:
                    continue
                later = [s for s in collection.later if s.label in samples.classes]
                features, places = pooled(model.encoder, [s.source for s in later], store)
                labels = torch.tensor([model.classes.index(later[i].label) for i in places])
                with torch.no_grad():
                    logits = model.head(features)
                right, inputs = logits.argmax(1) == labels, trust_inputs(model, features, logits)
                signs = Signs.of(trust.gaussian, inputs, trust.temperature, trust.sharpness).signs
                fitted, judged = trust.right.margin(signs).sigmoid(), trust.judge(inputs).probability
                held_out = float(trust.held.right.float().mean())
                figures = [float(fitted.mean()), float(judged.mean()), float(right.float().mean())]
                rows.append((held_out, log_loss(fitted, right), log_loss(judged, right), *figures))
                print(f"{name} {k}×{n_each} {seed}", *(f"{value:.3f}" for value in rows[-1]), flush=True)
    print("held-out accuracy: sets; log loss without, with the correction; mean Right without, with; accuracy")
    for least, most, told in (
        (1.0, 2.0, "all right"),
        (0.9, 1.0, "90 % or more"),
        (0.0, 0.9, "less"),
        (0.0, 2.0, "all"),
    ):
        some = [row for row in rows if least <= row[0] < most]
        print(f"{told}: {len(some)};", *(f"{mean(values):.3f}" for values in list(zip(*some, strict=True))[1:]))


if __name__ == "__main__":
    main()
