"""Does `fit` choose a good C with 2, 3 and 5 pictures of each class? Beside scikit-learn's own choice and a fixed C.

    python benchmarks/choosing_c.py --grocery grocery/ --cifake cifake --fashion fashion --cells BCCD \\
        --rows choosing_c.jsonl

Each draw takes a few pictures of each class, and is tested on up to 400 pictures of the collection's later list. The
loss is the accuracy that the best of ten values of C has on these, minus that of the C chosen, in points.
scikit-learn's LogisticRegressionCV has the same features, and as many folds as the class has pictures, 5 at most; with
crops, all crops of a picture are in one fold. A run that was stopped goes on from its rows.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from strangers import FEWEST, Collection, cells, cifake, fashion, pooled

from seewhy.classifiers.encoded_set import EncodedSet, HoldOut, encode_samples, hold_out
from seewhy.classifiers.linear.jitter import crops_by_name
from seewhy.classifiers.linear.recipe import GRID, UNCHOSEN, Linear
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore

EACH = (2, 3, 5)
MOST_CLASSES, MOST_EACH, MOST_LATER = 20, 25, 400
CHOICES = ("fit", "scikit-learn", "C = 100")


@dataclass(frozen=True)
class Pool:
    """Encoded pictures to draw from, and features and classes of the later list."""

    pictures: EncodedSet
    later: torch.Tensor
    truth: torch.Tensor


def encoded(collection: Collection, encoder: Encoder, store: FeatureStore, n_crops: int) -> Pool:
    draw = random.Random(23)
    classes = sorted(draw.sample(collection.classes, min(MOST_CLASSES, len(collection.classes))))
    items: list[Sample] = []
    for label in classes:
        mine = [s for s in collection.train if s.label == label]
        items += draw.sample(mine, min(MOST_EACH, len(mine)))
    later = [s for s in collection.later if s.label in classes]
    later = draw.sample(later, min(MOST_LATER, len(later)))
    pictures = encode_samples(
        encoder, Samples(tuple(items), tuple(classes)), HoldOut(), store=store, progress=Progress(),
        views=lambda sample: crops_by_name(sample.image, n_crops, 0),
    )  # fmt: skip
    features, places = pooled(encoder, [s.source for s in later], store)
    truth = torch.tensor([pictures.classes.index(later[i].label) for i in places])
    return Pool(pictures, features, truth)


def drawn(pool: Pool, n_each: int, seed: int, n_crops: int) -> EncodedSet:
    draw = random.Random(f"{seed} {n_each}")
    index: list[int] = []
    for label in range(len(pool.pictures.classes)):
        index += draw.sample((pool.pictures.labels == label).nonzero()[:, 0].tolist(), n_each)
    views = [pool.pictures.encoded[i] for i in index]
    views = [replace(one, pooled=one.pooled[: n_crops + 1]) for one in views]
    return hold_out([pool.pictures.items[i] for i in index], views, HoldOut(), Progress())


def peer(pictures: EncodedSet, recipe: Linear, n_each: int, pool: Pool) -> tuple[float, float]:
    """Accuracy and C of scikit-learn's choice; features are turned to as many dimensions as there are rows."""
    x, y, picture = pictures.rows(torch.ones_like(pictures.held))
    x, later = recipe._feature(x).double(), recipe._feature(pool.later).double()
    axes = torch.linalg.qr(x.T)[0]
    x, later = (x @ axes).numpy(), (later @ axes).numpy()
    folds = StratifiedGroupKFold(min(5, n_each), shuffle=True, random_state=0).split(x, y, picture)
    folds = [(a, b) for a, b in folds if len(np.unique(y[a])) == len(pictures.classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(cv=folds, max_iter=300).fit(x, y.numpy())
    right = model.predict(later) == pool.truth.numpy()
    return float(right.mean()), float(np.ravel(model.C_)[0])


def measured(pool: Pool, encoder: Encoder, n_each: int, seed: int, n_crops: int) -> dict[str, Any]:
    pictures, recipe = drawn(pool, n_each, seed, n_crops), Linear(n_crops=n_crops)

    def accuracy(head: Any) -> float:
        with torch.no_grad():
            return float((head(pool.later).argmax(1) == pool.truth).float().mean())

    outcome = recipe.learn_seen(encoder, pictures)
    fixed = {c: accuracy(recipe.fit_at(pictures, c)) for c in GRID}
    theirs, their_c = peer(pictures, recipe, n_each, pool)
    ours = accuracy(outcome.classifier.head)
    return {
        "best": max(fixed.values()), "c": outcome.figures["C"], "their_c": their_c,
        "fit": ours, "scikit-learn": theirs, "C = 100": fixed[UNCHOSEN],
    }  # fmt: skip


def interval(values: list[float]) -> str:
    """Mean with the 95 % interval of its standard error."""
    half = 1.96 * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.1f} ({mean(values) - half:.1f} to {mean(values) + half:.1f})"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| pictures of each class | " + " | ".join(f"{choice}: mean | worst" for choice in CHOICES) + " | best C |"
    names = list(dict.fromkeys(row["set"] for row in rows))
    for n_crops in sorted({row["n_crops"] for row in rows}):
        for n_each in EACH:
            for name in (*names, "all"):
                some = [
                    r for r in rows if r["n_crops"] == n_crops and r["each"] == n_each and name in (r["set"], "all")
                ]
                if len(some) < 2:
                    continue
                losses = {choice: [100 * (r["best"] - r[choice]) for r in some] for choice in CHOICES}
                cells = [f"{interval(loss)} | {max(loss):.1f}" for loss in losses.values()]
                best = 100 * mean(r["best"] for r in some)
                yield f"| {name}, {n_crops} crops, {n_each} ({len(some)}) | {' | '.join(cells)} | {best:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("grocery", "cifake", "fashion", "cells"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--crops", type=int, nargs="+", default=[0, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 120)))
    parser.add_argument("--rows", type=Path, default=Path("choosing_c.jsonl"))
    parser.add_argument("--store", type=Path, default=None)
    given = parser.parse_args()
    groceries = Collection(*(tuple(load_samples(given.grocery / part).items) for part in ("train", "test")))
    kinds = Collection(*(tuple(load_samples(given.cifake / part).items) for part in ("train", "test")))
    collections = {
        "CIFAR photographs": cifake(given.cifake), "groceries": groceries, "products": fashion(given.fashion),
        "cells": cells(given.cells), "real or generated": kinds,
    }  # fmt: skip
    rows = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows.exists() else []
    done = {(r["set"], r["n_crops"], r["each"], r["seed"]) for r in rows}
    encoder, store = find(given.encoder), FeatureStore(given.store) if given.store else FeatureStore()
    for name, collection in collections.items():
        pool = encoded(collection, encoder, store, max(given.crops))
        for n_crops in given.crops:
            for seed in given.seeds:
                for n_each in EACH:
                    key = (name, n_crops, n_each, seed)
                    if key not in done and n_each <= FEWEST:
                        row = dict(zip(("set", "n_crops", "each", "seed"), key, strict=True))
                        rows.append({**row, **measured(pool, encoder, n_each, seed, n_crops)})
                        with given.rows.open("a") as file:
                            file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
