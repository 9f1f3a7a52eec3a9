"""FocalLens: does an instruction make an embedding better for what is asked, trained or not?

    python reproductions/focallens.py --train fashion/train.csv --test fashion/test.csv --groceries grocery --out f.json
    python reproductions/focallens.py --drawn 40        # a minute, no pictures needed

Zhang et al. 2025 (arXiv 2504.08368); no code is published. The tables have a column `image` and one for each of five
attributes. The encoder's last layers learn from answers to instructions in six wordings each; three more wordings are
used for the test only. Then each attribute in turn is left out of training, once with the other four, and once also
with attributes that need no labels (light, vivid, tall, large) and the article's category. Drawn pictures have two
objects each, and the instruction names one; or they have six known factors with instructions composed of words, and one
factor is left out. Takes an hour on two shared cores; a stopped run continues. To measure the world of factors alone
and add it to an existing report (ten minutes):

    python reproductions/focallens.py --factors 600 --out reproductions/results/focallens.json
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from claims import (
    COMMIT,
    Claim,
    Interval,
    Report,
    command,
    deliver,
    lead,
    machine,
    mean_of,
    parser,
    read_report,
    verdict,
)
from factor_world import FACTORS, LEFT_OUT, draw_factors
from instructed_arms import Found, Scoring, Set, Taught, averaged, look, mean
from instructed_world import COLOURS, GROCERIES, TWO, asked_of_groceries, draw, draw_two, without_labels
from torch.nn.functional import normalize

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.encoders.names import own_vectors
from seewhy.learning.api import ByInstructions

NAME = "focallens"
N_SEEDS = 3
N_HEARD = 6
"""Wordings of each attribute that are taught; the others are asked alone."""
FASHION = {
    "baseColour": (
        "the colour", "what colour is it?", "its colour", "which colour does it have?", "the main colour",
        "in what colour is it made?", "name the colour of this", "colour", "which hue is it?",
    ),
    "articleType": (
        "the kind of article", "what kind of thing is it?", "its kind", "what is it?", "the type of product",
        "what type of garment or accessory is it?", "name the article", "article type", "what sort of item is shown?",
    ),
    "gender": (
        "who it is for", "for whom is it made?", "its wearer", "which people wear it?", "the gender it is made for",
        "is it for men or for women?", "name the people it is sold to", "gender", "whom is it meant for?",
    ),
    "season": (
        "the season", "for which season is it?", "its time of year", "when in the year is it worn?",
        "the season of the collection", "in what season does one wear it?", "name the season", "season",
        "the part of the year it is for",
    ),
    "usage": (
        "the occasion", "on which occasion is it worn?", "its use", "what is it worn for?", "the purpose",
        "for what kind of event is it?", "name the occasion", "usage", "where does one wear it?",
    ),
}  # fmt: skip
BESIDE = {
    "light": ("how light it is", "is it light or dark?", "its brightness", "the lightness"),
    "vivid": ("how vivid it is", "is it colourful or grey?", "its saturation", "the vividness"),
    "tall": ("its outline", "is it tall or wide?", "the shape", "the proportions"),
    "large": ("its size in the picture", "how large is it?", "the size", "how much of the picture it fills"),
    "masterCategory": ("the category", "what category is it?", "its class", "the general kind of thing"),
}
"""What is taught beside: four of pixels alone, cut into thirds, and a coarse category."""
DRAWN = {
    "colour": FASHION["baseColour"],
    "shape": ("the shape", "what shape is it?", "its shape", "its form", "the outline", "which figure is it?", "form"),
}
WITHOUT = "the picture"
SIX = "The world of six factors"
WITHOUT_ONE = "six factors, one left out"


class Kept:
    """What was computed, in a folder beside the report, so that a run that was stopped goes on."""

    def __init__(self, out: Path | None) -> None:
        self.folder, self.seconds = None if out is None else out.with_suffix(".parts"), 0.0

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is None or not path.exists():
            begun = time.perf_counter()
            made = {"made": make(), "seconds": time.perf_counter() - begun}
            print(f"{name}: {made['seconds']:.0f} s", flush=True)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(made), "utf-8")
        else:
            made = json.loads(path.read_text("utf-8"))
        self.seconds += made["seconds"]
        return made["made"]


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__, NAME)
    options.add_argument("--train", type=Path, help="a table of pictures and attributes")
    options.add_argument("--test", type=Path, help="the same of other pictures")
    options.add_argument("--groceries", type=Path, help="a folder with train/, test/ and classes.csv")
    options.add_argument("--drawn", type=int, help="so many drawn pictures in place of photographs")
    options.add_argument("--every", type=int, default=1, help="1: all pictures of both tables; 2: every second; …")
    options.add_argument("--two", type=int, default=400, help="drawn pictures of two things each")
    options.add_argument("--factors", type=int, default=600, help="drawn pictures of six factors; half as many to test")
    options.add_argument("--through", type=int, default=4, help="of those, in a batch, through the changed layers")
    options.add_argument("--epochs", type=int, default=12)
    return deliver(options, lambda args: run(args, given), given)


def run(args: argparse.Namespace, given: Sequence[str] | None) -> Report:
    on, asked, kept = find("lite0"), DRAWN if args.drawn else FASHION, Kept(args.out)
    below = ByInstructions(asked).begun(on).below
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        composed = factors(on, below, folder, args, kept)
        if not (args.train or args.drawn):
            return with_factors(read_report(args.out), composed, args, command(NAME, given), kept.seconds)
        if args.drawn:
            args.train, args.test = (draw(folder / n, args.drawn, s) for s, n in enumerate(("train", "test")))
        both = [read(below, table, [*asked]) for table in (args.train, args.test)]
        train, test = (one.some(range(0, len(one.seen), args.every)) for one in both)
        numbers: dict[str, Found] = {"fashion": taught(on, train, test, asked, args, kept)}
        numbers["left out"] = left_out(on, train, test, asked, args, kept)
        numbers["two things"] = two_things(on, below, folder, args, kept)
        if args.groceries:
            own, other = (asked_of_groceries(args.groceries, part) for part in ("train", "test"))
            sets = [Set(look(below, paths)[0], answers) for paths, answers in (own, other)]
            numbers["groceries"] = taught(on, *sets, GROCERIES, args, kept, "groceries", n_seeds=1)
    return Report(
        NAME,
        "Does an instruction make an embedding better for what is asked?",
        "Zhang et al. 2025, arXiv:2504.08368",
        f"{len(train.seen):,} training and {len(test.seen):,} test "
        + ("drawn pictures" if args.drawn else "fashion product photographs (Kaggle 'Fashion Product Images')")
        + f", {len(asked)} attributes; photographs of groceries; {args.two} drawn pictures of two things",
        f"lite0 and its words, frozen; its last four convolutions modulated, {args.epochs} epochs, {N_SEEDS} seeds",
        command(NAME, given),
        machine(),
        round(kept.seconds, 1),
        args.seed,
        (*claims(numbers, len(test.seen)), *claims_of_factors(composed)),
        DIFFERENCES,
        rounded({**numbers, **composed}),
    )


def with_factors(
    before: Report, found: dict[str, Found], args: argparse.Namespace, typed: str, seconds: float
) -> Report:
    """The report of an earlier run, with the world of factors in it, and nothing else changed."""
    own = f"{SIX} was run alone, after the rest: "
    told = f"{own}`{typed} --out reproductions/results/{NAME}.json`, {seconds / 60:.0f} minutes, commit {COMMIT}; "
    told += f"{2 * args.epochs} epochs, {args.through} pictures of a batch went through the changed layers."
    return replace(
        before,
        data=before.data.split(f"; {SIX.lower()}")[0]
        + f"; {SIX.lower()}: {args.factors} and {args.factors // 2} pictures",
        claims=(*(c for c in before.claims if not c.section.startswith("six factors")), *claims_of_factors(found)),
        differences=(*(d for d in before.differences if not d.startswith(own)), told),
        numbers={**before.numbers, **rounded(found)},
    )


def rounded(numbers: dict[str, Found]) -> dict[str, Any]:
    return {
        name: {a: {arm: mean_of(v).rounded() for arm, v in arms.items()} for a, arms in found.items()}
        for name, found in numbers.items()
    }


def read(below: Encoder, table: Path, columns: list[str]) -> Set:
    """Look at a table's pictures; NA is no answer."""
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [table.parent / row["image"] for row in rows]
    seen, kept = look(below, paths)
    answers = {c: ["" if rows[i][c] == "NA" else rows[i][c].lower() for i in kept] for c in columns}
    answers |= without_labels([paths[i] for i in kept])
    if "masterCategory" in rows[0]:
        answers["masterCategory"] = [rows[i]["masterCategory"].lower() for i in kept]
    return Set(seen, answers)


