"""ConVIRT: are texts about pictures a better start for a classifier than ImageNet's labels, with few labels?

    python reproductions/convirt.py --n-planted 300 --steps 20     # seconds, and no pictures needed
    python reproductions/convirt.py --reports fashion=fashion/train.csv,fashion/test.csv,subCategory \\
        --reports xray=xray-train.csv,xray-test.csv,finding,patient --store seen.sqlite --out convirt.json

Zhang et al. 2020 (arXiv 2010.00747). Both encoders are frozen and encode everything once; a linear layer behind each is
trained on pictures and texts, without labels. A probe on the layer's output is compared with one on the features in
front of it, at 1, 10 and 100 % of the labels. --reports, which may be repeated, names two tables, the column of classes
and, if pictures belong together, the column of groups, which are resampled whole. Takes minutes on one busy core once
everything is in the store.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from captioned import (
    RATE,
    WIDTH,
    Captioned,
    Centred,
    Kept,
    Scaled,
    Space,
    deranged,
    learn,
    over_seeds,
    planted,
    recipe,
    seen,
)
from claims import JUDGED, Claim, Interval, Report, command, deliver, judged, lead, machine, mean_of, parser
from torch import Tensor
from torch.nn.functional import normalize

import seewhy
from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.encoders.base import Encoder
from seewhy.learning.objectives.pairs import ConVIRT
from seewhy.learning.pooled import spans
from seewhy.pictures.samples import Sample, gathered
from seewhy.storage.features import FeatureStore

SHARES = (0.01, 0.1, 1.0)
"""Of the labels; of each class at least one."""
DRAWS = 5
GRID = (0.1, 1.0, 10.0, 100.0)
"""C of the probe, in units of the features' mean square; chosen on training pictures that the first draw left, and with
all labels on a fifth that is held out for it."""
LEAST = 8
"""Training pictures that a class must have."""
START, ADAPTED = "the start", "adapted"
CONTROLS = {"texts of others": "shuffled", "untrained layer": "untrained"}


@dataclass(frozen=True)
class Reports:
    """Pictures with texts and classes.

    Attributes:
        names: of the classes.
        train: with texts, in sentences.
        test: with texts.
        y_train: classes of the training pictures.
        y_test: those of the test pictures.
        groups: which test pictures belong together.
    """

    names: tuple[str, ...]
    train: Captioned
    test: Captioned
    y_train: Tensor
    y_test: Tensor
    groups: tuple[str, ...]


def reports(encoder: Encoder, store: FeatureStore | None, source: str) -> tuple[str, Reports]:
    """What ``NAME=TRAIN,TEST,COLUMN[,GROUP]`` names; rare and untested classes left out."""
    name, _, rest = source.partition("=")
    first, second, column, *group = rest.split(",")
    sets = [seewhy.load_pairs(p, label=column, group=group[0] if group else None).items for p in (first, second)]
    counts, tested = Counter(s.label for s in sets[0]), {s.label for s in sets[1]}
    names = tuple(sorted(c for c, n in counts.items() if c and n >= LEAST and c in tested))
    parts = [[s for s in one if s.label in names] for one in sets]
    in_sentences = [gathered([_spanned(s) for s in part]) for part in parts]
    train, test = (seen(encoder, one, store) for one in in_sentences)
    ys = [torch.tensor([names.index(s.label) for s in part]) for part in parts]
    groups = tuple(s.group or str(i) for i, s in enumerate(parts[1]))
    return name, Reports(names, train, test, ys[0], ys[1], groups)


def _spanned(sample: Sample) -> Sample:
    return Sample(sample.image, sample.label, spans(sample.texts, "sentence"), sample.group, sample.pixels)


def planted_reports(n: int) -> Reports:
    """Things without a picture; the class is the side on which their first number lies."""
    train, test = planted(n, 0), planted(n // 2, 1)
    ways = torch.linalg.pinv(torch.randn(8, 32, generator=torch.Generator().manual_seed(7)))
    ys = [(one.pooled @ ways)[:, 0].gt(0).long() for one in (train, test)]
    return Reports(("left", "right"), train, test, ys[0], ys[1], tuple(map(str, range(n // 2))))


def drawn_share(y: Tensor, share: float, seed: int) -> Tensor:
    """Rows, such a share of each class, and at least one."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    by_class = [order[y[order] == k] for k in y.unique()]
    return torch.cat([rows[: math.ceil(share * len(rows))] for rows in by_class])


