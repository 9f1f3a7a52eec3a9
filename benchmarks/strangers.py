"""Is it sure of what it never saw, and does what fit promises hold later? Over many small sets, as a user has them.

    git clone https://github.com/marcusklasson/GroceryStoreDataset
    python benchmarks/strangers.py --grocery GroceryStoreDataset/dataset --cifake cifake --fashion fashion \\
        --cells BCCD --far photographs=photographs/ --rows strangers.jsonl

Each set is a few classes of one collection with 10 to 60 pictures each, fitted as `seewhy fit` does. Then are judged:
pictures of the same classes from the collection's later list; *near* strangers, the collection's other classes; and
*far* ones, pictures of the other collections and of each `--far` folder. A row a set is added to `--rows`, and a run
that was stopped goes on where it was. `--chosen` draws the sets that the scores and limits were chosen on instead.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from grocery import read_list
from PIL import Image
from torch import Tensor

import seewhy
from seewhy.classifiers.certainty import trust_inputs
from seewhy.encoders.find import encoder as find
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.pictures.datasets import pictures_of
from seewhy.pictures.samples import Sample, Samples
from seewhy.storage.features import FeatureStore
from seewhy.trust.base import LEVEL
from seewhy.trust.measure import auroc

SHAPES = ((8, 60), (5, 30), (9, 20), (3, 40), (6, 12), (5, 10), (2, 40), (2, 20), (2, 8), (3, 8), (2, 6))
"""Classes, and pictures of each at most."""
MOST_NEAR, MOST_FAR, FEWEST = 400, 150, 12
BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.01)


@dataclass(frozen=True)
class Collection:
    """Pictures with classes: to fit on, and of a later list."""

    train: tuple[Sample, ...]
    later: tuple[Sample, ...]

    @property
    def classes(self) -> list[str]:
        count = Counter(s.label for s in self.train)
        return sorted(label for label, n in count.items() if n >= FEWEST)


def cifake(folder: Path) -> Collection:
    """CIFAR-10 photographs, the class being what stands behind the name's last underscore."""
    parts = []
    for split in ("train", "test"):
        files = sorted((folder / split / "REAL").iterdir())
        parts.append(tuple(Sample(str(f), f.stem.split("_")[1] if "_" in f.stem else "1") for f in files))
    return Collection(*parts)


def fashion(folder: Path) -> Collection:
    """Product photographs by kind of article, from train.csv and test.csv."""
    parts = []
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open() as rows:
            parts.append(tuple(Sample(str(folder / row["image"]), row["articleType"]) for row in csv.DictReader(rows)))
    return Collection(*parts)


def cells(folder: Path) -> Collection:
    """At most two cells of a kind from each smear; the later list is of other smears."""
    halves: tuple[list[Sample], list[Sample]] = ([], [])
    for number, path in enumerate(sorted((folder / "annotations").glob("*.xml"))):
        picture = np.asarray(Image.open(folder / "images" / f"{path.stem}.jpg").convert("RGB"))
        taken: Counter[str] = Counter()
        for box in ElementTree.parse(path).getroot().iter("object"):
            label = box.findtext("name") or ""
            ends = [round(float(box.findtext(f"bndbox/{n}") or 0)) for n in ("xmin", "ymin", "xmax", "ymax")]
            x0, y0, x1, y1 = (max(0, end) for end in ends)
            crop = picture[y0:y1, x0:x1]
            if min(crop.shape[:2], default=0) >= FEWEST and taken[label] < 2:
                taken[label] += 1
                halves[number % 2].append(Sample(f"{path.stem} {label} {taken[label]}", label, pixels=crop))
    return Collection(tuple(halves[0]), tuple(halves[1]))


def drawn(collection: Collection, n_classes: int, n_each: int, draw: random.Random, pool: Sequence[str]) -> Samples:
    chosen = sorted(draw.sample(list(pool), min(n_classes, len(pool))))
    items: list[Sample] = []
    for label in chosen:
        mine = [s for s in collection.train if s.label == label]
        items += draw.sample(mine, min(n_each, len(mine)))
    return Samples(tuple(items), tuple(chosen))


def pooled(encoder: Any, items: Iterable[Any], store: FeatureStore) -> tuple[Tensor, list[int]]:
    """Features, and the places of those that can be read."""
    found = [
        (i, s.pooled[0]) for i, s in enumerate(encode_stream(encoder, items, store=store)) if isinstance(s, Encoded)
    ]
    return torch.stack([row for _, row in found]), [i for i, _ in found]


