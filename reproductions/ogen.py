"""OGEN: does a learnt prompt lose classes it never saw, the longer it learns, and do made features keep them?

    python reproductions/ogen.py --grocery GROCERY --fashion FASHION --cifake CIFAKE --flickr FLICKR8K --out ogen.json
    python reproductions/ogen.py --grocery GROCERY --steps 12 --seeds 2                        # a small look

Zang et al. 2024 (arXiv 2401.15914). Of each set the first half of the classes is learnt from a few pictures each, the
second half is only named: groceries (every fourth kind), product photographs by type of article, the CIFAR-10
photographs of CIFAKE, and Flickr photographs whose captions agree on one of twelve words. Pictures are looked at once.
Arms: CoOp, PromptSRC, a linear classifier as `seewhy fit` has it, and OGEN: unknown names of the vocabulary (never the
new ones), with the new classes' names as the authors' code has it, with as many wrong names, without unknown classes,
and without its teacher. `--imagenet` has the set on which the settings were chosen, which is not reported. With
`--out`, a run that was stopped goes on from `.part.json` beside it, after the last whole arm.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from claims import JUDGED, Claim, Interval, Report, command, deliver, judged, machine, parser
from torch import Tensor

from seewhy.classifiers.certainty import linear_fit
from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.encoders.names import imagenet_classes
from seewhy.learning.adaptation.ogen import OGEN
from seewhy.learning.adaptation.prompt_recipe import Lesson, PromptLearning
from seewhy.learning.adaptation.prompts import Names, PromptTask, as_it_was, image_vectors, opened
from seewhy.learning.adaptation.word_prompts import CoOp, PromptSRC
from seewhy.pictures.samples import Sample, Samples
from seewhy.pictures.sources import list_pictures
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.storage.features import FeatureStore
from seewhy.storage.output import write_atomic
from seewhy.studies.base_to_new import ALL, HARMONIC, LEARNT, NEW, Right, values_of
from seewhy.studies.bootstrap import Error, Mean, mean_of
from seewhy.training.batches import TrainingData
from seewhy.training.loop import train
from seewhy.trust.measure import trust_features

NAME = "ogen"
MEASURES = (LEARNT, NEW, HARMONIC, ALL)
BEFORE, FIT, COOP, SRC = "zero-shot", "fit", "CoOp", "PromptSRC"
OWN, NAMED, WRONG = "OGEN", "OGEN, new names", "OGEN, wrong names"
ALONE, UNTAUGHT = "OGEN, no unknown classes", "OGEN, no teacher"
ARMS = (FIT, COOP, SRC, OWN, NAMED, WRONG, ALONE, UNTAUGHT)
WRONG_NAMES = (
    "violin", "lighthouse", "volcano", "typewriter", "hammer", "castle", "umbrella", "statue", "glacier", "pyramid",
)  # fmt: skip
"""Of nothing in these sets."""
N_LOOKS, BATCH = 6, 16
ARTICLES = (
    "Belts", "Casual Shoes", "Flip Flops", "Formal Shoes", "Handbags", "Heels", "Kurtas", "Sandals", "Shirts", "Socks",
    "Sports Shoes", "Sunglasses", "Sweaters", "Tops", "Tshirts", "Watches",
)  # fmt: skip
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WORDS = {
    "basketball": "basketball", "beach": "beach", "bicycle": "bicycle", "boat": "boat", "dog": "dog", "horse": "horse",
    "motorcycle": "motorcycle", "rock climbing": "climb", "skateboard": "skateboard", "snow": "snow",
    "soccer": "soccer", "swimming pool": "pool",
}  # fmt: skip
"""Classes of the Flickr photographs, and how a word of a caption begins that says them."""
GLOSSES = {
    "bird": "bird", "dog": "dog|terrier", "insect": "insect|beetle|butterfl", "monkey": "monkey", "snake": "snake",
    "boat": "boat|ship|vessel", "car": "car|automobile|truck", "clothing": "garment|clothing|hat", "food": "dish|fruit",
    "musical instrument": "musical|instrument",
}  # fmt: skip
Pictures = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Cut:
    """Files of the learnt classes to draw from, and of all classes to test on."""

    classes: tuple[str, ...]
    pool: Pictures
    test: Pictures

    @classmethod
    def of(cls, pool: Pictures, test: Pictures, n_test: int, n_new: int) -> Cut:
        """The first half of the names is learnt; the rest is tested on all of its pictures; drawn once, of each."""
        classes = sorted(pool)
        base, found = classes[: (len(classes) + 1) // 2], {}
        for name in classes:
            every = [*test.get(name, ()), *(() if name in base else pool[name])]
            found[name] = drawn(every, n_test if name in base else n_new)
        return cls(tuple(classes), {name: pool[name] for name in base}, found)


def drawn(paths: Iterable[str], n: int) -> list[str]:
    every = sorted(paths)
    random.Random(0).shuffle(every)
    return every[:n]


def by_class(found: Iterable[tuple[str | None, str]]) -> dict[str, list[str]]:
    made: dict[str, list[str]] = defaultdict(list)
    for name, path in found:
        if name is not None:
            made[name].append(path)
    return made


def groceries(folder: Path) -> Cut:
    kinds = sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())[::4][:20]
    parts = [{k: [str(p) for p in list_pictures(folder / part / k)] for k in kinds} for part in ("train", "test")]
    return Cut.of(*parts, 6, 18)


def fashion(folder: Path) -> Cut:
    def part(name: str) -> dict[str, list[str]]:
        with (folder / f"{name}.csv").open(encoding="utf-8") as lines:
            rows = [(r["articleType"], str(folder / r["image"])) for r in csv.DictReader(lines)]
        return {kind: drawn(paths, 40) for kind, paths in by_class(rows).items() if kind in ARTICLES}

    return Cut.of(part("train"), part("test"), 20, 30)


def cifar(folder: Path) -> Cut:
    """Photographs alone; the number at the end of a name is the class, none the first."""

    def part(name: str) -> dict[str, list[str]]:
        paths = list_pictures(folder / name / "REAL")
        numbers = [(re.search(r"_(\d+)$", Path(p).stem), str(p)) for p in paths]
        return {
            kind: drawn(own, 40)
            for kind, own in by_class((CIFAR[int(m[1]) - 1 if m else 0], p) for m, p in numbers).items()
        }

    return Cut.of(part("train"), part("test"), 36, 40)


def flickr(folder: Path) -> Cut:
    """Photographs of which three captions or more say one of the words, and none another."""

    def told(captions: Sequence[str]) -> str | None:
        often = {k: sum(bool(re.search(rf"\b{w}", c.lower())) for c in captions) for k, w in WORDS.items()}
        there = [k for k, n in often.items() if n]
        return there[0] if len(there) == 1 and often[there[0]] >= 3 else None

    lines = (folder / "train.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    every = {k: drawn(p, 56) for k, p in by_class((told(r["text"]), str(folder / r["image"])) for r in rows).items()}
    return Cut.of({k: p[16:] for k, p in every.items()}, {k: p[:16] for k, p in every.items()}, 16, 32)


def imagenet(folder: Path) -> Cut:
    """One picture of each class, in groups by a word of the class's definition; settings are chosen on it."""
    glosses = {c.synset: f"{c.names[0]}, {c.gloss}" for c in imagenet_classes()}

    def told(path: Path) -> str | None:
        gloss = glosses[path.name.split("_")[0]]
        there = [k for k, w in GLOSSES.items() if re.search(rf"\b({w})s?\b", gloss)]
        return there[0] if len(there) == 1 else None

    every = {k: drawn(p, 40) for k, p in by_class((told(Path(p)), str(p)) for p in list_pictures(folder)).items()}
    return Cut.of({k: p[:8] for k, p in every.items()}, {k: p[8:] for k, p in every.items()}, 32, 32)