def probed(x: Tensor, test: Tensor, data: Reports, share: float) -> list[float]:
    """Of each test picture, how often a probe on such a share of the labels is right, over the draws."""
    k, y = len(data.names), data.y_train
    unit = 1.0 / float(x.square().sum(1).mean())
    first = drawn_share(y, min(share, 0.8), 0)
    left = torch.ones(len(y), dtype=torch.bool).index_fill(0, first, False)
    scored = []
    for c in GRID:
        logits = fit_linear(x[first], y[first], k, c * unit, tol=1e-3).logits(x[left])
        scored.append(float((logits.argmax(1) == y[left]).float().mean()))
    best, right = GRID[int(np.argmax(scored))] * unit, []
    for seed in range(DRAWS if share < 1 else 1):
        rows = drawn_share(y, share, seed)
        logits = fit_linear(x[rows], y[rows], k, best, tol=1e-3).logits(test)
        right.append((logits.argmax(1) == data.y_test).float().tolist())
    return over_seeds(right)


def like_it(test: Tensor, y: Tensor, k: int = 5) -> list[float]:
    """Of each test picture, the share of its k nearest others that are of its class."""
    unit = normalize(test, dim=1)
    scores = unit @ unit.T
    return (y[scores.fill_diagonal_(-2).topk(k, 1).indices] == y[:, None]).float().mean(1).tolist()


def by_text(space: Space, data: Reports, k: int = 5) -> list[float]:
    """Of each test picture's first text, the share of the k nearest pictures that are of its class."""
    first = data.test.sentences[torch.tensor([said[0] for said in data.test.said])]
    near = (space.texts(first) @ space.pictures(data.test.pooled).T).topk(k, 1).indices
    return (data.y_test[near] == data.y_test[:, None]).float().mean(1).tolist()


