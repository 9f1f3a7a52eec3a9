"""DreamLIP: do sentences teach more than whole captions, and do groups of patches locate them?

    python reproductions/dreamlip.py --n-planted 200 --steps 20 --draws 1 --scene-steps 5     # seconds, no pictures
    python reproductions/dreamlip.py --pairs flickr8k/train.jsonl --test flickr8k/dev.jsonl --store seen.sqlite \\
        --out dreamlip.json

Zheng et al. 2024 (arXiv 2403.17007). Two tests. In drawn scenes (`grouped_scenes.py`), where every object's place is
known, both encoders are trained from scratch: on whole captions, on sentences that each name one object, and on these
with the grouping loss. With captioned pictures, only the loss over several captions is tested: both encoders are
frozen, and a linear layer behind each is trained. At equal text, an arm with K captions of a picture at once makes a
K-th of the steps, so that it reads as many captions. Each arm's learning rate is chosen on the even pictures of --test
with the first seed; the odd ones report. Takes a quarter of an hour on one idle core once everything is in the store.
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
from claims import Claim, Report, command, deliver, machine, mean_of, parser
from grouped_scenes import ARMS as SCENE_ARMS
from grouped_scenes import GROUPED, SAMPLED, WHOLE, examine
from power import YARDSTICK, Compared, compared, interval, rule

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
        test = compared(arms[arm], arms[rival], pictures=True)
        found.append(
            Claim(said, f"R@5 of {arm} less that of {rival}; {rule()}",
                  f"in {steps[arm]} and {steps[rival]} steps {test}", test.verdict, len(arms[arm]), section,
                  interval=test.found)
        )  # fmt: skip
    return found


VOC, COCO, IMAGENET, FLICKR = (
    ("VOC mIoU", 82.9, 84.5), ("COCO R@1", 40.8, 42.8), ("ImageNet", 30.1, 31.1), ("Flickr30k R@1", 56.6, 63.0)
)  # fmt: skip
"""The paper's ablation on CC3M as reading notes give it: without groups and with them; whole captions, sentences."""
SCENES = (
    ("With groups, the patch most like a sentence lies on the thing that it names more often", "pointing", GROUPED,
     SAMPLED, VOC),
    ("With groups, more patches are most like the name of what is on them", "patches", GROUPED, SAMPLED, VOC),
    ("With groups, more captions find their picture", "retrieval", GROUPED, SAMPLED, COCO),
    ("With groups, more things are named from the whole picture", "things", GROUPED, SAMPLED, IMAGENET),
    ("Sentences find more pictures than whole captions", "retrieval", SAMPLED, WHOLE, FLICKR),
    ("Sentences show where a thing is better than whole captions", "pointing", SAMPLED, WHOLE, None),
)  # fmt: skip
"""Claim, figure, arm, arm it is to be above, and the paper's."""


def scene_claims(found: dict[str, list[float]]) -> list[Claim]:
    """Of the drawn scenes; the paper's gain is carried over as the part of the errors that it takes away."""
    made = []
    for said, figure, arm, rival, paper in SCENES:
        share = YARDSTICK if paper is None else (paper[2] - paper[1]) / (100 - paper[1])
        told = "" if paper is None else f"{paper[0]} {paper[1]} to {paper[2]} (reading notes)"
        test = compared(found[f"{arm}: {figure}"], found[f"{rival}: {figure}"], share=share)
        made.append(_of_scenes(said, f"{figure}, {arm} less {rival}; {rule(share)}", test, found, told))
    test = compared(found[f"{GROUPED}: pointing"], found[f"{GROUPED}: misled"])
    said = "Control: it is the thing named, and not any thing, that the patch most like a sentence lies on"
    return [*made, _of_scenes(said, f"pointing less misled, {GROUPED}; {rule()}", test, found, "")]


def _of_scenes(said: str, rule_: str, test: Compared, found: dict[str, list[float]], paper: str) -> Claim:
    n = len(found[f"{GROUPED}: pointing"])
    return Claim(said, rule_, str(test), test.verdict, n, "drawn scenes", paper=paper, interval=test.found)


def drawn(args: Any, kept: Kept) -> dict[str, list[float]]:
    """Arm and figure → its value in each draw."""
    found: dict[str, list[float]] = {}
    for seed in range(args.seed, args.seed + args.draws):
        for arm in SCENE_ARMS:
            one = kept.get(f"scenes {arm} {args.scene_steps} {seed}", partial(examine, arm, seed, args.scene_steps))
            for figure, value in one.items():
                found.setdefault(f"{arm}: {figure}", []).append(value)
            print(seed, arm, one, flush=True)
    return found


def run(args: Any) -> Report:
    scene_kept = Kept(args.out, "")
    scenes = drawn(args, scene_kept) if args.draws else {}
    in_scenes = scene_claims(scenes) if scenes else []
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
        "drawn scenes": {name: interval(values).rounded() for name, values in scenes.items()},
        "R@5": {name: mean_of(values).rounded() for name, values in arms.items()},
        "R@5 by seed": by_seed,
        "rates chosen": rates,
        "steps": steps,
        "chance": 5 / len(stuff.reported),
    }
    return Report(
        "dreamlip", "Do sentences teach more than captions, and do groups of patches show where a sentence is seen?",
        "Zheng et al. 2024, arXiv:2403.17007",
        f"drawn scenes of two or three things, 1,500 to learn from and 500 to measure on, {args.draws} draws; "
        f"{stuff.about()}",
        f"drawn scenes: a small network with a transformer layer over 6 x 6 patches and one over words, from nothing, "
        f"{args.scene_steps} steps of 32 pictures; captions: {args.encoder}, frozen; a "
        f"linear layer to {WIDTH} numbers behind each tower, {args.steps} captions of each of {BATCH} pictures "
        f"in all, {args.seeds} trainings, each arm's rate of {RATES[0]:g} to {RATES[-1]:g} chosen",
        command("dreamlip"), machine(), round(kept.seconds + scene_kept.seconds, 1), args.seed,
        (*in_scenes, *recall_claims(arms, steps)),
        ("Drawn scenes: a sentence for each thing; none is wrong or of the whole picture, as those of language models",
         "Captions: linear layers behind frozen towers on 6,000 pictures, not two networks on 30 million",
         "Captions: five short ones that people wrote, not long ones of a language model cut into sentences; the loss "
         "over several captions alone, without patches",
         "As much text is as many captions; which of a picture's is drawn does not depend on its length",
         "At equal text, more captions at once are fewer steps and fewer looks at each picture; arms of many steps "
         "took the lowest rate offered, so they may be trained too long: the arm of a third of the steps, and its "
         "claim, were added after the first run to see that",
         "Where one caption of each picture is kept, another is kept in each of the trainings",
         "Drawn scenes: intervals are Student's over draws of the scenes and the first weights; their steps and noise "
         "were set on a draw that is not reported",
         "Captions: intervals resample test pictures, not trainings; what the towers saw was in the store, not in the "
         "time"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    made = options(parser(__doc__ or "", "dreamlip"))
    made.set_defaults(steps=300)
    made.add_argument("--draws", type=int, default=3, help="of the drawn scenes; 0 leaves them out")
    made.add_argument("--scene-steps", type=int, default=500, help="batches of 32 drawn scenes")
    return deliver(made, run, arguments)


if __name__ == "__main__":
    main()