SETS: dict[str, tuple[str, Callable[[Path], Cut]]] = {
    "grocery": ("groceries", groceries),
    "fashion": ("articles of fashion", fashion),
    "cifake": ("CIFAR-10 photographs", cifar),
    "flickr": ("Flickr photographs", flickr),
    "imagenet": ("groups of ImageNet", imagenet),
}


@dataclass(frozen=True, eq=False)
class World:
    """Pictures after one look: of the learnt classes to draw from, of all to test on."""

    on: Encoder
    base: tuple[str, ...]
    new: tuple[str, ...]
    pool: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def seen(cls, on: Encoder, cut: Cut, store: FeatureStore) -> World:
        base = tuple(cut.pool)
        parts = []
        for pictures in (cut.pool, cut.test):
            items = tuple(Sample(path, name) for name, paths in pictures.items() for path in paths)
            seen = encode_labelled(on, tuple(pictures), Samples(items, tuple(pictures)), store)
            parts.append((seen.pooled, seen.labels))
        return cls(on, base, cut.classes[len(base) :], parts[0], parts[1])

    @property
    def is_new(self) -> Tensor:
        return self.test[1] >= len(self.base)

    def few(self, shots: int, seed: int) -> tuple[Tensor, Tensor]:
        """Pooled pictures of each learnt class, drawn."""
        pooled, labels = self.pool
        generator = torch.Generator().manual_seed(seed)
        rows = [(labels == c).nonzero()[:, 0] for c in range(len(self.base))]
        some = torch.cat([own[torch.randperm(len(own), generator=generator)[:shots]] for own in rows])
        return pooled[some], labels[some]

    def right(self, scores: Tensor) -> Right:
        """Learnt classes among themselves, new ones among themselves, and all among all."""
        labels, n = self.test[1], len(self.base)
        learnt, new = scores[:, :n].argmax(1) == labels, scores[:, n:].argmax(1) == labels - n
        return {LEARNT: learnt, NEW: new, ALL: scores.argmax(1) == labels}

    def named(self, text: Tensor) -> Right:
        return self.right(image_vectors(self.on, self.test[0]) @ text.T)