def taught(
    on: Encoder, train: Set, test: Set, asked: dict[str, tuple[str, ...]], args: argparse.Namespace, kept: Kept,
    name: str = "fashion", n_seeds: int = 0,
) -> Found:  # fmt: skip
    """All attributes are taught, and every control."""
    heard = {a: said[:N_HEARD] for a, said in asked.items()}

    def one(seed: int) -> Found:
        trained = Taught(on, train, heard, seed, epochs=args.epochs, n_through=4)
        alone = Taught(on, train, heard, seed, epochs=args.epochs, n_through=0)
        untold = Taught(on, train, dict.fromkeys(asked, (WITHOUT,)), seed, epochs=args.epochs, n_through=4)
        blank = trained.part.below.encode(on.pixels([np.full((*on.transform.input_size, 3), 128, np.uint8)])).pooled
        plain, found = trained.part.plain(test.seen), {}
        for a, said in asked.items():
            score = Scoring(on, train.answers[a], test.answers[a])
            own, own_alone = (score(which.under(said[0], test.seen)) for which in (trained, alone))
            others = [trained.under(words[0], test.seen) for b, words in asked.items() if b != a]
            found[a] = {
                "own": own[1],
                "plain": score(plain)[1],
                "shuffled": mean([score(pooled)[1] for pooled in others]),
                "no instruction": score(untold.under(WITHOUT, test.seen))[1],
                "projection alone": own_alone[1],
                **{f"wording {k}": score(trained.under(w, test.seen))[1] for k, w in enumerate(said[N_HEARD:], 1)},
                "named": own[0],
                "named, blank": score(trained.under(said[0], blank).expand(len(test.seen), -1))[0],
                "named, shuffled": mean([score(pooled)[0] for pooled in others]),
                "named by the projection alone": own_alone[0],
            }
        return found

    seeds = range(args.seed, args.seed + (n_seeds or N_SEEDS))
    return averaged([kept(f"{name} {seed}", lambda s=seed: one(s)) for seed in seeds])


