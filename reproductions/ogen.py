"""OGEN: does a learnt prompt lose classes it never saw, the longer it learns, and do made features keep them?

    python reproductions/ogen.py --train grocery/train --test grocery/test --out ogen.json
    python reproductions/ogen.py --train TRAIN --test TEST --classes 8 --epochs 4 --seeds 1     # a small look

Zang et al. 2024 (arXiv 2401.15914). Class folders of training and test pictures; some classes are taken, evenly, the
first half of these is learnt from a few pictures each, the second half is only named. Pictures are looked at once.
After every few epochs the accuracy on learnt classes among their names, and on new classes among theirs. Arms: the
prompt alone (CoOp); with the generator, no name beyond the classes' own; with the new classes' names, as the authors'
code has it; with as many wrong names; with the names and noise in place of made features; and the prompt alone beside
an average of its past. About twenty minutes on two cores. With `--out`, a run that was stopped goes on from
`.part.json` beside it, after the last whole arm.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from claims import Claim, Report, command, deliver, judged, lead, machine, mean_of, parser
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.learning.adaptation.prompt_recipe import Lesson, PromptLearning
from seewhy.learning.adaptation.prompts import Names, PromptTask, as_it_was, image_vectors, opened
from seewhy.learning.adaptation.word_prompts import OGEN, CoOp, FeatureGenerator
from seewhy.pictures.samples import load_samples
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.storage.features import FeatureStore
from seewhy.storage.output import write_atomic
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import train

NAME = "ogen"
BEFORE, COOP, TEACHER = "zero-shot", "CoOp", "CoOp and a teacher"
MADE, NAMED, WRONG, NOISE = "OGEN", "OGEN, new names", "OGEN, wrong names", "noise, new names"
ARMS = (COOP, TEACHER, MADE, NAMED, WRONG, NOISE)
WRONG_NAMES = (
    "violin", "tractor", "lighthouse", "zebra", "helmet", "volcano", "sailboat", "armchair", "parrot", "bridge",
    "typewriter", "glacier", "hammer", "castle", "spider", "balloon", "canoe", "statue", "camera", "umbrella",
)  # fmt: skip
"""Of nothing that is sold in a grocery."""
EVERY = 3
"""Epochs between two looks at the test pictures."""


@dataclass(frozen=True, eq=False)
class World:
    """Pictures after one look, as unit vectors, with their labels among the learnt or the new classes."""

    on: Encoder
    base: tuple[str, ...]
    new: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: Mapping[str, tuple[Tensor, Tensor]]


class Noise(FeatureGenerator):
    """As many features that are made of nothing."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made: Tensor = super().forward(query, key, value)
        return normalize(torch.randn_like(made), dim=-1) + 0 * made


class TaughtCoOp(PromptTask):
    """The prompt alone, which also heeds a running average of its past (mean teacher, decay 0.9 an epoch)."""

    def __init__(self, task: PromptTask, steps_per_epoch: int) -> None:
        super().__init__(task.prompt, task.names, task.scale)
        self.steps_per_epoch, self.n_done, self.mean = steps_per_epoch, 0, task.prompt.vectors.detach().clone()
        with torch.no_grad():
            self.taught = task.names.read(self.mean)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        terms = dict(super().loss(features, batch))
        image, text = features
        said = (self.scale * image @ self.taught.T).log_softmax(1)
        own = (self.scale * image @ text.T).log_softmax(1)
        terms["loss"] = terms["loss"] + torch.nn.functional.kl_div(own, said, reduction="batchmean", log_target=True)
        return terms

    def after_step(self) -> None:
        self.n_done += 1
        if self.n_done % self.steps_per_epoch == 0:
            self.mean.lerp_(self.prompt.vectors.detach(), 0.1)
            self.taught = self.names.read(self.mean)


class Watch(Progress):
    """Looks at the test pictures after every few epochs."""

    def __init__(self, world: World, task: PromptTask, every: int) -> None:
        super().__init__()
        self.world, self.task, self.every = world, task, every
        self.names = {"learnt": task.names, "new": Names(opened(world.on), world.new)}
        self.curve: list[dict[str, Any]] = []

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        super().measured(step, terms)
        if step % self.every:
            return
        with torch.no_grad():
            text = {part: names.read(self.task.prompt.vectors) for part, names in self.names.items()}
        self.curve.append({"step": step, **right_of(self.world, text)})


