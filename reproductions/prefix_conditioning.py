"""Prefix conditioning: do class names and captions learn better together when a prefix tells them apart?

    python reproductions/prefix_conditioning.py --train fashion/train.csv --test fashion/test.csv --out prefix.json
    python reproductions/prefix_conditioning.py --train TRAIN --test TEST --size 120 --epochs 1     # a small look

Saito et al. 2023 (arXiv 2206.01125). The tables have the columns `image`, `text` (a title) and `articleType`. Half of
the training pictures have class names, of the twelve commonest classes alone; the others have titles, of all classes.
Test: pictures are named among all classes, those that had names in training and those that only titles told of. The
words half is trained, pictures are looked at once. Four arms at equal pairs and steps: one prefix for both kinds in
mixed batches (naive mixing), the same in batches of one kind, two prefixes in mixed batches, and the method. A quarter
of an hour on two cores.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from claims import Claim, Report, command, deliver, lead, machine, mean_of, parser, verdict
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.learning.api import ByClassesAndCaptions, two_kinds
from seewhy.learning.contrast import Drawn
from seewhy.learning.encoders.towers import PrefixedWords
from seewhy.learning.objectives.pairs import Prefix
from seewhy.storage.features import FeatureStore
from seewhy.training.loop import train

NAME = "prefix_conditioning"
N_NAMED = 12
"""Classes that have names in training, the commonest."""
LEAST = 5
"""Test pictures of a class that is tested."""
NAIVE, APART, MIXED, METHOD = "naive mixing", "one prefix, batches of one kind", "two prefixes, mixed batches", "prefix"
WRONG = "prefix, read as classes"
BEFORE = "before training"
GROUPS = ("classes with names in training", "classes that only titles told of")


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__, NAME)
    options.add_argument("--train", type=Path, required=True, help="a table of pictures, titles and classes")
    options.add_argument("--test", type=Path, required=True, help="the same of other pictures")
    options.add_argument("--size", type=int, default=1200, help="training pictures, both halves together")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--seeds", type=int, default=3)
    return deliver(options, lambda args: run(args, given), given)


def run(args: argparse.Namespace, given: Sequence[str] | None) -> Report:
    begun, on = time.perf_counter(), find("lite0")
    train, test = (read(on, table) for table in (args.train, args.test))
    common = [name for name, _ in Counter(row["articleType"].lower() for row, _ in train).most_common(N_NAMED)]
    counted = Counter(row["articleType"].lower() for row, _ in test)
    known = {row["articleType"].lower() for row, _ in train}
    tested = sorted(name for name, n in counted.items() if n >= LEAST and name in known)
    found: dict[str, list[Tensor]] = {}
    own = [row["articleType"].lower() for row, _ in test]
    for seed in range(args.seed, args.seed + args.seeds):
        for arm, right in arms(on, train, common, args, seed, test, tested).items():
            found.setdefault(arm, []).append(right)
    means = {arm: torch.stack(several).mean(0) for arm, several in found.items()}
    kept = {
        group: torch.tensor([(name in common) == first and name in tested for name in own])
        for group, first in zip(GROUPS, (True, False), strict=True)
    }
    right = {group: {arm: v[rows].tolist() for arm, v in means.items()} for group, rows in kept.items()}
    return Report(
        NAME,
        "Do class names and captions learn better together when a prefix tells them apart?",
        "Saito et al. 2023, arXiv:2206.01125",
        f"fashion product photographs (Kaggle 'Fashion Product Images'): {args.size} for training, half of them with "
        f"one of {N_NAMED} class names, half with a title; {sum(len(v[METHOD]) for v in right.values())} test "
        f"pictures of {len(tested)} classes",
        f"lite0, pictures frozen, its words half (MiniLM) trained for {args.epochs} epochs; {args.seeds} seeds",
        command(NAME, given),
        machine(),
        round(time.perf_counter() - begun, 1),
        args.seed,
        tuple(claims(right)),
        (
            "A pretrained words half is tuned on some hundred pairs; the paper trains both halves on millions.",
            "Naive mixing has one prefix for both kinds, so that all arms have as many weights.",
            "The paper's templates for class names are left out, as the encoder has none.",
            "Mean over seeds of each picture; intervals resample test pictures.",
        ),
        {group: {arm: mean_of(v).rounded() for arm, v in arms_.items()} for group, arms_ in right.items()},
    )


Row = tuple[dict[str, str], Tensor]


def read(on: Encoder, table: Path) -> list[Row]:
    """A table's rows with what the encoder pools of their pictures."""
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    stream = encode_stream(on, [table.parent / row["image"] for row in rows], store=FeatureStore())
    return [(row, seen.pooled[0]) for row, seen in zip(rows, stream, strict=True) if isinstance(seen, Encoded)]