def space_of(data: Reports, arm: str, steps: int, seed: int) -> Space:
    """Trained on the texts, on those of others, or not at all."""
    if arm == "untrained":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Space(Centred(data.train.pooled), Scaled(data.train.sentences.shape[1]))
    train = data.train
    if arm == "shuffled":
        places = deranged(len(train), 1.0, np.random.default_rng(seed))
        train = train.saying([train.said[i] for i in places])
    return learn(train, ConVIRT(), recipe(steps, seed, batch=min(256, len(train) // 2)))


def arm_of(data: Reports, arm: str, steps: int, seed: int) -> dict[str, list[float]]:
    """Of each test picture, what a space gives: by share of the labels, by its nearest, by its text."""
    space = space_of(data, arm, steps, seed)
    x, test = space.pictures(data.train.pooled), space.pictures(data.test.pooled)
    found = {str(share): probed(x, test, data, share) for share in SHARES}
    return found | {"pictures": like_it(test, data.y_test), "texts": by_text(space, data)}


def start_of(data: Reports) -> dict[str, list[float]]:
    """The same of the features as they are."""
    found = {str(share): probed(data.train.pooled, data.test.pooled, data, share) for share in SHARES}
    return found | {"pictures": like_it(data.test.pooled, data.y_test)}


def by_group(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    """Means of what belongs together."""
    known: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        known.setdefault(group, []).append(value)
    return [float(np.mean(one)) for one in known.values()]


def commonest(data: Reports) -> float:
    """How often the commonest training class is right, each group counting alike."""
    return float(np.mean(by_group((data.y_test == data.y_train.mode().values).float().tolist(), data.groups)))


def set_claims(name: str, arms: dict[str, dict[str, list[float]]]) -> list[Claim]:
    """By the rules that stand beside them; numbers are of groups."""
    start, adapted, n = arms[START], arms[ADAPTED], len(arms[START]["1.0"])

    def over(what: str, control: str) -> Interval:
        return lead(adapted[what], arms[control][what])

    found = []
    for share in SHARES:
        beside = over(str(share), START)
        controls = ", ".join(f"{c} {mean_of(arms[c][str(share)])}" for c in CONTROLS)
        found.append(
            Claim(f"A probe on {share:.0%} of the labels is better after training on texts than on the features it "
                  "started from", f"accuracy adapted less start; {JUDGED}",
                  f"{beside}; accuracies {np.mean(adapted[str(share)]):.3f} and {np.mean(start[str(share)]):.3f}; "
                  f"controls: {controls}", judged(beside), n, name)
        )  # fmt: skip
    tenth = lead(adapted["0.1"], start["1.0"])
    near = over("pictures", START)
    said = lead(adapted["texts"], arms["texts of others"]["texts"])
    found += [
        Claim("A tenth of the labels after training on texts does what all of them do before",
              f"accuracy adapted at 10 % less start at 100 %; {JUDGED}", str(tenth), judged(tenth), n, name,
              interval=tenth),
        Claim("Pictures of one class are nearer to one another",
              f"part of the 5 nearest that are of its class, adapted less start; {JUDGED}", 
              f"{near}; {np.mean(adapted['pictures']):.3f} and {np.mean(start['pictures']):.3f}",
              judged(near), n, name),
        Claim("A text finds pictures of its class", f"part of the 5 nearest pictures that are of its class, less that "
              f"after training on texts of others; {JUDGED}", f"{said}; {np.mean(adapted['texts']):.3f}",
              judged(said), n, name),
    ]  # fmt: skip
    return found


def run(args: argparse.Namespace) -> Report:
    if args.reports:
        encoder, store = seewhy.encoder(args.encoder), FeatureStore(args.store)
        sets = dict(reports(encoder, store, one) for one in args.reports)
    else:
        sets = {"planted": planted_reports(args.n_planted)}
    kept, claims, numbers = Kept(args.out, str(args.steps)), [], {}
    for name, data in sets.items():
        arms = {START: kept.get(f"{name} start", partial(start_of, data))}
        for arm, how in {ADAPTED: "trained", **CONTROLS}.items():
            runs = [
                kept.get(f"{name} {how} {seed}", partial(arm_of, data, how, args.steps, seed))
                for seed in range(args.seed, args.seed + args.seeds)
            ]
            arms[arm] = {what: over_seeds([one[what] for one in runs]) for what in runs[0]}
        grouped = {a: {w: by_group(v, data.groups) for w, v in one.items()} for a, one in arms.items()}
        claims += set_claims(name, grouped)
        numbers[name] = {a: {w: mean_of(v).rounded() for w, v in one.items()} for a, one in grouped.items()}
    about = "; ".join(
        f"{name}: {len(d.names)} classes, {len(d.train)} training and {len(d.test)} test pictures of "
        f"{len(set(d.groups))} groups, always the commonest class {commonest(d):.3f}" for name, d in sets.items()
    )  # fmt: skip
    return Report(
        "convirt", "Do texts make a better start for a classifier than ImageNet's labels?",
        "Zhang et al. 2020, arXiv:2010.00747", about,
        f"{args.encoder}, frozen; a linear layer to {WIDTH} numbers behind each tower, {args.steps} steps at a rate of "
        f"{RATE:g}, {args.seeds} trainings; a text's sentences drawn singly",
        command("convirt"), machine(), round(kept.seconds, 1), args.seed, tuple(claims),
        ("Linear layers behind frozen towers on hundreds and thousands of pictures, not networks on 217,000",
         "The start is the frozen network that the layer stands on: what is compared is a projection of it",
         "Probes alone, no fine-tuning; their C is chosen on training pictures",
         "Titles of products name what they show, as a report names its finding; no label is used in the training",
         "Steps and rate are those of the clip reproduction, not chosen here",
         "Intervals resample test pictures, or groups of them, not trainings"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    made = parser(__doc__ or "", "convirt")
    made.add_argument("--reports", action="append", default=[], help="NAME=TRAIN,TEST,COLUMN[,GROUP]; may be repeated")
    made.add_argument("--encoder", default="lite0", help="with words; frozen")
    made.add_argument("--store", type=Path, help="where what it saw is kept")
    made.add_argument("--steps", type=int, default=132, help="batches of 256 pictures, or of half of them")
    made.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    made.add_argument("--n-planted", type=int, default=300, help="planted things, where no reports are given")
    return deliver(made, run, arguments)


if __name__ == "__main__":
    main()