def right_of(world: World, text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whether each test picture is told right, learnt classes among themselves and new ones among themselves."""
    return {part: ((x @ text[part].T).argmax(1) == y).double() for part, (x, y) in world.test.items()}


class Kept:
    """Arms that are finished, beside the report, each a curve with its seconds."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.path: Path | None = args.out and args.out.with_suffix(".part.json")
        self.settings = " ".join(map(str, (args.train, args.test, args.classes, args.shots, args.epochs)))
        there = self.path is not None and self.path.exists()
        self.done: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path and there else {}
        self.seconds = 0.0

    def get(self, seed: int, arm: str, learn: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The curve of an arm, learnt now or before."""
        key = f"{self.settings} {seed} {arm}"
        if key not in self.done:
            begun = time.perf_counter()
            curve = [
                {name: v.int().tolist() if isinstance(v, Tensor) else v for name, v in at.items()} for at in learn()
            ]
            self.done[key] = [curve, round(time.perf_counter() - begun, 2)]
            if self.path is not None:
                write_atomic(self.path, json.dumps(self.done))
        curve, seconds = self.done[key]
        self.seconds += seconds
        return [{n: torch.tensor(v).double() if isinstance(v, list) else v for n, v in at.items()} for at in curve]


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__, NAME)
    options.add_argument("--train", type=Path, required=True, help="class folders to learn from")
    options.add_argument("--test", type=Path, required=True, help="class folders to measure on")
    options.add_argument("--classes", type=int, default=32, help="classes taken, half of them learnt")
    options.add_argument("--shots", type=int, default=4)
    options.add_argument("--epochs", type=int, default=24)
    options.add_argument("--seeds", type=int, default=3)
    return deliver(options, lambda args: run(args, given), given)


def run(args: argparse.Namespace, given: Sequence[str] | None) -> Report:
    on, kept = find("lite0"), Kept(args)
    found: dict[str, list[list[dict[str, Any]]]] = {arm: [] for arm in ARMS}
    for seed in range(args.seed, args.seed + args.seeds):
        world = looked_at(on, args, seed)
        for arm in ARMS:
            found[arm].append(kept.get(seed, arm, lambda w=world, a=arm, s=seed: learnt(w, a, args, s)))
            last = found[arm][-1][-1]
            shares = ", ".join(f"{part} {float(last[part].mean()):.3f}" for part in world.test)
            print(f"seed {seed}, {arm}: {shares} after {kept.seconds:.0f} s", flush=True)
    tower = opened(on)
    zero = right_of(world, {"learnt": as_it_was(tower, world.base), "new": as_it_was(tower, world.new)})
    curves = {arm: means(several) for arm, several in found.items()}
    n = {part: len(y) for part, (_, y) in world.test.items()}
    return Report(
        NAME,
        "Does a learnt prompt lose classes it never saw, and do made features keep them?",
        "Zang et al. 2024, arXiv:2401.15914",
        f"Grocery Store photographs: {args.shots} of each of {len(world.base)} learnt classes; tested on {n['learnt']} "
        f"of these and {n['new']} of {len(world.new)} new classes",
        f"lite0 with MiniLM, both frozen, a prompt of 4 vectors, {args.epochs} epochs; {args.seeds} seeds",
        command(NAME, given),
        machine(),
        round(kept.seconds, 1),
        args.seed,
        tuple(claims(curves, zero)),
        (
            "One data set of look-alike groceries and a small encoder with a words half of its own; the paper has "
            "eleven data sets and CLIP ViT-B/16.",
            "Pictures are looked at once, without crops and flips.",
            "The teacher of OGEN is written from the paper; its weight and the form of its loss are ours.",
            "Mean over seeds of each picture; intervals resample test pictures.",
        ),
        numbers(curves, zero),
    )


def looked_at(on: Encoder, args: argparse.Namespace, seed: int) -> World:
    """Classes taken evenly, cut in two; a few training pictures of the first half."""
    samples, tests, store = load_samples(args.train), load_samples(args.test), FeatureStore()
    every = samples.classes
    chosen = tuple(every[i * len(every) // args.classes] for i in range(min(args.classes, len(every))))
    base, new = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    seen = encode_labelled(on, base, samples, store)
    generator = torch.Generator().manual_seed(seed)
    rows = [(seen.labels == k).nonzero()[:, 0] for k in range(len(base))]
    few = torch.cat([own[torch.randperm(len(own), generator=generator)[: args.shots]] for own in rows])
    test = {}
    for part, classes in (("learnt", base), ("new", new)):
        held = encode_labelled(on, classes, tests, store)
        test[part] = (image_vectors(on, held.pooled), held.labels)
    return World(on, base, new, (image_vectors(on, seen.pooled[few]), seen.labels[few]), test)


def learnt(world: World, arm: str, args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """The curve of one arm."""
    image, labels = world.train
    data, tower = TrainingData(len(image), {"image": image, "labels": labels}), opened(world.on)
    names = {NAMED: world.new, NOISE: world.new, WRONG: WRONG_NAMES[: len(world.new)]}.get(arm, ())
    how: PromptLearning = CoOp(epochs=args.epochs, seed=seed)
    if arm not in (COOP, TEACHER):
        how = OGEN(epochs=args.epochs, seed=seed, new_names=names)
    per_epoch = data.steps_per_epoch(how.batch_size)
    rate = CoOp().rate(world.on)
    lesson = Lesson(world.on, world.base, Names(tower, world.base), image, labels, args.epochs, per_epoch, rate)
    with seeded(seed):
        task = how.task(lesson)
        if arm == NOISE:
            task.generator = Noise(image.shape[1])  # type: ignore[assignment]
        if arm == TEACHER:
            task = TaughtCoOp(task, per_epoch)
    watch = Watch(world, task, EVERY * per_epoch)
    train(task, data, replace(how.training(world.on, per_epoch), part_lr=task.rates), progress=watch)
    return watch.curve


def means(several: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Over seeds, of each picture."""
    return [
        {"step": at[0]["step"], **{part: torch.stack([one[part] for one in at]).mean(0) for part in ("learnt", "new")}}
        for at in zip(*several, strict=True)
    ]


def claims(curves: Mapping[str, list[dict[str, Any]]], zero: Mapping[str, Tensor]) -> list[Claim]:
    """The pitfall, what flattens it, and whether a control does as well."""
    rule = "shown: above 0 with its whole interval; not shown: below 0 with its whole interval; too small to tell: else"

    def told(claim: str, one: Tensor, other: Tensor, what: str) -> Claim:
        difference = lead(one.tolist(), other.tolist())
        text = f"{what}: {mean_of(one.tolist())} against {mean_of(other.tolist())}; difference {difference}"
        return Claim(claim, f"difference {rule}", text, judged(difference), len(one))

    coop = curves[COOP]
    best = max(coop, key=lambda at: float(at["new"].mean()))
    last = {arm: curve[-1] for arm, curve in curves.items()}
    return [
        told(
            "The prompt learns its classes",
            last[COOP]["learnt"],
            zero["learnt"],
            "learnt classes, CoOp against zero-shot",
        ),
        told(
            "The longer it learns, the more it loses of new classes",
            coop[0]["new"],
            last[COOP]["new"],
            f"new classes, CoOp after {EVERY} epochs against the last",
        ),
        told(
            "In the end it is worse on new classes than no prompt",
            zero["new"],
            last[COOP]["new"],
            "new classes, zero-shot against CoOp",
        ),
        told(
            "OGEN, told no new name, keeps more of the new classes",
            last[MADE]["new"],
            last[COOP]["new"],
            "new classes, OGEN against CoOp",
        ),
        told(
            "OGEN, told the new names, keeps more of the new classes",
            last[NAMED]["new"],
            last[COOP]["new"],
            "new classes, OGEN with names against CoOp",
        ),
        told(
            "It is the names that help: wrong ones do less",
            last[NAMED]["new"],
            last[WRONG]["new"],
            "new classes, right names against wrong ones",
        ),
        told(
            "It is the made features that help: noise does less",
            last[NAMED]["new"],
            last[NOISE]["new"],
            "new classes, made features against noise",
        ),
        told(
            "OGEN does more than a teacher alone",
            last[NAMED]["new"],
            last[TEACHER]["new"],
            "new classes, OGEN with names against a teacher alone",
        ),
        told(
            "OGEN learns its own classes as well",
            last[NAMED]["learnt"],
            last[COOP]["learnt"],
            "learnt classes, OGEN with names against CoOp",
        ),
        told(
            "Stopping early does as well as OGEN",
            best["new"],
            last[NAMED]["new"],
            f"new classes, CoOp at its best step for them ({best['step']}, chosen on these pictures) against OGEN",
        ),
    ]


def numbers(curves: Mapping[str, list[dict[str, Any]]], zero: Mapping[str, Tensor]) -> dict[str, Any]:
    """Accuracies by step."""

    def share(x: Tensor) -> float:
        return round(float(x.mean()), 4)

    found: dict[str, Any] = {BEFORE: {part: share(x) for part, x in zero.items()}}
    for arm, curve in curves.items():
        found[arm] = {part: [share(at[part]) for at in curve] for part in ("learnt", "new")}
        b, n = found[arm]["learnt"][-1], found[arm]["new"][-1]
        found[arm]["harmonic mean"] = round(2 * b * n / max(b + n, 1e-9), 4)
    found["steps"] = [at["step"] for at in curves[COOP]]
    return found


if __name__ == "__main__":
    main()