def arms(
    on: Encoder,
    rows: list[Row],
    common: list[str],
    args: argparse.Namespace,
    seed: int,
    test: list[Row],
    tested: list[str],
) -> dict[str, Tensor]:
    """Arm → whether each test picture is named right."""
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    named = [i for i in order if rows[i][0]["articleType"].lower() in common][: args.size // 2]
    told = [i for i in order if i not in set(named)][: args.size // 2]
    chosen = [*named, *told]
    pooled = torch.stack([rows[i][1] for i in chosen])
    classes = [rows[i][0]["articleType"].lower() if k < len(named) else "" for k, i in enumerate(chosen)]
    captions = [[] if k < len(named) else [rows[i][0]["text"]] for k, i in enumerate(chosen)]
    image = normalize(on.text.project(torch.stack([pooled for _, pooled in test])), dim=1)
    own = torch.tensor([tested.index(n) if (n := row["articleType"].lower()) in tested else -1 for row, _ in test])

    def named_right(text: Tensor) -> Tensor:
        return ((image @ text.T).argmax(1) == own).double()

    found = {BEFORE: named_right(on.encode_text(tested))}
    for arm, shared, debiased in (
        (NAIVE, True, False),
        (APART, True, True),
        (MIXED, False, False),
        (METHOD, False, True),
    ):
        how = ByClassesAndCaptions("class", objective=Prefix(debiased=debiased), epochs=args.epochs, seed=seed)
        data = two_kinds(on, pooled, classes, captions, how.objective)
        if shared:
            data = replace(data, columns={**data.columns, "text": as_captions(data.columns["text"])})
        words, task = how.task(on)
        train(task, data, how.training(data, on))
        words.requires_grad_(False)
        found[arm] = named_right(said(on, words, tested, 1))
        if arm == METHOD:
            found[WRONG] = named_right(said(on, words, tested, 0))
        print(f"seed {seed}, {arm}: {float(found[arm].mean()):.3f}", flush=True)
    return found


def as_captions(texts: Drawn) -> Drawn:
    """The same with one prefix for all."""
    return Drawn([[(1, text) for _, text in several] for several in texts.choices], texts.made)


@torch.no_grad()
def said(on: Encoder, words: PrefixedWords, texts: list[str], source: int) -> Tensor:
    tokens = on.text.tokens(texts)  # type: ignore[attr-defined]
    return normalize(words(torch.full((len(texts),), source), *tokens), dim=1)


def claims(right: dict[str, dict[str, list[float]]]) -> list[Claim]:
    """The method against naive mixing in each group, its parts, and the other prefix at test."""
    new, old = right[GROUPS[1]], right[GROUPS[0]]
    above = "interval of the difference above 0; partly: the difference is above 0"
    made = [
        compared("Prefix conditioning transfers better than naive mixing", above, new, METHOD, NAIVE, GROUPS[1]),
        compared("Two prefixes add to batches of one kind", above, new, METHOD, APART, GROUPS[1]),
        compared("Batches of one kind add to two prefixes", above, new, METHOD, MIXED, GROUPS[1]),
        compared(
            "At test the captions' prefix transfers better than the classes'", above, new, METHOD, WRONG, GROUPS[1]
        ),
    ]
    lost = lead(old[METHOD], old[NAIVE])
    text = f"{mean_of(old[METHOD])} against {mean_of(old[NAIVE])}; difference {lost}"
    rule = "interval of the difference from naive mixing not wholly below 0"
    made.append(
        Claim("Nothing is lost on the named classes", rule, text, verdict(not lost.below), len(old[METHOD]), GROUPS[0])
    )
    return made


def compared(claim: str, rule: str, found: dict[str, list[float]], one: str, other: str, section: str) -> Claim:
    difference = lead(found[one], found[other])
    text = f"{mean_of(found[one])} against {mean_of(found[other])}; difference {difference}"
    return Claim(claim, rule, text, verdict(difference.above, difference.value > 0), len(found[one]), section)


if __name__ == "__main__":
    main()
