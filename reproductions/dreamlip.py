"""DreamLIP: do several captions of a picture at once teach more than one, where both read as much text?

    python reproductions/dreamlip.py --n-planted 200 --steps 20     # seconds, and no pictures needed
    python reproductions/dreamlip.py --pairs flickr8k/train.jsonl --test flickr8k/dev.jsonl --store seen.sqlite \\
        --out dreamlip.json

Zheng et al. 2024 (arXiv 2403.17007), the loss over several captions alone. Both towers stay frozen and are asked once;
a linear layer behind each is trained. Equal text: an arm with K captions of a picture at once makes a K-th of the
steps, so that as many captions are read. Each arm's rate of learning is chosen on the even pictures of --test with the
first seed; the odd ones report. Written before the run: a difference of R@5, text to picture, is shown above 0 with
its whole interval, not shown below 0 with its whole interval, else too small to tell. Once everything is in the
store: some five minutes on one busy core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from captioned import (
    BATCH,
    WIDTH,
    Captioned,
    Kept,
    Material,
    found_by_caption,
    learn,
    material,
    options,
    over_seeds,
    recipe,
)
from claims import JUDGED, Claim, Report, command, deliver, judged, lead, machine, mean_of, parser

from seewhy.learning.objectives.regional import DreamLIP

K = 5
"""Captions of a picture, all at once."""
FEWER = (2, 3)
RATES = (5e-4, 1.5e-3, 5e-3, 1.5e-2)
"""Of learning; chosen for each arm."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        captions: ``"all"`` of a picture's; ``"one"``, drawn once and kept; ``"one and others'"``, that one and K - 1 of
            other pictures.
        at_once: of a picture, that are compared with it in one step.
        share: of the pictures.
        equal: whether its steps are fewer by as much as it reads more at once.
        fewer: what its steps are divided by besides.
    """

    captions: str = "all"
    at_once: int = 1
    share: float = 1.0
    equal: bool = True
    fewer: int = 1

    def steps(self, budget: int) -> int:
        return max(1, budget // ((self.at_once if self.equal else 1) * self.fewer))


ONE, DRAWN, ALL, FIFTH, OTHERS, LONGER, SHORTER = (
    "one caption that stays",
    "one drawn",
    f"{K} at once",
    f"all captions of 1/{K} of the pictures",
    "one and others' at once",
    f"{K} at once, as many steps",
    "one drawn, a third of the steps",
)
ARMS = {
    ONE: Arm("one"),
    DRAWN: Arm(),
    **{f"{k} at once": Arm(at_once=k) for k in (*FEWER, K)},
    FIFTH: Arm(share=1 / K),
    OTHERS: Arm("one and others'", at_once=K),
    LONGER: Arm(at_once=K, equal=False),
    SHORTER: Arm(fewer=3),
}


def given(data: Captioned, arm: Arm, seed: int) -> Captioned:
    """The pictures and captions that an arm is trained on."""
    rng = np.random.default_rng(seed)
    first = [one[int(rng.integers(len(one)))] for one in data.said]
    if arm.captions == "one":
        data = data.saying([[row] for row in first])
    if arm.captions == "one and others'":
        n = len(first)
        shifts = 1 + rng.permutation(n - 1)[: K - 1]
        order = rng.permutation(n)
        at = np.argsort(order)
        data = data.saying([
            [row, *(first[order[(at[i] + s) % n]] for s in shifts)] for i, row in enumerate(first)
        ])  # fmt: skip
    return data.cut(rng.permutation(len(data))[: round(arm.share * len(data))].tolist()) if arm.share < 1 else data


def trained(stuff: Material, arm: Arm, budget: int, lr: float, seed: int) -> dict[str, list[float]]:
    """Of each picture of either half, R@5 of its captions."""
    data = given(stuff.train, arm, seed)
    how = recipe(arm.steps(budget), seed, lr=lr, batch=min(BATCH, len(data) // 2))
    space = learn(data, DreamLIP(n_texts=arm.at_once, spans="text"), how)
    return {"choosing": found_by_caption(space, stuff.choosing), "reported": found_by_caption(space, stuff.reported)}


COMPARED = (
    *((f"{k} captions at once teach more than one drawn, where both read as much", f"{k} at once", DRAWN,
       "at equal text") for k in (*FEWER, K)),
    ("Different captions teach more than the same one again and again, as often", DRAWN, ONE, "at equal text"),
    (f"{K} captions of each of 1/{K} of the pictures teach more than one of each of all", FIFTH, ONE, "at equal text"),
    (f"{K} captions at once teach more than one drawn in as many steps, {K} times the text", LONGER, DRAWN,
     "at equal steps"),
    ("3 captions at once teach more than one drawn in as many steps, 3 times the text", "3 at once", SHORTER,
     "at equal steps, added after the first run"),
    (f"{K} captions at once teach more where they are the picture's own than where {K - 1} are of others", ALL, OTHERS,
     "control"),
    (f"{K - 1} captions of others beside its own teach less than its own alone", ONE, OTHERS, "control"),
)  # fmt: skip
"""Claim, arm, arm it is to be above, section."""


def recall_claims(arms: dict[str, list[float]], steps: dict[str, int]) -> list[Claim]:
    """By the rule that stands beside each."""
    found = []
    for said, arm, rival, section in COMPARED:
        over = lead(arms[arm], arms[rival])
        found.append(
            Claim(said, f"R@5, {arm} less {rival}; {JUDGED}",
                  f"{over}; R@5 {np.mean(arms[arm]):.3f} in {steps[arm]} steps and {np.mean(arms[rival]):.3f} in "
                  f"{steps[rival]}", judged(over), len(arms[arm]), section)
        )  # fmt: skip
    return found


def run(args: Any) -> Report:
    stuff = material(args)
    kept = Kept(args.out, f"{len(stuff.train)} {args.steps}")
    arms, rates, by_seed = {}, {}, {}
    for name, arm in ARMS.items():

        def at(lr: float, seed: int, name: str = name, arm: Arm = arm) -> dict[str, list[float]]:
            return kept.get(f"{name} {lr:g} {seed}", partial(trained, stuff, arm, args.steps, lr, seed))

        rates[name] = max(RATES, key=lambda lr: np.mean(at(lr, args.seed)["choosing"]))
        runs = [at(rates[name], seed)["reported"] for seed in range(args.seed, args.seed + args.seeds)]
        arms[name] = over_seeds(runs)
        by_seed[name] = [round(float(np.mean(one)), 4) for one in runs]
    steps = {name: arm.steps(args.steps) for name, arm in ARMS.items()}
    numbers = {
        "R@5": {name: mean_of(values).rounded() for name, values in arms.items()},
        "R@5 by seed": by_seed,
        "rates chosen": rates,
        "steps": steps,
        "chance": 5 / len(stuff.reported),
    }
    return Report(
        "dreamlip", "Do several captions of a picture at once teach more than one, at equal text?",
        "Zheng et al. 2024, arXiv:2403.17007", stuff.about(),
        f"{args.encoder}, frozen; a linear layer to {WIDTH} numbers behind each tower, {args.steps} captions of each "
        f"of {BATCH} pictures in all, {args.seeds} trainings, each arm's rate of {RATES[0]:g} to {RATES[-1]:g} chosen",
        command("dreamlip"), machine(), round(kept.seconds, 1), args.seed, tuple(recall_claims(arms, steps)),
        ("Linear layers behind frozen towers on 6,000 pictures, not two networks on 30 million",
         "Five short captions that people wrote, not long ones of a language model cut into sentences",
         "The loss over several captions alone: no regions, so no grouping loss",
         "As much text is as many captions; which of a picture's is drawn does not depend on its length",
         "At equal text, more captions at once are fewer steps and fewer looks at each picture; arms of many steps "
         "took the lowest rate offered, so they may be trained too long: the arm of a third of the steps, and its "
         "claim, were added after the first run to see that",
         "Where one caption of each picture is kept, another is kept in each of the trainings",
         "Intervals resample test pictures, not trainings; what the towers saw was in the store, not in the time"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    made = options(parser(__doc__ or "", "dreamlip"))
    made.set_defaults(steps=300)
    return deliver(made, run, arguments)


if __name__ == "__main__":
    main()
