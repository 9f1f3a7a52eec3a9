"""PPGN: does a prior in the code make pictures that a second network recognises, where climbing alone does not?

    python reproductions/ppgn.py --out ppgn.json
    python reproductions/ppgn.py --seeds 1 --steps 5 --walk 4 --each 2 --out ppgn.json    # seconds

Nguyen et al. 2017 (arXiv 1612.00005). Digits of 16 pixels, tinted. In each world anew: a network whose code is turned
round by a generator and whose ten classes are climbed; a judge of another architecture; a network of colours for the
same generator, and a judge of colours. The first world only chooses the weight of the prior, and the length of steps
with it and without it. Four minutes of one idle core; a run that was stopped goes on after its last whole world.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from claims import JUDGED, Claim, Report, command, deliver, judged, lead, machine, mean_of, parser, verdict
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor, nn
from train_generator import FitGenerator

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.new import Residual
from seewhy.encoders.split import fingerprint
from seewhy.generation.conditions import Condition, Judge, diversity, of_class
from seewhy.generation.generator import Generator, Reader
from seewhy.generation.sampler import PPGN, Chains, PixelAscent, facets, noise
from seewhy.pictures.samples import Sample
from seewhy.seeded import seeded
from seewhy.storage.output import write_atomic
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised
from seewhy.types import Transform

SIDE, CODE = 16, 64
HALF = (0.5, 0.5, 0.5)
SEEN = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", HALF, HALF)
EPS1 = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
RATES = (1 / 60, 1 / 30, 1 / 15, 2 / 15)
"""Lengths of the first step, as parts of the codes' range."""
EPS3 = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Of noise, in spreads of a unit of the code, where steps stand as the equation has them."""
RAW = PPGN(eps1=0.1, eps2=0.3, normalise=False)
DIGITS = tuple("0123456789")
COLOURS = {"red": (1.0, 0.25, 0.2), "green": (0.3, 0.9, 0.3), "blue": (0.35, 0.5, 1.0)}
N_TEST = 397
"""Of scikit-learn's 1,797 digits; the rest is trained on."""


def convolutions() -> tuple[nn.Module, nn.Module]:
    """Trunk and code of what is climbed: a layer of 64 units that are 0 or more, which keeps where things are."""
    trunk = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
    )
    return trunk, nn.Sequential(nn.Flatten(), nn.Linear(64 * 16, CODE), nn.ReLU())


def residual() -> tuple[nn.Module, nn.Module]:
    """Those of a judge: another architecture, pooled by the mean."""
    start = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU())
    return nn.Sequential(start, Residual(16, 32, 2), Residual(32, CODE, 2)), GlobalAverage()


