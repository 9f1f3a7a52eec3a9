"""COMET: does a second classifier on the hidden part make a mask complete, and free it from a bad start?

    python reproductions/comet.py --out comet.json      # ten minutes of one core; goes on where it was stopped
    python reproductions/comet.py --fast                # some seconds, to see that it runs; its numbers mean nothing

Zhang, Lee & Wang 2024 (arXiv 2407.19308). Pictures are those of tests/planting.py: the symbol that decides the class
appears twice on a textured canvas, so a complete mask covers both. A selector and a predictor are trained without the
detector (m_c = 0), with a fixed detector (2p) and with one that learns (3p), from the same start on the same pictures.
Separate classifiers judge what the hidden part still shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Interval, Report, command, lead, machine, mean_of, parser, verdict
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, max_pool2d

from seewhy.learning.adaptation.backbone import Predictor, new_predictor
from seewhy.learning.self_explaining.comet.network import (
    Hide,
    Mode,
    Playing,
    Selector,
    make_selector,
)
from seewhy.learning.self_explaining.comet.recipe import COMET
from seewhy.storage.output import write_atomic
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised, Task

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import planting as planted

NAME = "comet"
WEIGHTS = {"m_c": 4.0, "gap": 2.0, "tau": 0.2}
GAMES: dict[str, tuple[Mode, float]] = {"without": ("2p", 0.0), "2p": ("2p", WEIGHTS["m_c"]), "3p": ("3p", 4.0)}
SIDE, CELL = planted.SIDE, planted.SYMBOL
EVIDENCE = 2 * CELL * CELL
"""Pixels of the two copies: the area at which coverage is compared."""
CORNER = 28
"""Side of the square in the upper left that a spoilt selector starts with: a fifth of the picture."""
BATCH, LR = 16, 2e-3


@dataclass(frozen=True)
class Pictures:
    """Normalised pixels, classes, and where the evidence is."""

    pixels: Tensor
    labels: Tensor
    masks: Tensor

    @classmethod
    def of(cls, seeds: Sequence[int]) -> Pictures:
        found = [planted.plant("copies", seed) for seed in seeds]
        pixels = torch.from_numpy(np.stack([p.pixels for p in found])).permute(0, 3, 1, 2).float() / 255
        normal = ((pixels - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
        labels = torch.tensor([p.target for p in found])
        return cls(normal, labels, torch.from_numpy(np.stack([p.mask for p in found])))

    def data(self, change: Callable[[Tensor], Tensor] = lambda x: x) -> TrainingData:
        columns = {"pixels": lambda index, _: change(self.pixels[index]), "labels": self.labels}
        return TrainingData(len(self.labels), columns)


def training(n_steps: int, seed: int) -> Training:
    return Training(n_steps, BATCH, lr=LR, weight_decay=0.03, seed=seed)


HIDE = Hide("mean", planted.TRANSFORM)


def fresh(seed: int) -> Predictor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return new_predictor(len(planted.CLASSES))


def plain(data: Pictures, n_steps: int, seed: int, change: Callable[[Tensor], Tensor] = lambda x: x) -> Predictor:
    """A classifier of pictures that were changed in some way."""
    found = fresh(seed)
    train(Supervised(found), data.data(change), training(n_steps, seed))
    return found


@torch.no_grad()
def right(network: Predictor, pixels: Tensor, labels: Tensor) -> list[float]:
    return (network(pixels).argmax(1) == labels).float().tolist()


@torch.no_grad()
def coverage(mask: Tensor, evidence: Tensor) -> dict[str, list[float]]:
    """Of each picture: part of the better and of the worse covered copy, and of the rest, in its hottest pixels."""
    hottest = mask.flatten(1).argsort(1, descending=True)[:, :EVIDENCE]
    top = torch.zeros(len(mask), SIDE * SIDE).scatter(1, hottest, 1.0).view_as(mask)
    cells = SIDE // CELL
    share = top.view(-1, cells, CELL, cells, CELL).mean((2, 4)).flatten(1)
    planted_here = max_pool2d(evidence.float()[:, None], CELL).flatten(1) > 0
    both = share[planted_here].view(-1, 2)
    rest = (share * ~planted_here).sum(1) / (~planted_here).sum(1)
    return {"copy 1": both.amax(1).tolist(), "copy 2": both.amin(1).tolist(), "background": rest.tolist()}


def new_game(name: str, detector: Predictor, seed: int) -> Playing:
    mode, m_c = GAMES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1000 + seed)
        selector = make_selector("unet")
    own = fresh(2000 + seed) if mode == "3p" else detector
    objective = COMET(m_c=m_c, gap=WEIGHTS["gap"], tau=WEIGHTS["tau"]).objective
    return Playing(selector, fresh(3000 + seed), own, mode, objective, HIDE)


def played(name: str, detector: Predictor, train_on: Pictures, test: Pictures, args: Any, seed: int) -> dict[str, Any]:
    """One game from the start, and everything that is measured of it."""
    game = new_game(name, detector, seed)
    train(game, train_on.data(), training(args.steps, seed))
    with torch.no_grad():
        mask = game.selector(test.pixels)
    hard = (mask > 0.5).float()
    x, y = test.pixels, test.labels
    found = coverage(mask, test.masks) | {
        "area": mask.mean((1, 2)).tolist(),
        "accuracy": right(game.predictor, HIDE(x, mask), y),
        "accuracy, binarised": right(game.predictor, HIDE(x, hard), y),
        "accuracy, another picture's mask": right(game.predictor, HIDE(x, mask.roll(1, 0)), y),
        "detector on the rest": right(detector, HIDE(x, 1 - mask), y),
    }
    if name == "3p":
        return found

    def rest(pixels: Tensor, binarised: bool) -> Tensor:
        with torch.no_grad():
            own = game.selector(pixels)
        return HIDE(pixels, 1 - ((own > 0.5).float() if binarised else own))

    def alone(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return game.selector(pixels)[:, None].expand(-1, 3, -1, -1) * 4 - 2

    for key, change in (
        ("fresh classifier on the rest", lambda p: rest(p, False)),
        ("fresh classifier on the rest, binarised", lambda p: rest(p, True)),
        ("fresh classifier on the mask alone", alone),
    ):
        found[key] = right(plain(train_on, args.steps // 2, 4000 + seed, change), change(x), y)
    return found


class ToMask(Task):
    """A selector that learns one mask for all pictures."""

    needs = ("pixels",)

    def __init__(self, selector: nn.Module, wanted: Tensor) -> None:
        super().__init__()
        self.selector = selector.requires_grad_(True)
        self.register_buffer("wanted", wanted)

    def features(self, batch: Batch) -> Tensor:
        return self.selector(batch["pixels"])

    def loss(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": binary_cross_entropy(features, self.wanted.expand_as(features))}


def spoilt(name: str, detector: Predictor, train_on: Pictures, test: Pictures, args: Any, seed: int) -> dict[str, Any]:
    """A game whose selector starts with a fixed corner, to which the predictor has got used."""
    game = new_game(name, detector, seed)
    corner = torch.zeros(SIDE, SIDE)
    corner[:CORNER, :CORNER] = 1
    warm = training(args.warm, seed)
    train(ToMask(game.selector, corner), train_on.data(), warm)
    train(Supervised(game.predictor), train_on.data(lambda p: masked(game.selector, p)), warm)
    before = measured(game.selector, test)
    game.free()
    train(game, train_on.data(), training(args.steps, seed))
    return {"before": before, "after": measured(game.selector, test)}


@torch.no_grad()
def masked(selector: Selector, pixels: Tensor) -> Tensor:
    return HIDE(pixels, selector.eval()(pixels))


@torch.no_grad()
def measured(selector: Selector, test: Pictures) -> list[float]:
    """Mean coverage of both copies and of the background."""
    found = coverage(selector.eval()(test.pixels), test.masks)
    copies = [(a + b) / 2 for a, b in zip(found["copy 1"], found["copy 2"], strict=True)]
    return [round(float(np.mean(v)), 4) for v in (copies, found["background"])]


class Kept:
    """Runs that were done before are read from beside the report."""

    def __init__(self, out: Path | None, about: str) -> None:
        self.folder = None if out is None else out.with_suffix("")
        self.about = about
        self.seconds = 0.0

    def __call__(self, name: str, run: Callable[[], Any]) -> Any:
        path = None if self.folder is None else self.folder / f"{name.replace(' ', '_')}.json"
        if path is not None and path.exists():
            held = json.loads(path.read_text())
            if held["about"] == self.about:
                self.seconds += held["seconds"]
                return held["found"]
        begun = time.process_time()
        found = run()
        spent = time.process_time() - begun
        self.seconds += spent
        print(f"{name}: {spent:.0f} s of processor time", flush=True)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"about": self.about, "seconds": spent, "found": found}))
        return found


def detector_of(args: Any, seed: int, data: Pictures, memory: dict[int, Predictor]) -> Predictor:
    if seed not in memory:
        memory[seed] = plain(data, args.steps, seed)
    return memory[seed]


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    sizes = (30, 12) if args.fast else (args.n_train, args.n_test)
    train_on, test = Pictures.of(range(sizes[0])), Pictures.of(range(100_000, 100_000 + sizes[1]))
    kept = Kept(args.out, json.dumps([args.steps, args.warm, sizes, WEIGHTS, BATCH, LR]))
    plains: dict[int, Predictor] = {}
    games: dict[str, list[dict[str, Any]]] = {name: [] for name in GAMES}
    whole: list[list[float]] = []
    for seed in range(args.seed, args.seed + args.seeds):

        def judge(seed: int = seed) -> Predictor:
            return detector_of(args, seed, train_on, plains)

        whole.append(kept(f"plain {seed}", lambda: right(judge(), test.pixels, test.labels)))
        for name in GAMES:
            games[name].append(
                kept(
                    f"{name} {seed}", lambda name=name, seed=seed: played(name, judge(seed), train_on, test, args, seed)
                )
            )
    spoils: dict[str, list[dict[str, Any]]] = {"without": [], "2p": []}
    for seed in range(args.seed, args.seed + args.interlock_seeds):
        for name in spoils:
            spoils[name].append(
                kept(
                    f"spoilt {name} {seed}",
                    lambda name=name, seed=seed: spoilt(
                        name, detector_of(args, seed, train_on, plains), train_on, test, args, seed
                    ),
                )
            )
    if args.runs_only:
        return
    report = reported(args, games, whole, spoils, test, kept.seconds, sizes)
    report.show()
    if args.out:
        report.write(args.out)


def arguments() -> argparse.Namespace:
    made = parser(__doc__ or "", NAME)
    made.add_argument("--seeds", type=int, default=3, help="of each game")
    made.add_argument("--interlock-seeds", type=int, default=5, help="of the games from a spoilt start")
    made.add_argument("--steps", type=int, default=160, help="batches of 16 a game")
    made.add_argument("--warm", type=int, default=40, help="batches in which the start is spoilt")
    made.add_argument("--n-train", type=int, default=800)
    made.add_argument("--n-test", type=int, default=150)
    made.add_argument("--runs-only", action="store_true", help="no report, to do seeds side by side and report later")
    made.add_argument("--fast", action="store_true", help="two steps on thirty pictures, one seed")
    args = made.parse_args()
    if args.fast:
        args.seeds, args.interlock_seeds, args.steps, args.warm = 1, 1, 2, 2
    return args


def of(runs: list[dict[str, Any]], key: str) -> list[float]:
    """A measure on every picture of every seed."""
    return [v for run in runs for v in run[key]]


def reported(
    args: Any,
    games: dict[str, list[dict[str, Any]]],
    whole: list[list[float]],
    spoils: dict[str, list[dict[str, Any]]],
    test: Pictures,
    seconds: float,
    sizes: tuple[int, int],
) -> Report:
    chance = float(test.labels.bincount().max() / len(test.labels))
    claims = [*completeness(games), interlocking(spoils), complement(games, chance), *prediction(games, whole, chance)]
    accuracy = mean_of([v for run in whole for v in run])
    numbers = {name: {key: mean_of(of(runs, key)).rounded() for key in runs[0]} for name, runs in games.items()} | {
        "spoilt": spoils,
        "chance": round(chance, 4),
    }
    return Report(
        name=NAME,
        title="Does a detector on what was masked away make the mask complete, and free it from a bad start?",
        paper="Zhang, Lee & Wang 2024, arXiv:2407.19308",
        data=f"planted pictures of {SIDE} pixels, the symbol whose colour decides twice on each: {sizes[0]} to train "
        f"on, {sizes[1]} to test, {args.seeds} seeds of weights and order",
        model="U-Net selector of 0.3 M weights, predictor and detector small ResNets of 0.08 M; a plain one is right "
        f"on {accuracy} of the test pictures",
        command=command(NAME),
        machine=machine(),
        seconds=round(seconds),
        seed=args.seed,
        claims=tuple(claims),
        differences=(
            f"Small networks on synthetic pictures, {args.steps} steps of {BATCH}, instead of ResNet-18 on ImageNet-9 "
            "for 200 epochs.",
            f"Weights m_c = {WEIGHTS['m_c']:g}, gap = {WEIGHTS['gap']:g}, tau = {WEIGHTS['tau']:g}: the first two of "
            "the released configuration, the last of those marked as default; AdamW at a rate of 0.002 on one cycle.",
            "The detector stays in evaluation mode.",
            "The duration is processor time.",
        ),
        numbers=numbers,
    )


def completeness(games: dict[str, list[dict[str, Any]]]) -> list[Claim]:
    found = []
    for name in ("2p", "3p"):
        second = lead(of(games[name], "copy 2"), of(games["without"], "copy 2"))
        clear = lead(of(games[name], "copy 2"), of(games[name], "background"))
        texts = [
            f"{n}: {three(runs)}, mask {mean_of(of(runs, 'area')).value:.2f}"
            for n, runs in games.items()
            if n in ("without", name)
        ]
        found.append(
            Claim(
                claim=f"With the detector ({name}) the mask covers all evidence, not one copy of it.",
                rule="The worse covered copy gains on the game without detector and lies above the background, both "
                "intervals above 0, and is covered by more than half; partly: without the half.",
                measured=f"part covered in the hottest eighth of the picture, of copy 1, copy 2, background: "
                f"{'; '.join(texts)}; copy 2 gains {second}",
                verdict=verdict(
                    second.low > 0 and clear.low > 0 and mean_of(of(games[name], "copy 2")).value > 0.5,
                    partly=second.low > 0 and clear.low > 0,
                ),
                n=len(of(games[name], "copy 2")),
                section="completeness",
            )
        )
    return found


def three(runs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{mean_of(of(runs, k)).value:.2f}" for k in ("copy 1", "copy 2", "background"))


def interlocking(spoils: dict[str, list[dict[str, Any]]]) -> Claim:
    free = {name: sum(run["after"][0] > 0.5 for run in runs) for name, runs in spoils.items()}
    n = len(spoils["2p"])
    texts = [
        f"{free[name]} of {n} {'with' if name == '2p' else 'without'} (copies covered before and after: "
        f"{np.mean([r['before'][0] for r in runs]):.2f}, {np.mean([r['after'][0] for r in runs]):.2f})"
        for name, runs in spoils.items()
    ]
    return Claim(
        claim="The detector frees selector and predictor from a bad mask that they have got used to.",
        rule="More seeds recover (both copies covered by more than half on average) with the detector than without, by "
        "at least three fifths of them; partly: by at least one.",
        measured=f"recovered from a mask on a fixed corner: {'; '.join(texts)}",
        verdict=verdict(free["2p"] - free["without"] >= 0.6 * n, partly=free["2p"] > free["without"]),
        n=n,
        section="interlocking",
    )


def complement(games: dict[str, list[dict[str, Any]]], chance: float) -> Claim:
    key = "fresh classifier on the rest"
    hard, soft = (mean_of(of(games["2p"], k)) for k in (f"{key}, binarised", key))
    falls = lead(of(games["without"], f"{key}, binarised"), of(games["2p"], f"{key}, binarised"))
    before = mean_of(of(games["without"], f"{key}, binarised"))
    text = f"binarised rest {hard}, soft rest {soft}, without detector {before}"
    own = mean_of(of(games["2p"], "detector on the rest"))
    return Claim(
        claim="What the mask hides no longer tells the class.",
        rule="A fresh classifier, trained on binarised complements, is less than 0.1 above chance and below that of "
        "the game without detector; partly: below it only. The game's own detector, which never saw such pictures, "
        "does not count.",
        measured=f"accuracy of a fresh classifier: {text}; the game's detector on the soft rest {own}; "
        f"chance {chance:.2f}",
        verdict=verdict(falls.low > 0 and hard.value < chance + 0.1, partly=falls.low > 0),
        n=len(of(games["2p"], key)),
        section="complement",
    )


def prediction(games: dict[str, list[dict[str, Any]]], whole: list[list[float]], chance: float) -> list[Claim]:
    runs = games["2p"]
    base = [v for run in whole for v in run]
    gain: Interval = lead(of(runs, "accuracy"), base)
    loss = lead(of(runs, "accuracy"), of(runs, "accuracy, another picture's mask"))
    alone = mean_of(of(runs, "fresh classifier on the mask alone"))
    return [
        Claim(
            claim="The predictor, which sees masked pictures only, is more accurate than a plain classifier.",
            rule="Interval of the gain above 0; partly: the accuracy is within 0.02 of the plain classifier's.",
            measured=f"gain {gain}: {mean_of(of(runs, 'accuracy'))} against {mean_of(base)}; with binarised masks "
            f"{mean_of(of(runs, 'accuracy, binarised'))}",
            verdict=verdict(gain.low > 0, partly=gain.value > -0.02),
            n=len(base),
            section="accuracy",
            interval=gain,
        ),
        Claim(
            claim="The predictor reads the picture and not the shape of the mask (control, not of the paper).",
            rule="With another picture's mask the accuracy falls, interval above 0, and a fresh classifier of masks "
            "alone is less than 0.1 above chance; partly: one of the two.",
            measured=f"another picture's mask costs {loss}; a classifier of masks alone {alone}, chance {chance:.2f}",
            verdict=verdict(
                loss.low > 0 and alone.value < chance + 0.1, partly=loss.low > 0 or alone.value < chance + 0.1
            ),
            n=len(base),
            section="leakage",
        ),
    ]


if __name__ == "__main__":
    main()