def left_out(
    on: Encoder, train: Set, test: Set, asked: dict[str, tuple[str, ...]], args: argparse.Namespace, kept: Kept
) -> Found:
    """The same of an attribute that is in nothing that was taught."""
    beside = {a: said for a, said in BESIDE.items() if a in train.answers}

    def one(a: str, seed: int) -> dict[str, list[float]]:
        others = {b: said[:N_HEARD] for b, said in asked.items() if b != a}
        score, found = Scoring(on, [], test.answers[a]), {}
        for name, more in (("", {}), (", more taught", beside)):
            trained = Taught(on, train, {**others, **more}, seed, epochs=args.epochs, n_through=4)
            found["plain"] = score(trained.part.plain(test.seen))[1]
            own, *wordings = (score(trained.under(w, test.seen))[1] for w in (asked[a][0], *asked[a][N_HEARD:]))
            found |= {f"own{name}": own, f"other wordings{name}": mean(wordings)}
            found[f"as if taught{name}"] = score(trained.as_if_taught().under(asked[a][0], test.seen))[1]
        return found

    seeds = range(args.seed, args.seed + N_SEEDS)
    return averaged([{a: kept(f"left out {a} {s}", lambda a=a, s=s: one(a, s)) for a in asked} for s in seeds])


def factors(on: Encoder, below: Encoder, folder: Path, args: argparse.Namespace, kept: Kept) -> dict[str, Found]:
    """A world of six factors: all are taught, then one is left out, whose instruction is composed of taught words."""
    parts = (("six train", args.factors, 0), ("six test", args.factors // 2, 1))

    @cache
    def sets() -> list[Set]:
        drawn = [draw_factors(folder / name, n, s) for name, n, s in parts]
        return [Set(look(below, paths)[0], answers) for paths, answers in drawn]

    def one(out: str, seed: int) -> Found:
        train, test = sets()
        heard = {a: said[:N_HEARD] for a, said in FACTORS.items() if a != out}
        trained = Taught(on, train, heard, seed, epochs=2 * args.epochs, n_through=args.through)
        return {a: of_factor(on, trained, test, a) for a in ([out] if out else FACTORS)}

    seeds = range(args.seed, args.seed + N_SEEDS)
    made = [
        [kept(f"factors {args.through} without {a} {s}", lambda a=a, s=s: one(a, s)) for a in ("", *LEFT_OUT)]
        for s in seeds
    ]
    apart = [{a: found for one in several for a, found in one.items()} for _, *several in made]
    found = {"six factors": averaged([several[0] for several in made]), WITHOUT_ONE: averaged(apart)}
    likest = likest_other(on)
    return {s: {a: {**v, "likest": v[f"under the {likest[a]}"]} for a, v in of.items()} for s, of in found.items()}


def likest_other(on: Encoder) -> dict[str, str]:
    """Of each factor the other whose instruction is the likest sentence."""
    sentences = normalize(own_vectors(on.text, [said[0] for said in FACTORS.values()]), dim=1)
    best = (sentences @ sentences.T).fill_diagonal_(-1).argmax(1).tolist()
    return {a: [*FACTORS][k] for a, k in zip(FACTORS, best, strict=True)}


def of_factor(on: Encoder, trained: Taught, test: Set, a: str) -> dict[str, list[float]]:
    """One factor under its own instruction and the others', as it is trusted and as if it were taught."""
    score, said, trusted = Scoring(on, [], test.answers[a]), FACTORS[a], trained.as_if_taught()
    others = {f"under the {b}": score(trusted.under(w[0], test.seen))[1] for b, w in FACTORS.items() if b != a}
    return {
        "own": score(trained.under(said[0], test.seen))[1],
        "unheard": mean([score(trained.under(w, test.seen))[1] for w in said[N_HEARD:]]),
        "as if taught": score(trusted.under(said[0], test.seen))[1],
        "unheard, as if taught": mean([score(trusted.under(w, test.seen))[1] for w in said[N_HEARD:]]),
        "plain": score(trained.plain(test.seen))[1],
        "shuffled": mean([*others.values()]),
        **others,
        "strength": [trained.strength(said[0])],
        "strength, unheard": [trained.strength(w) for w in said[N_HEARD:]],
    }


def two_things(on: Encoder, below: Encoder, folder: Path, args: argparse.Namespace, kept: Kept) -> Found:
    """The instruction names one of two things: its colour is named, and the heat map lies on its side."""
    n_seen = args.two // 2

    def one(seed: int) -> Found:
        sets, sides = [], {}
        for name, n in (("train", args.two), ("test", n_seen)):
            (paths, answers), sides = draw_two(folder / f"{name} {seed}", n, 2 * seed + (name == "test"))
            sets.append(Set(look(below, paths)[0], answers))
        heard = {a: said[:N_HEARD] for a, said in TWO.items()}
        how: dict[str, Any] = {"batch_size": 64, "n_asked": 2, "epochs": 2 * args.epochs}
        found: Found = {"two things": {}}
        for arm, n_through in (("last layers", 32), ("projection alone", 0)):
            trained = Taught(on, sets[0], heard, seed, n_through=n_through, **how)
            for name, hit in asked_of_two(on, trained, sets[1], sides).items():
                found["two things"][f"{name}, {arm}"] = hit
        return found

    return averaged([kept(f"two things {s}", lambda s=s: one(s)) for s in range(args.seed, args.seed + N_SEEDS)])


def asked_of_two(on: Encoder, trained: Taught, test: Set, sides: dict[str, list[str]]) -> dict[str, list[float]]:
    """Of each thing: its colour named under its own instruction and under the others', and more heat on its side."""
    own: dict[str, list[float]] = {"named": [], "named, shuffled": [], "pointed": []}
    for a, said in TWO.items():
        score = Scoring(on, [*COLOURS], test.answers[a])
        own["named"] += score(trained.under(said[0], test.seen))[0]
        others = [score(trained.under(words[0], test.seen))[0] for b, words in TWO.items() if b != a]
        own["named, shuffled"] += mean(others)
        encoder, text = trained.encoder.under(said[0]), on.encode_text(score.own)
        features = encoder.beyond(test.seen[score.rows].float()).features.requires_grad_()
        with torch.enable_grad():
            cosine = (normalize(on.text.project(encoder.head(features)), dim=1) * text).sum(1)
            slope = torch.autograd.grad(cosine.sum(), features)[0]
        heat = (slope.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()  # Grad-CAM
        left = heat[:, :, :3].sum((1, 2)) > heat[:, :, 4:].sum((1, 2))
        own["pointed"] += [
            float((sides[a][i] == "left") == bool(is_left)) for i, is_left in zip(score.rows, left, strict=True)
        ]
    return own


ALL = "interval of the difference above 0 for every attribute; partly: for more than half of them"
TWO_OF_FIVE = "interval of the difference above 0 for two attributes or more; partly: for one"
NO_WORSE = "lower end of the interval of the difference above -.01 for every attribute; partly: for more than half"
DIFFERENCES = (
    "The last four convolutions of EfficientNet-Lite0, modulated, and a projection stand for a CLIP transformer that "
    "is trained with the instruction as a token; that form is built, and was tried on small transformers alone.",
    "Attributes of a table stand for LLaVA's instructions and answers. There is no code of the authors: closed forms "
    "were checked, an instruction without strength is the plain encoder bit for bit, and the loss is its formula.",
    "What is taught beside the other four attributes was chosen on 500 of the training pictures.",
    f"Mean over {N_SEEDS} seeds of each picture; intervals resample test pictures.",
)


def claims_of_taught(section: str, found: Found, n: int) -> list[Claim]:
    """What is claimed of attributes that were taught."""
    wordings = {a: [v for arm, v in arms.items() if arm.startswith("wording")] for a, arms in found.items()}
    found = {a: {**arms, "unheard": mean(wordings[a])} for a, arms in found.items()}
    return [
        compared(claim, f"{section}, taught", found, one, other, n, ALL)
        for claim, one, other in (
            ("An embedding under the instruction serves what is asked better than the plain one", "own", "plain"),
            ("Only the right instruction does it: those of the other attributes lose it", "own", "shuffled"),
            ("It is the instruction, not the training: better than the same without", "own", "no instruction"),
            ("Wordings that were never heard serve, too", "unheard", "plain"),
            ("The last layers add to what the projection does alone", "own", "projection alone"),
            ("Its word is the nearest, and of a blank picture it is not", "named", "named, blank"),
        )
    ]


def claims_of_factors(numbers: dict[str, Found]) -> list[Claim]:
    n = len(next(iter(numbers[WITHOUT_ONE].values()))["plain"])
    better = "A factor that was not taught, its instruction composed of words that were, is found better than without"
    return [
        compared(claim, section, numbers[section], one, other, n, ALL)
        for section, claim, one, other in (
            ("six factors", "Under its instruction a factor is found better than without any", "own", "plain"),
            (
                "six factors",
                "Only the right instruction does it: those of the other factors lose it",
                "own",
                "shuffled",
            ),
            ("six factors", "Better than under the likest other instruction", "own", "likest"),
            ("six factors", "Wordings that were never heard serve, too", "unheard", "plain"),
            (WITHOUT_ONE, better, "own", "plain"),
            (WITHOUT_ONE, "Also under wordings that were never heard", "unheard", "plain"),
            (WITHOUT_ONE, "It is found better where its instruction is trusted as if taught", "as if taught", "plain"),
            (WITHOUT_ONE, "Trusted so, better than under the other factors' instructions", "as if taught", "shuffled"),
            (WITHOUT_ONE, "And than under the likest of them: composed, not taken for it", "as if taught", "likest"),
            (WITHOUT_ONE, "Trusted so, better under unheard wordings", "unheard, as if taught", "plain"),
        )
    ]


def claims(numbers: dict[str, Found], n: int) -> list[Claim]:
    sections = (s for s in ("fashion", "groceries") if s in numbers)
    made = [claim for section in sections for claim in claims_of_taught(section, numbers[section], n)]
    found = numbers["left out"]
    for section, more in (("left out", ""), ("left out, things like it taught", ", more taught")):
        own, wordings = f"own{more}", f"other wordings{more}"
        claim = "An attribute that was not taught is found better under its instruction than without any"
        n = len(next(iter(found.values()))["plain"])
        made.append(compared(claim, section, found, own, "plain", n, TWO_OF_FIVE))
        made.append(compared("Nor is it found worse", section, found, own, "plain", n, NO_WORSE))
        made.append(compared("Nor under other wordings", section, found, wordings, "plain", n, NO_WORSE))
    two = numbers["two things"]
    for claim, one, other in (
        ("Of two things the one that is named is seen: its colour, not the other's", "named", "named, shuffled"),
        ("The last layers name it better than the projection alone", "named", "projection alone"),
        ("The heat map follows: more on the side of the thing that is named, beyond the projection's", "pointed", ""),
    ):
        left = f"{one}, last layers"
        right = "named, shuffled, last layers" if "shuffled" in other else f"{one}, projection alone"
        made.append(compared(claim, "two drawn things", two, left, right, len(two["two things"][left]), ALL))
    return made


def compared(claim: str, section: str, found: Found, one: str, other: str, n: int, rule: str) -> Claim:
    leads: dict[str, Interval] = {a: lead(arms[one], arms[other]) for a, arms in found.items()}
    told = "; ".join(
        f"{a} {fmean(found[a][one]):.3f} against {fmean(found[a][other]):.3f}, {x}" for a, x in leads.items()
    )
    fit = sum(x.low > (-0.01 if rule is NO_WORSE else 0) for x in leads.values())
    shown, partly = (fit >= 2, fit == 1) if rule is TWO_OF_FIVE else (fit == len(leads), fit > len(leads) / 2)
    return Claim(claim, rule, told, verdict(shown, partly), n, section)


if __name__ == "__main__":
    main()