def tinted(seed: int) -> tuple[np.ndarray, Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Digits of 16 pixels on black, uint8, each of a colour by chance; their numbers and colours."""
    found, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(found.target))
    colour = rng.integers(len(COLOURS), size=len(order))
    grey = np.kron(found.images[order] / 16, np.ones((2, 2)))[..., None]
    shown = grey * np.array(list(COLOURS.values()))[colour][:, None, None] + rng.normal(0, 0.02, (*grey.shape[:3], 3))
    pixels = np.rint(255 * shown.clip(0, 1)).astype(np.uint8)
    return pixels, torch.from_numpy(found.target[order]), torch.from_numpy(colour)


def classifier(
    halves: tuple[nn.Module, nn.Module], pixels: Tensor, labels: Tensor, names: Sequence[str], steps: int, seed: int
) -> Classifier:
    """Trained from nothing."""
    layer = nn.Linear(CODE, len(names))
    network = nn.Sequential(*halves, layer)
    data = TrainingData(len(labels), {"pixels": pixels, "labels": labels})
    train(Supervised(network), data, Training(steps, 32, lr=3e-3, seed=seed))
    return seewhy.pretrained(
        Encoder(
            name="tinted digits",
            transform=SEEN,
            trunk=lambda: halves[0],
            head=halves[1],
            layout=Layout(),
            fingerprint=fingerprint(network, SEEN),
            classifier=layer,
            classes=tuple(names),
            engine="torch",
        )
    )


@dataclass(frozen=True, eq=False)
class World:
    """Networks and a generator, all made anew."""

    climbed: Classifier
    judge: Classifier
    colours: Classifier
    colour_judge: Classifier
    generator: Generator
    right: dict[str, float]


def world(args: argparse.Namespace, seed: int) -> World:
    """Pictures are drawn, four networks and the generator trained."""
    arrays, digit, colour = tinted(1000 * args.seed + seed)
    pixels = (torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    n, made, right = len(arrays) - N_TEST, {}, {}
    plan = {
        "climbed": (convolutions, digit, DIGITS),
        "judge": (residual, digit, DIGITS),
        "colours": (convolutions, colour, tuple(COLOURS)),
        "colour_judge": (residual, colour, tuple(COLOURS)),
    }
    for i, (name, (network, labels, names)) in enumerate(plan.items()):
        with seeded(1000 * seed + i):
            halves = network()
            made[name] = classifier(halves, pixels[:n], labels[:n], names, args.steps, 10 * seed + i)
        right[name] = _right(made[name], pixels[n:], labels[n:])
    fit = FitGenerator(side=SIDE, width=16, hidden=256, n_steps=4 * args.steps, lr=2e-3, seed=seed)
    digits = [Sample(f"digit {i}", pixels=array) for i, array in enumerate(arrays[:n])]
    generator = fit.fit(made["climbed"].encoder, digits)
    return World(**made, generator=generator, right=right)


def _right(model: Classifier, pixels: Float[Tensor, "n 3 h w"], labels: Int[Tensor, " n"]) -> float:
    return round(float((model.probabilities(pixels).argmax(1) == labels).float().mean()), 4)


class EachItsOwn(Condition):
    """Chains of several classes side by side: of every picture the score of its own class comes first."""

    kind = "class"
    measure = "probability"
    index = 0

    def __init__(self, model: Classifier, labels: Int[Tensor, " b"]) -> None:
        self.model = model
        others = torch.arange(len(model.classes)).expand(len(labels), -1)
        self.order = torch.where(others == 0, labels[:, None], torch.where(others == labels[:, None], 0, others))

    @property
    def encoder(self) -> Encoder:
        return self.model.encoder

    @property
    def asked(self) -> str:
        return "its own class"

    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.model.head(Reader(self.encoder)(pictures)).gather(1, self.order)

    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.scores(pictures).softmax(1)[:, 0]


def told(chains: Chains, condition: EachItsOwn, judge: Classifier) -> dict[str, Any]:
    """What two networks see on the ends of walks; of each chain, and of each class how far its pictures differ."""
    labels = condition.order[:, 0]
    looked, features = Judge.of(judge, condition, judge.classes).look(chains.pictures[-1])
    verdicts = [float(v.label == judge.classes[c]) for v, c in zip(looked, labels.tolist(), strict=True)]
    spread = [round(diversity(features[labels == c]) or 0.0, 4) for c in labels.unique().tolist()]
    off = None if chains.prior_error is None else round(float(chains.prior_error.mean()), 4)
    own = [round(float(v), 4) for v in chains.values[-1]]
    return {"own": own, "judged": verdicts, "spread": spread, "off": off}


def arms(args: argparse.Namespace, one: World, seed: int, best: tuple[float, float, float]) -> dict[str, Any]:
    """Every way of making pictures in one world, from the same starts; the first world has all weights and rates."""
    how, found = PPGN(n_steps=args.walk, n_shown=1), {}

    def of(model: Classifier) -> EachItsOwn:
        return EachItsOwn(model, torch.arange(len(model.classes)).repeat_interleave(args.each))

    def walked(sampler: PPGN, condition: EachItsOwn, starts: Tensor, judge: Classifier) -> dict[str, Any]:
        return told(sampler.sample(one.generator, condition, starts, seed=seed), condition, judge)

    shapes, colours = of(one.climbed), of(one.colours)
    starts = noise(one.generator, len(shapes.order), seed)
    chosen_eps1, with_prior, without = best
    plan = {"eps1 0": (0.0, without), f"eps1 {chosen_eps1:g}": (chosen_eps1, with_prior)}
    plan |= {f"eps1 {EPS1[-1]:g}": (EPS1[-1], with_prior)}
    if seed == 0:
        plan = {f"eps1 {e:g} lr {r:.4f}": (e, r) for e in EPS1 for r in RATES}
    for name, (eps1, rate) in plan.items():
        found[name] = walked(replace(how, eps1=eps1, lr=rate), shapes, starts, one.judge)
    if seed == 0:
        return found
    pixel = PixelAscent(how).sample(one.generator, shapes, one.generator.network(starts))
    found["pixels"] = told(pixel, shapes, one.judge)
    near = torch.cat([facets(one.generator, of_class(one.climbed, c), args.each, seed) for c in DIGITS])
    for eps1 in (0.0, how.eps1):
        sampler = replace(how, eps1=eps1)
        found[f"colours {eps1:g}"] = walked(sampler, colours, starts[: len(colours.order)], one.colour_judge)
        found[f"facets {eps1:g}"] = walked(sampler, shapes, near, one.judge)
    middle = one.generator.codes.mean(0).expand(len(starts), -1)
    unit = float(one.generator.codes.std(0).mean())
    for eps3 in EPS3:
        raw = replace(RAW, eps3=eps3 * unit, n_steps=args.walk, n_shown=1)
        found[f"eps3 {eps3:g}"] = walked(raw, shapes, middle, one.judge)
    ends = replace(how, eps3=1e-17).sample(one.generator, of_class(one.climbed, 0), middle[: args.each]).codes
    found["released noise"] = float((ends - ends[:1]).abs().max())
    return found


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """World by world, kept beside the report."""
    place = None if args.out is None else args.out.with_suffix(".progress")
    found: dict[str, Any] = json.loads(place.read_text()) if place is not None and place.exists() else {}
    for seed in range(args.seeds + 1):
        key = json.dumps([args.seed, args.steps, args.walk, args.each, seed])
        best = chosen(found[json.dumps([args.seed, args.steps, args.walk, args.each, 0])]) if seed else (0.0, 0.0, 0.0)
        if key not in found:
            begun, cpu = time.perf_counter(), time.process_time()
            one = world(args, seed)
            facts = {"right": one.right, "generator": one.generator.facts, "arms": arms(args, one, seed, best)}
            spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
            found[key] = facts | spent
            if place is not None:
                write_atomic(place, json.dumps(found))
    keys = [json.dumps([args.seed, args.steps, args.walk, args.each, s]) for s in range(args.seeds + 1)]
    return {str(i): found[key] for i, key in enumerate(keys)}


def chosen(first: dict[str, Any]) -> tuple[float, float, float]:
    """Weight of the prior, its rate, and the rate without it, by the judge's right answers in the first world."""

    def right(eps1: float, rate: float) -> float:
        return float(np.mean(first["arms"][f"eps1 {eps1:g} lr {rate:.4f}"]["judged"]))

    pairs = [(eps1, rate) for eps1 in EPS1[1:] for rate in RATES]
    return *max(pairs, key=lambda pair: right(*pair)), max(RATES, key=lambda rate: right(0.0, rate))


def run(args: argparse.Namespace) -> Report:
    found = measured(args)
    worlds = [found[str(i)] for i in range(1, args.seeds + 1)]
    best, rate, plain_rate = chosen(found["0"])

    def every(arm: str, of: str) -> list[float]:
        return [v for one in worlds for v in one["arms"][arm][of]]

    own, plain, most = f"eps1 {best:g}", "eps1 0", f"eps1 {EPS1[-1]:g}"
    names = {own: f"with ε1 = {best:g}", plain: "with ε1 = 0", "pixels": "in pixels", most: f"with ε1 = {EPS1[-1]:g}"}

    def of_lead(claim: str, a: str, b: str, of: str, section: str, what: tuple[str, str]) -> Claim:
        gap = lead(every(a, of), every(b, of))
        text = f"{what[0]} {mean_of(every(a, of))}, {what[1]} {mean_of(every(b, of))}, lead {gap}"
        return Claim(claim, JUDGED, text, judged(gap), len(every(a, of)), section)

    pixel_own, pixel_judged = mean_of(every("pixels", "own")), mean_of(every("pixels", "judged"))
    noises = {e: (mean_of(every(f"eps3 {e:g}", "spread")), mean_of(every(f"eps3 {e:g}", "judged"))) for e in EPS3}
    spread = {e: lead(every(f"eps3 {e:g}", "spread"), every("eps3 0", "spread")) for e in EPS3[1:]}
    price = {e: lead(every(f"eps3 {e:g}", "judged"), every("eps3 0", "judged")) for e in EPS3[1:]}
    free = [e for e in EPS3[1:] if spread[e].above and price[e].low > -0.1]
    moves = max(one["arms"]["released noise"] for one in worlds)
    claims = (
        of_lead("A prior makes pictures that a second network recognises more often.", own, plain, "judged", "judge",
                (names[own], names[plain])),
        of_lead("Climbing in a generator's code, without a prior, beats climbing in pixels.", plain, "pixels", "judged",
                "judge", (names[plain], names["pixels"])),
        of_lead("With the prior it beats climbing in pixels.", own, "pixels", "judged", "judge",
                (names[own], names["pixels"])),
        Claim("The probability of the network that was climbed proves nothing.",
              "shown: in pixels it is 0.9 or more and the judge sees the class on less than half, intervals included",
              f"in pixels: own probability {pixel_own}, judge right {pixel_judged}",
              verdict(pixel_own.low >= 0.9 and pixel_judged.high < 0.5), len(every("pixels", "own")), "judge"),
        of_lead("A prior makes the pictures of one class differ more.", own, plain, "spread", "diversity",
                (names[own], names[plain])),
        of_lead("Too strong a prior ignores the class.", own, most, "judged", "ε1", (names[own], names[most])),
        of_lead("The same generator serves another network with other classes: colours.",
                f"colours {PPGN().eps1:g}", "colours 0", "judged", "plug and play",
                (f"judge of colours, with ε1 = {PPGN().eps1:g}", "with ε1 = 0")),
        Claim("Noise alone makes pictures of one class differ, from one start, in steps as the equation has them.",
              "shown: at some ε3 they differ more than without, and the judge loses no more than 10 points, intervals "
              "included; partly: they differ more at some ε3",
              "; ".join(f"ε3 {e:g}: differ by {a}, judge right {b}" for e, (a, b) in noises.items()),
              verdict(bool(free), any(s.above for s in spread.values())), len(every("eps3 0", "judged")), "ε3"),
        Claim("The released ε3 of 1e-17 with steps of equal length is no noise.",
              "shown: chains from one start end at one code, to the last digit",
              f"largest difference {moves:g}", verdict(moves == 0), args.each * len(worlds), "ε3"),
    )  # fmt: skip
    errors = [one["generator"] for one in worlds]
    return Report(
        "ppgn",
        "Does a prior make pictures that a second network recognises, where climbing alone does not?",
        "Nguyen et al. 2017, arXiv:1612.00005",
        f"scikit-learn's digits at {SIDE} px, tinted, {N_TEST} held out, in {args.seeds} worlds of other splits and "
        f"weights; {args.each} chains for each of {len(DIGITS)} classes; one more world in which ε1 and the length of "
        "steps were chosen",
        f"small networks from nothing: climbed right on {_range(worlds, 'climbed')} of them, judge "
        f"{_range(worlds, 'judge')}, colours {_range(worlds, 'colours')}, their judge "
        f"{_range(worlds, 'colour_judge')}; "
        f"generator off by {_errors(errors, 'held_out_error')}, the mean picture by "
        f"{_errors(errors, 'mean_picture_error')}",
        command("ppgn"),
        machine(),
        round(sum(one["seconds"] for one in found.values()), 1),
        args.seed,
        claims,
        (
            "Small networks and digits, not ImageNet; nothing of the authors' can be run today",
            "The generator has no discriminator, and a sigmoid at its end",
            "ε1 is told in units in which 1 means that prior and score pull alike at the start",
            "Chains start at noise of the codes' own mean and spread, so that no start shows its class; the table has "
            "starts at facets too",
            "Steps shorten evenly to nothing, where the authors keep their length for classes: chosen after a look at "
            "drawn shapes that are not reported, with which chains of equal steps never came to rest",
            "Captions, inpainting and neurons were not measured",
        ),
        {
            "chosen": {"eps1": best, "first step": rate, "first step without the prior": plain_rate},
            "judged": {a: mean_of(every(a, "judged")).rounded() for a in worlds[0]["arms"] if a != "released noise"},
            "own": {a: mean_of(every(a, "own")).rounded() for a in worlds[0]["arms"] if a != "released noise"},
            "differ by": {a: mean_of(every(a, "spread")).rounded() for a in worlds[0]["arms"] if a != "released noise"},
            "off the prior": {
                a: [w["arms"][a]["off"] for w in worlds] for a in worlds[0]["arms"] if a != "released noise"
            },
            "first world, judged": {a: round(float(np.mean(v["judged"])), 4) for a, v in found["0"]["arms"].items()},
            "generators": errors,
            "cpu_seconds": round(sum(one["cpu"] for one in found.values()), 1),
        },
    )


def _errors(facts: Sequence[dict[str, Any]], of: str) -> str:
    return " and ".join(f"{one[of]:.3f}" for one in facts)


def _range(worlds: Sequence[dict[str, Any]], of: str) -> str:
    values = [one["right"][of] for one in worlds]
    return f"{min(values):.1%}" if min(values) == max(values) else f"{min(values):.1%} to {max(values):.1%}"


def main(arguments: Sequence[str] | None = None) -> Report:
    options = parser(__doc__ or "", "ppgn")
    options.add_argument("--seeds", type=int, default=8, help="worlds that are reported")
    options.add_argument(
        "--steps", type=int, default=200, help="batches of 32 for each network; four times as many for the generator"
    )
    options.add_argument("--walk", type=int, default=40, help="steps of a chain")
    options.add_argument("--each", type=int, default=8, help="chains for each class")
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