class Watch(Progress):
    """Looks at the test pictures a few times, evenly over the prompt's own steps."""

    def __init__(self, world: World, task: PromptTask, n_steps: int) -> None:
        super().__init__()
        self.world, self.task = world, task
        self.at = {task.ahead + round(n_steps * i / N_LOOKS) for i in range(1, N_LOOKS + 1)}
        self.names = Names(opened(world.on), (*world.base, *world.new))
        self.curve: list[Right] = []

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        super().measured(step, terms)
        if step in self.at:
            with torch.no_grad():
                self.curve.append(self.world.named(self.names.read(self.task.prompt.vectors)))


def learnt(world: World, arm: str, args: argparse.Namespace, seed: int) -> list[Right]:
    """The curve of one arm."""
    pooled, labels = world.few(args.shots, seed)
    if arm == FIT:
        fit = linear_fit(trust_features(pooled.float()), labels, len(world.base))
        known = fit(trust_features(world.test[0].float())).argmax(1) == world.test[1]
        return [{LEARNT: known, NEW: known & world.is_new, ALL: known & ~world.is_new}]
    image, tower = image_vectors(world.on, pooled), opened(world.on)
    data = TrainingData(len(image), {"image": image, "labels": labels})
    per_epoch = data.steps_per_epoch(BATCH)
    common: dict[str, Any] = {"epochs": -(-args.steps // per_epoch), "batch_size": BATCH, "seed": seed, "lr": args.lr}
    if arm in (COOP, SRC):
        how: PromptLearning = CoOp(**common) if arm == COOP else PromptSRC(**common)
    else:
        names = {NAMED: world.new, WRONG: WRONG_NAMES[: len(world.new)], ALONE: ()}.get(arm)
        how = OGEN(**common, new_names=names, excluded=world.new, distil=0.0 if arm == UNTAUGHT else 1.0)
    rate = how.rate(world.on)
    lesson = Lesson(world.on, world.base, Names(tower, world.base), image, labels, how.epochs, per_epoch, rate)
    with seeded(seed):
        task = how.task(lesson)
    watch = Watch(world, task, how.epochs * per_epoch)
    train(task, data, task.trained_by(how.training(world.on, per_epoch)), progress=watch)
    return watch.curve


class Kept:
    """Arms that are finished, beside the report, each a curve with its seconds."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.path: Path | None = args.out and args.out.with_suffix(".part.json")
        self.settings = f"{args.shots} {args.steps} {args.lr}"
        there = self.path is not None and self.path.exists()
        self.done: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path and there else {}
        self.seconds = 0.0

    def get(self, place: str, seed: int, arm: str, learn: Callable[[], list[Right]]) -> list[Right]:
        """The curve of an arm, learnt now or before."""
        key = f"{self.settings} {place} {seed} {arm}"
        if key not in self.done:
            begun = time.process_time()
            curve = [{k: "".join("01"[int(v)] for v in right) for k, right in at.items()} for at in learn()]
            self.done[key] = [curve, round(time.process_time() - begun, 2)]
            if self.path is not None:
                write_atomic(self.path, json.dumps(self.done))
        curve, seconds = self.done[key]
        self.seconds += seconds
        return [{k: torch.tensor([c == "1" for c in text]) for k, text in at.items()} for at in curve]


@dataclass(frozen=True, eq=False)
class Found:
    """Everything of one set: for each arm, a curve of every seed."""

    name: str
    world: World
    zero: Right
    curves: Mapping[str, list[list[Right]]]

    def values(self, arm: str, measure: str, at: int = -1) -> Tensor:
        """Seeds × pictures."""
        rows = [[self.zero]] * len(self.curves[COOP]) if arm == BEFORE else self.curves[arm]
        world: Any = self.world
        return torch.stack([values_of(curve[at if arm != BEFORE else 0], measure, world) for curve in rows])

    def mean(self, arm: str, measure: str, at: int = -1) -> Mean:
        values = self.values(arm, measure, at)
        return mean_of(values, torch.arange(values.shape[1]))

    def lead(self, measure: str, a: tuple[str, int], b: tuple[str, int]) -> Mean:
        values = self.values(a[0], measure, a[1]) - self.values(b[0], measure, b[1])
        return mean_of(values, torch.arange(values.shape[1]))


def over_sets(means: Sequence[Mean]) -> Interval:
    """The mean of several sets, each with its own errors."""
    errors = [Error(e[0] / len(means), e[1]) for m in means for e in m.errors]
    whole: Any = Mean(sum(m.value for m in means) / len(means), tuple(errors))  # type: ignore[arg-type]
    return Interval(whole.value, *whole.interval(0.95))


def main(given: Sequence[str] | None = None) -> Report:
    options = parser(__doc__, NAME)
    for key, (name, _) in SETS.items():
        options.add_argument(f"--{key}", type=Path, help=f"folder of the {name}")
    options.add_argument("--shots", type=int, default=8)
    options.add_argument("--steps", type=int, default=60, help="in which the prompt learns")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--lr", type=float, default=None, help="of the prompt; left out, the encoder's own")
    options.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS)
    return deliver(options, lambda args: run(args, given), given)


def run(args: argparse.Namespace, given: Sequence[str] | None) -> Report:
    on, kept, store = find("lite0"), Kept(args), FeatureStore()
    places = {key: getattr(args, key) for key in SETS if getattr(args, key) is not None}
    if not places:
        raise SystemExit("No folder was given. One set or more was expected. Give --grocery, say.")
    worlds = {key: World.seen(on, SETS[key][1](place), store) for key, place in places.items()}
    curves: dict[str, dict[str, list[list[Right]]]] = {key: {arm: [] for arm in args.arms} for key in worlds}
    for seed in range(args.seed, args.seed + args.seeds):
        for key, world in worlds.items():
            for arm in args.arms:
                curve = kept.get(key, seed, arm, lambda w=world, a=arm, s=seed: learnt(w, a, args, s))
                curves[key][arm].append(curve)
                said = ", ".join(f"{100 * values_of(curve[-1], m, world).nanmean():.1f}" for m in MEASURES)
                course = " ".join(f"{100 * values_of(at, NEW, world).nanmean():.0f}" for at in curve)
                print(f"{key} {seed} {arm}: {said} (new: {course}) after {kept.seconds:.0f} s", flush=True)
    found = []
    for key, world in worlds.items():
        zero = world.named(as_it_was(opened(on), (*world.base, *world.new)))
        found.append(Found(SETS[key][0], world, zero, curves[key]))
        said = ", ".join(f"{100 * values_of(zero, m, world).nanmean():.1f}" for m in MEASURES)
        print(f"{key} zero-shot: {said}", flush=True)
    if tuple(args.arms) != ARMS:
        raise SystemExit("Some arms alone were asked for: no report is made.")
    return report(found, kept, args, given)


def report(found, kept, args, given):
    raise SystemExit


if __name__ == "__main__":
    main()
