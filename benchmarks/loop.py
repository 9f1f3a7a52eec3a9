"""Does the loop help? Correct labels in an order, or label more pictures by a strategy, and test on clean pictures.

    python benchmarks/loop.py labels ../shared/data/grocery/train --test ../shared/data/grocery/test
    python benchmarks/loop.py next fashion/train.csv --test fashion/test.csv --label-column articleType

``labels``: a part of the labels is moved to another class, evenly or as people confuse classes. Somebody looks at the
first 25, 50, 100 and 200 pictures of an order and corrects those that are wrong. The orders: ``seewhy check``'s, the
same checked again after every 25 pictures, cleanlab's, by neighbours, by chance. Then the linear classifier of
``seewhy fit`` learns from all pictures; what is reported is its accuracy on test pictures, whose labels are as given.
Its regularisation is chosen once in each draw, by folds of the moved labels, and is the same for all orders.

``next``: from 5 pictures per class on, a strategy chooses which are labelled next, up to 10, 20, 35 and 50 per class on
average; the classifier is fitted again at each step.

``classes``: from ``--steps A B``: A pictures of each class are labelled, and B of each of a few classes are added: of
those that the page /next lists first, of classes drawn by chance, or as many of all classes.

Every draw moves other labels, or starts from other pictures; intervals are of the differences between orders over
draws (95 %, Student's t). Rows are kept in ``--out`` and not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from label_errors import noisy
from label_next import STRATEGIES, Pool
from scipy.stats import t as student
from torch import Tensor

from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.find import encoder
from seewhy.errors import MissingExtraError
from seewhy.heads.normalise import Normalise
from seewhy.pictures.samples import Samples, gathered, load_samples
from seewhy.storage.features import FeatureStore
from seewhy.studies.inspection.faults import RANKERS, HeldOutScores, held_out_scores
from seewhy.studies.material import Material, look_with_each
from seewhy.studies.what_next import weak_classes

LOOKED_AT = (0, 25, 50, 100, 200)
PARTS = (0.1, 0.2)
ORDERS = ("odds", "odds, checked again", "cleanlab", "neighbours", "chance")


@dataclass(frozen=True)
class Bench:
    """Pictures to learn from and to test on, and rows that are kept.

    Attributes:
        about: which pictures, encoder and steps; rows of others are not reused.
    """

    material: Material
    about: str
    out: Path
    draws: int
    steps: tuple[int, ...]
    orders: tuple[str, ...] = ORDERS
    strategies: tuple[str, ...] = tuple(STRATEGIES)
    shared: dict[tuple, Any] = field(default_factory=dict)
    """What all orders have in common: the first fit and the first check of moved labels."""

    def once(self, labels: Tensor, what: str, compute: Callable[[], Any]) -> Any:
        key = (what, labels.numpy().tobytes())
        if key not in self.shared:
            self.shared[key] = compute()
        return self.shared[key]

    @property
    def truth(self) -> Tensor:
        return self.material.labels[self.material.pool]

    def fitted(self, places: Tensor, labels: Tensor, c: float | None = None) -> tuple[float, Tensor, float]:
        """The accuracy of the classifier fitted on these pictures of the pool, what it gives the others, and its C."""
        m = self.material
        part = m.part(m.pool[places], labels, m.classes, 0)
        head, c = m.fitted(part, c)
        right = head.probabilities(m.tested).argmax(1) == m.labels[m.test]
        return float(right.double().mean()), head.probabilities(m.learnt), c

    def scores(self, labels: Tensor, seed: int, places: Tensor | None = None) -> HeldOutScores:
        """As ``seewhy check`` has them, were these the labels; of some pictures of the pool, or of all."""
        m = self.material
        index = m.pool if places is None else m.pool[places]
        pool = index.tolist()
        items = [replace(m.pictures.items[i], label=m.classes[k]) for i, k in zip(pool, labels.tolist(), strict=True)]
        groups = m.pictures.groups[index].unique(return_inverse=True)[1]
        return held_out_scores(m.encoder, items, [m.pictures.encoded[i] for i in pool], m.classes, groups, seed)

    def kept(self, cell: dict, compute: Callable[[], list[dict]]) -> list[dict]:
        """The rows of a cell, computed once."""
        rows = [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []
        cell = {"about": self.about, **cell}
        found = [row for row in rows if all(row.get(k) == v for k, v in cell.items())]
        if not found:
            found = [{**cell, **row} for row in compute()]
            with open(self.out, "a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
            print(*map(json.dumps, found), sep="\n", flush=True)
        return found


def corrected(bench: Bench, labels: Tensor, order: str, seed: int) -> Iterator[dict]:
    """Accuracy after so many pictures of an order were looked at."""
    labels, looked, every = labels.clone(), torch.zeros(len(labels), dtype=torch.bool), torch.arange(len(labels))
    name = order.partition(",")[0]
    chance = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed))
    first = labels.clone()
    doubt = chance
    if order != "chance":
        doubt = RANKERS[name](bench.once(first, f"scores {seed}", lambda: bench.scores(first, seed))).doubt
    accuracy, _, c = bench.once(first, "fitted", lambda: bench.fitted(every, first))
    yield {"looked_at": 0, "wrong": int((first != bench.truth).sum()), "accuracy": accuracy}
    while int(looked.sum()) < LOOKED_AT[-1]:
        if order != name and bool(looked.any()):
            doubt = RANKERS[name](bench.scores(labels, seed)).doubt
        chosen = doubt.masked_fill(looked, -torch.inf).argsort(descending=True, stable=True)[:25]
        looked[chosen] = True
        labels[chosen] = bench.truth[chosen]
        if (n := int(looked.sum())) in LOOKED_AT:
            left = int((labels != bench.truth).sum())
            yield {"looked_at": n, "wrong": left, "accuracy": bench.fitted(every, labels, c)[0]}


def labels(bench: Bench) -> list[dict]:
    n_classes, rows = len(bench.material.classes), []
    confused = confusions(bench)
    for noise, to in (("even", 1 - torch.eye(n_classes)), ("as people err", confused)):
        for part in PARTS:
            for seed in range(bench.draws):
                moved = noisy(bench.truth, to, part, seed)
                for order in bench.orders:
                    cell = {"noise": noise, "part": part, "draw": seed, "order": order}
                    try:
                        rows += bench.kept(cell, lambda o=order, m=moved, s=seed: list(corrected(bench, m, o, s)))
                    except MissingExtraError as error:
                        print(error)
    return rows


def confusions(bench: Bench) -> Tensor:
    """Where a label goes when people err: what a head that did not see a picture gives the other classes."""
    scores = bench.scores(bench.truth, 0)
    found = torch.full((len(bench.material.classes),) * 2, 1e-6)
    for k in range(len(found)):
        own = (scores.labels == k) & scores.judged
        found[k] += scores.probabilities[own].mean(0) if bool(own.any()) else 1
    return found.fill_diagonal_(0)


def grown(bench: Bench, name: str, seed: int) -> Iterator[dict]:
    """Accuracy with ever more labels, those added chosen by a strategy."""
    draws, k = torch.Generator().manual_seed(seed), len(bench.material.classes)
    known = started(bench, draws)
    features = Normalise(0.5, l2=True)(bench.material.learnt)
    for step, per_class in enumerate(bench.steps):
        places = known.nonzero()[:, 0]
        accuracy, given, _ = bench.fitted(places, bench.truth[places])
        least = int(bench.truth[places].bincount(minlength=k).min())
        yield {"per_class": per_class, "labelled": len(places), "least": least, "accuracy": accuracy}
        wanted = (bench.steps[step + 1] * k if step + 1 < len(bench.steps) else 0) - len(places)
        rest = (~known).nonzero()[:, 0]
        if wanted <= 0 or wanted >= len(rest):
            return
        pool = Pool(features[rest], given[rest], features[places])
        known[rest[STRATEGIES[name](pool, wanted, draws)]] = True


def started(bench: Bench, draws: torch.Generator) -> Tensor:
    """Which pictures of the pool have a label at first: as many of each class, drawn by chance."""
    start = [
        own[torch.randperm(len(own), generator=draws)[: bench.steps[0]]]
        for own in ((bench.truth == c).nonzero()[:, 0] for c in range(len(bench.material.classes)))
    ]
    return torch.zeros(len(bench.truth), dtype=torch.bool).index_fill(0, torch.cat(start), True)


def added(bench: Bench, where: str, seed: int) -> Iterator[dict]:
    """Accuracy before and after pictures of a few classes are added: of the weakest as the page lists them, of classes
    drawn by chance, or of all alike."""
    draws, k = torch.Generator().manual_seed(seed), len(bench.material.classes)
    known = started(bench, draws)
    places, n = known.nonzero()[:, 0], min(10, max(2, k // 4))
    accuracy = bench.once(places, "before", lambda: bench.fitted(places, bench.truth[places]))[0]
    yield {"labelled": len(places), "step": "before", "accuracy": accuracy}
    rest = (~known).nonzero()[:, 0]
    rest = rest[torch.randperm(len(rest), generator=draws)]
    chosen = torch.randperm(k, generator=draws)[:n].tolist()
    if where == "weakest classes":
        weak = weak_classes(bench.scores(bench.truth[places], seed, places), bench.material.classes, n)
        chosen = [bench.material.classes.index(row["label"]) for row in weak]
    more = torch.cat([rest[bench.truth[rest] == c][: bench.steps[1]] for c in chosen])
    if where == "all classes":
        more = rest[: n * bench.steps[1]]
    places = torch.cat([places, more])
    yield {"labelled": len(places), "step": "after", "accuracy": bench.fitted(places, bench.truth[places])[0]}


def adding(bench: Bench) -> list[dict]:
    rows = []
    for seed in range(bench.draws):
        for where in ("weakest classes", "classes by chance", "all classes"):
            rows += bench.kept({"draw": seed, "where": where}, lambda w=where, s=seed: list(added(bench, w, s)))
    return rows


def following(bench: Bench) -> list[dict]:
    rows = []
    for seed in range(bench.draws):
        for name in bench.strategies:
            rows += bench.kept({"draw": seed, "strategy": name}, lambda n=name, s=seed: list(grown(bench, n, s)))
    return rows


def table(rows: list[dict], within: tuple[str, ...], by: str, at: str, base: str) -> None:
    """Mean accuracy by step, and the difference to the base with its interval over draws."""
    cells: dict[tuple, dict[int, float]] = defaultdict(dict)
    for row in rows:
        cells[(*(row[w] for w in within), row[by], row[at])][row["draw"]] = row["accuracy"]
    print("\n| " + " | ".join((*within, at, by)) + " | accuracy | against " + base + ", points |")
    print("|---" * (len(within) + 4) + "|")
    for key, drawn in cells.items():
        beside = cells[(*key[:-2], base, key[-1])]
        off = [100 * (drawn[d] - beside[d]) for d in drawn if d in beside]
        wide = student.ppf(0.975, len(off) - 1) * stdev(off) / math.sqrt(len(off)) if len(off) > 1 else math.nan
        middle = mean(off) if off else math.nan
        cell = "" if key[-2] == base else f"{middle:+.1f} ({middle - wide:+.1f} to {middle + wide:+.1f})"
        names = (*key[:-2], key[-1], key[-2])
        print("| " + " | ".join(map(str, names)) + f" | {100 * mean(drawn.values()):.1f} | {cell} |")


def first_of_each(samples: Samples, most: int | None, least: int) -> Samples:
    """Classes with enough pictures, and of each class the first so many in an order drawn once."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    kept: dict[str, list[int]] = defaultdict(list)
    for i in order:
        if most is None or len(kept[samples.items[i].label]) < most:
            kept[samples.items[i].label].append(i)
    return gathered([samples.items[i] for own in kept.values() if len(own) >= least for i in sorted(own)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("labels", "next", "classes"))
    parser.add_argument("data", type=Path, help="class folders, or a table")
    parser.add_argument("--test", type=Path, required=True, help="pictures to test on")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--most", type=int, help="at most so many pictures of each class")
    parser.add_argument("--least", type=int, default=2, help="classes with fewer pictures are left out")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 35, 50], help="labels per class")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--out", type=Path, required=True, help="rows, one JSON object a line")
    given = parser.parse_args()
    samples = first_of_each(load_samples(given.data, label=given.label_column), given.most, given.least)
    test = load_samples(given.test, label=given.label_column)
    test = gathered([s for s in test.items if s.label in samples.classes])
    samples = gathered([s for s in samples.items if s.label in test.classes])
    recipe = Linear(n_crops=0)
    eyes = encoder(given.encoder)
    material = look_with_each({"e": eyes}, samples, recipe, held_out=0.2, seed=0, test=test, store=FeatureStore())["e"]
    print(
        f"{len(material.pool)} pictures to learn from, {len(material.test)} to test on, {len(material.classes)} classes"
    )
    how = (tuple(given.steps), tuple(given.orders), tuple(given.strategies))
    about = f"{given.data} {given.test} {given.encoder} {given.most} {given.least} {given.steps}"
    bench = Bench(material, about, given.out, given.draws, *how)
    if given.what == "labels":
        table(labels(bench), ("noise", "part"), "order", "looked_at", "chance")
    elif given.what == "classes":
        table(adding(bench), (), "where", "step", "all classes")
    else:
        table(following(bench), (), "strategy", "per_class", "random")


if __name__ == "__main__":
    main()
