"""Prefix conditioning: do class names and captions train better together when a prefix marks them?

    python reproductions/prefix_conditioning.py --train fashion/train.csv --test fashion/test.csv --out prefix.json
    python reproductions/prefix_conditioning.py --draws 1 --world-steps 10     # a small look, and no pictures needed

Saito et al. 2023 (arXiv 2206.01125). Two tests. In a drawn world (`two_sources.py`) both encoders are trained from
scratch. Pictures with class names have the background of their class, those with captions any background; pictures on
any background are then named among all classes. With tables of the columns `image`, `text` (a title) and `articleType`,
a pretrained text half is tuned: half of the training pictures have class names, from the twelve commonest classes only,
and the others have titles. Arms at equal pairs and steps: one prefix for both kinds in mixed batches (naive mixing),
the same in separate batches, two prefixes in mixed batches, and the method. Takes ten minutes on one idle core; a
stopped run of the drawn world continues.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Report, command, deliver, lead, machine, mean_of, parser, verdict
from power import Compared, compared, interval, rule
from torch import Tensor
from torch.nn.functional import normalize
from two_sources import ALONE, APART, ARMS, METHOD, MIXED, N_NAMED, N_TEST, N_TOLD, NAIVE, NEW, OLD, SAID, SHOP, examine

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.learning.api import ByClassesAndCaptions, two_kinds
from seewhy.learning.contrast import Drawn
from seewhy.learning.encoders.towers import PrefixedWords
from seewhy.learning.objectives.pairs import Prefix
from seewhy.storage.features import FeatureStore
from seewhy.storage.output import write_atomic
from seewhy.training.loop import train

NAME = "prefix_conditioning"
N_COMMON = 12
"""Classes that have names in training, the commonest."""
LEAST = 5
"""Test pictures of a class that is tested."""
WRONG = "prefix, read as classes"
BEFORE = "before training"
GROUPS = ("classes with names in training", "classes that only titles told of")


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__, NAME)
    options.add_argument("--draws", type=int, default=6, help="of the drawn world")
    options.add_argument("--world-steps", type=int, default=300, help="batches of 64 pairs in the drawn world")
    options.add_argument("--train", type=Path, help="a table of pictures, titles and classes")
    options.add_argument("--test", type=Path, help="the same of other pictures")
    options.add_argument("--size", type=int, default=480, help="training pictures, both halves together")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--seeds", type=int, default=3)
    return deliver(options, lambda args: run(args, given), given)


def run(args: argparse.Namespace, given: Sequence[str] | None) -> Report:
    begun = time.perf_counter()
    drawn, earlier = world(args)
    told, about, numbers = (), ("", ""), {}
    if args.train and args.test:
        told, about, numbers = fashion(args)
    return Report(
        NAME,
        "Do class names and captions learn better together when a prefix tells them apart?",
        "Saito et al. 2023, arXiv:2206.01125",
        f"drawn cloths of 16 weaves, {N_NAMED} with one of 8 class names and {N_TOLD} with captions for training, "
        f"{N_TEST} others to measure on, {args.draws} draws{about[0]}",
        f"a small residual network and a transformer layer over words, both from nothing, {args.world_steps} steps of "
        f"64 pairs{about[1]}",
        command(NAME, given),
        machine(),
        round(time.perf_counter() - begun + earlier, 1),
        args.seed,
        (*world_claims(drawn), *told),
        (
            "Thousands of drawn or some hundred real pairs; the paper has millions.",
            "No figure of the paper could be verified: the effect that is planted is a tenth of the other's errors.",
            "Naive mixing has one prefix for both kinds, so that all arms have as many weights.",
            "Noise, number of pictures and steps were set on draws that are not reported, so that the method "
            "names most pictures right there.",
            "With the real pictures a pretrained words half is tuned, the picture half is frozen, and the paper's "
            "templates are left out, as the encoder has none.",
            "In the drawn world, intervals are Student's over draws of the world and the first weights; with real "
            "pictures, of the mean over seeds of each test picture, resampled.",
        ),
        {"drawn world": {name: interval(values).rounded() for name, values in drawn.items()}, **numbers},
    )


def world(args: argparse.Namespace) -> tuple[dict[str, list[float]], float]:
    """What was measured, of each draw, and the seconds of earlier runs; what one left beside the report is taken."""
    found: dict[str, list[float]] = {}
    seconds = 0.0
    for seed in range(args.seed, args.seed + args.draws):
        for arm in ARMS:
            begun, settings = time.perf_counter(), f"{arm}-{seed}-{args.world_steps}".replace(" ", "_")
            kept = None if args.out is None else args.out.parent / f".{args.out.stem}.parts" / f"{settings}.json"
            if kept is not None and kept.exists():
                one = json.loads(kept.read_text("utf-8"))
                seconds += one["seconds"]
            else:
                one = {"right": examine(arm, seed, args.world_steps), "seconds": time.perf_counter() - begun}
                print(seed, one, flush=True)
                if kept is not None:
                    kept.parent.mkdir(exist_ok=True)
                    write_atomic(kept, json.dumps(one))
            for name, value in one["right"].items():
                found.setdefault(name, []).append(value)
    return found, seconds


def world_claims(found: dict[str, list[float]]) -> list[Claim]:
    """The method beside naive mixing, its parts, the other prefix, and what else could explain it."""
    rows = (
        ("Prefix conditioning transfers better than naive mixing", METHOD, NAIVE, NEW),
        ("Prefix conditioning transfers better than naive mixing", METHOD, NAIVE, OLD),
        ("Two prefixes add to batches of one kind", METHOD, APART, NEW),
        ("Batches of one kind add to two prefixes", METHOD, MIXED, NEW),
        ("Two prefixes add to mixed batches", MIXED, NAIVE, NEW),
        ("Two prefixes add to mixed batches", MIXED, NAIVE, OLD),
        ("At test the captions' prefix transfers better than the classes'", METHOD, WRONG, NEW),
        ("At test the captions' prefix transfers better than the classes'", METHOD, WRONG, OLD),
        ("The classes' prefix is better on pictures of the first source", WRONG, METHOD, SHOP),
        ("Control: both sources teach more than captions alone, at equal steps", METHOD, ALONE, NEW),
        ("Control: it is not for the words of the question, as naive mixing asked in the words of captions is worse",
         METHOD, NAIVE + SAID, NEW),
    )  # fmt: skip
    made = []
    for claim, one, rival, group in rows:
        test = compared(found[f"{one}: {group}"], found[f"{rival}: {group}"])
        made.append(of_test(claim, test, len(found[f"{one}: {group}"]), f"drawn world, {group}"))
    return made


def of_test(claim: str, test: Compared, n: int, section: str) -> Claim:
    return Claim(claim, rule(), str(test), test.verdict, n, section, interval=test.found)


def fashion(args: argparse.Namespace) -> tuple[tuple[Claim, ...], tuple[str, str], dict[str, Any]]:
    """The claims on real pictures, what is said of data and model, and the numbers."""
    on = find("lite0")
    train, test = (read(on, table) for table in (args.train, args.test))
    common = [name for name, _ in Counter(row["articleType"].lower() for row, _ in train).most_common(N_COMMON)]
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
    about = (
        f"; fashion product photographs (Kaggle 'Fashion Product Images'): {args.size} for training, half of them with "
        f"one of {N_COMMON} class names, half with a title; {sum(len(v[METHOD]) for v in right.values())} test "
        f"pictures of {len(tested)} classes",
        f"; lite0, pictures frozen, its words half (MiniLM) trained for {args.epochs} epochs; {args.seeds} seeds",
    )
    numbers = {group: {arm: mean_of(v).rounded() for arm, v in arms_.items()} for group, arms_ in right.items()}
    return tuple(claims(right)), about, numbers


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
    section, n = f"real pictures, {GROUPS[1]}", len(new[METHOD])
    made = [
        of_test(claim, compared(new[METHOD], new[rival], pictures=True), n, section)
        for claim, rival in (
            ("Prefix conditioning transfers better than naive mixing", NAIVE),
            ("Two prefixes add to batches of one kind", APART),
            ("Batches of one kind add to two prefixes", MIXED),
            ("At test the captions' prefix transfers better than the classes'", WRONG),
        )
    ]
    lost = lead(old[METHOD], old[NAIVE])
    text = f"{mean_of(old[METHOD])} against {mean_of(old[NAIVE])}; difference {lost}"
    said = "Nothing is lost on the named classes", "interval of the difference from naive mixing not wholly below 0"
    section = f"real pictures, {GROUPS[0]}"
    return [*made, Claim(*said, text, verdict(not lost.high < 0), len(old[METHOD]), section, interval=lost)]


if __name__ == "__main__":
    main()