def measured(
    model: Any, later: Sequence[Sample], near: Tensor, far: dict[str, Tensor], store: FeatureStore
) -> dict[str, Any]:
    """All figures of one set."""
    trust = model.measured_trust
    features, places = pooled(model.encoder, [s.source for s in later], store)
    labels = torch.tensor([model.classes.index(later[i].label) for i in places])

    def judge(rows: Tensor) -> Any:
        with torch.no_grad():
            return trust.judge(trust_inputs(model, rows, model.head(rows)))

    with torch.no_grad():
        right = model.head(features).argmax(1) == labels
    known, unknown, worlds = judge(features), judge(near), {name: judge(rows) for name, rows in far.items()}
    share = lambda flags: round(float(flags.float().mean()), 4) if len(flags) else None  # noqa: E731
    bins = []
    for low, high in pairwise(BINS):
        inside = (known.probability >= low) & (known.probability < high)
        if int(inside.sum()) >= 15:
            accuracy, ends = share(right[inside]), (share(known.low[inside]), share(known.high[inside]))
            bins.append(ends[0] - 0.005 <= accuracy <= ends[1] + 0.005)
    expected = model.measures["expected_range"]
    said = trust.unknowns
    hedged = [(j.sets.sum(1) == 1) & (j.probability >= LEVEL) & ~j.sure & ~j.unknown for j in (known, unknown)]
    return {
        "held_out": model.measures["held_out_accuracy"], "later": share(right), "expected": expected,
        "expected_holds": expected is None or expected[0] - 0.005 <= float(right.float().mean()) <= expected[1] + 0.005,
        "coverage": share(known.sets.gather(1, labels[:, None])[:, 0]), "bins": bins,
        "kept": share(~known.unknown), "known_sure": share(known.sure), "sure_right": share(right[known.sure]),
        "near_noticed": share(unknown.unknown), "near_sure": share(unknown.sure),
        "classes": len(model.classes), "known_hedged": share(hedged[0]), "near_hedged": share(hedged[1]),
        "known_n_sure": int(known.sure.sum()), "known_n_sure_right": int(right[known.sure].sum()),
        "near_auroc": auroc(unknown.unusual, known.unusual),
        "said_noticed": said.near_found, "said_interval": said.near_interval, "said_sure": said.near_sure,
        "said_sure_interval": said.near_sure_interval,
        "far_noticed": {name: share(j.unknown) for name, j in worlds.items()},
        "far_sure": {name: share(j.sure) for name, j in worlds.items()},
    }  # fmt: skip


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    store = FeatureStore(given.store)
    collections: dict[str, Collection] = {}
    if given.grocery:
        lists = [read_list(given.grocery, name, "fine").items for name in ("train", "test")]
        collections["groceries"] = Collection(tuple(lists[0]), tuple(lists[1]))
    for name, read in (("cifake", cifake), ("fashion", fashion), ("cells", cells)):
        if (folder := getattr(given, name)) is not None:
            collections[name] = read(folder)
    done = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows.exists() else []
    known = {row["set"] for row in done}
    for encoder_name in given.encoder.split(","):
        encoder = find(encoder_name)
        draw = random.Random(0)
        worlds = {n: draw.sample(list(c.later), min(MOST_FAR, len(c.later))) for n, c in collections.items()}
        worlds_seen = {n: pooled(encoder, [s.source for s in items], store)[0] for n, items in worlds.items()}
        for item in given.far:
            name, path = item.split("=", 1)
            files = list(pictures_of(Path(path)))
            worlds_seen[name] = pooled(encoder, draw.sample(files, min(MOST_FAR, len(files))), store)[0]
        for name, collection in collections.items():
            classes = collection.classes[:]
            random.Random(7).shuffle(classes)
            half = classes[: len(classes) // 2] if given.chosen else classes[len(classes) // 2 :]
            pool = half if len(half) > 3 else classes
            shapes = [(k, n) for k, n in SHAPES if k <= len(pool) and k < len(classes)]
            for number, (k, n_each) in enumerate(shapes[: given.most]):
                title = f"{given.seed} {encoder_name} {name} {k}×{n_each}" + (" chosen" if given.chosen else "")
                if title in known:
                    continue
                draw = random.Random(f"{given.seed} {number} {name} {given.chosen}")
                samples = drawn(collection, k, n_each, draw, pool)
                others = [s for s in collection.later if s.label not in samples.classes]
                near, _ = pooled(encoder, [s.source for s in draw.sample(others, min(MOST_NEAR, len(others)))], store)
                later = [s for s in collection.later if s.label in samples.classes]
                model = seewhy.fit(samples, encoder, store=store, n_crops=given.crops, n_bank=1)
                if model.measured_trust is None:
                    continue
                row = measured(model, later, near, {n: x for n, x in worlds_seen.items() if n != name}, store)
                done.append({"set": title, "n": len(samples), **row})
                with given.rows.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
                print(line(done[-1]), flush=True)
    return done


def line(row: dict[str, Any]) -> str:
    low, high = row["expected"] or (0.0, 1.0)
    missed = "" if row["expected_holds"] else " MISSED"
    return (
        f"{row['set']:<34} right {row['later']:.2f}, expected {low:.2f} to {high:.2f}{missed}"
        f"; kept {row['kept']:.2f}; sure: known {row['known_sure']:.2f}, near {row['near_sure']:.2f}, "
        f"far {max(row['far_sure'].values()):.3f}; noticed: near {row['near_noticed']:.2f}, "
        f"far {min(row['far_noticed'].values()):.3f}"
    )


def summary(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    mean = lambda values: sum(values) / max(1, len(values))  # noqa: E731
    bins = [held for row in rows for held in row["bins"]]
    kept, near, n_sure = [r["kept"] for r in rows], [r["near_sure"] for r in rows], sum(r["known_n_sure"] for r in rows)
    two = [row for row in rows if row["classes"] == 2]
    far = [noticed for row in rows for noticed in row["far_noticed"].values()]
    said = [row for row in rows if row["said_interval"] is not None]
    pairs = [[(r["said_interval"], r["near_noticed"]), (r["said_sure_interval"], r["near_sure"])] for r in said]
    inside = [[low - 0.005 <= value <= high + 0.005 for (low, high), value in pair] for pair in pairs]
    return [
        ("sets, of these of two classes", f"{len(rows)}, {len(two)}"),
        ("known pictures called sure", f"{mean([r['known_sure'] for r in rows]):.3f}"),
        ("of these right", f"{sum(r['known_n_sure_right'] for r in rows) / max(1, n_sure):.4f} of {n_sure}"),
        ("near strangers called sure", f"{mean(near):.3f}, at most {max(near):.3f}"),
        ("the same, two classes", f"{mean([r['near_sure'] for r in two]):.3f}"),
        ("one class, 90 % and more, not typical: known, near",
         f"{mean([r['known_hedged'] for r in rows]):.3f}, {mean([r['near_hedged'] for r in rows]):.3f}"),
        ("near strangers noticed", f"{mean([r['near_noticed'] for r in rows]):.3f}"),
        ("the card's ranges hold: noticed, sure",
         f"{sum(v[0] for v in inside)}, {sum(v[1] for v in inside)} of {len(inside)}"),
        ("the card's middle figure for sure, and what is",
         f"{mean([r['said_sure'] for r in said]):.3f}, {mean([r['near_sure'] for r in said]):.3f}"),
        ("far strangers called sure, most of any set and world",
         f"{max(max(r['far_sure'].values()) for r in rows):.3f}"),
        ("far strangers noticed", f"{mean(far):.3f}, at least {min(far):.3f}"),
        ("known pictures of the later list kept", f"{mean(kept):.3f}, at least {min(kept):.3f}"),
        ("the expected range holds", f"{sum(r['expected_holds'] for r in rows)} of {len(rows)}"),
        ("the interval of Right holds, bins of 15 and more", f"{mean(bins):.3f} of {len(bins)}"),
        ("the true class is in the set (90 % promised)", f"{mean([r['coverage'] for r in rows]):.3f}"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("grocery", "cifake", "fashion", "cells"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--far", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--encoder", default="lite0", help="several with commas between")
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=len(SHAPES), help="sets of each collection")
    parser.add_argument("--chosen", action="store_true", help="the classes that limits were chosen on")
    parser.add_argument("--store")
    parser.add_argument("--rows", type=Path, default=Path("strangers.jsonl"))
    given = parser.parse_args()
    for what, value in summary(run(given)):
        print(f"{what:<55} {value}")


if __name__ == "__main__":
    main()
