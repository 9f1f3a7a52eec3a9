"""What PPGN's reproduction says of its numbers: claims with their intervals, and what differs from the paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from claims import JUDGED, Claim, Report, command, judged, lead, machine, mean_of, verdict

TARGET = 0.7
NAMED = {
    "none": "without a prior", "autoencoder": "with the autoencoder", "score": "with the diffusion model's score",
    "joint": "with decode and encode", "pixels": "in pixels", "start": "at the start",
}  # fmt: skip
"""Ways of making pictures, as people are told them."""
Best = dict[str, tuple[float, float, float]]
"""Of each way its noise, weight of the prior and length of the first step."""


class Found:
    """Numbers of all worlds that are reported, means of each class: chains of one class end near one another."""

    def __init__(self, worlds: dict[str, Any], kinds: Sequence[str], each: int) -> None:
        self.worlds, self.kinds, self.each = worlds, kinds, each

    def every(self, arm: str, of: str = "judged", kind: str = "") -> list[float]:
        rows = [one["arms"][arm][of] for key, one in self.worlds.items() if key.startswith(kind)]
        size = 1 if of == "spread" else self.each
        return [float(np.mean(row[i : i + size])) for row in rows for i in range(0, len(row), size)]

    def lead(self, claim: str, a: str, b: str, section: str, of: str = "judged", sign: int = 1) -> Claim:
        """Of one way over another, on pictures of the same starts; ``sign`` is -1 where less is better."""
        gap = lead([sign * v for v in self.every(a, of)], [sign * v for v in self.every(b, of)])
        each = "; ".join(
            f"{kind} {mean_of(self.every(a, of, kind))} and {mean_of(self.every(b, of, kind))}" for kind in self.kinds
        )
        measured = f"{_named(a)} and {_named(b)}: {each}; lead {gap}"
        return Claim(claim, JUDGED, measured, judged(gap), self.each * len(self.every(a)), section, interval=gap)

    def target(self, way: str) -> Claim:
        """Whether a judge recognises what is made often enough, on each kind of picture."""
        shares = {kind: mean_of(self.every(way, kind=kind)) for kind in self.kinds}
        return Claim(
            f"A judge that did not guide it recognises seven of ten pictures, {NAMED[way]}.",
            f"shown: at least {TARGET:.0%} on each kind of picture, intervals included; partly: on one kind",
            "; ".join(f"{kind} {share}" for kind, share in shares.items())
            + f"; at the start {mean_of(self.every('start'))}",
            verdict(all(s.low >= TARGET for s in shares.values()), any(s.low >= TARGET for s in shares.values())),
            self.each * len(self.every(way)),
            "target",
            interval=mean_of(self.every(way)),
        )


def _named(arm: str) -> str:
    way = arm.removeprefix("colours ").removesuffix(" too strong")
    return NAMED[way] + (" ten times as strong" if arm.endswith("too strong") else "")


def claims_of(found: Found, eps3: Sequence[float], best: str) -> tuple[Claim, ...]:
    own, still = mean_of(found.every("pixels", "own")), mean_of(found.every("pixels"))
    noises = {e: (mean_of(found.every(f"eps3 {e:g}", "spread")), mean_of(found.every(f"eps3 {e:g}"))) for e in eps3}
    spread = {e: lead(found.every(f"eps3 {e:g}", "spread"), found.every("eps3 0", "spread")) for e in eps3[1:]}
    price = {e: lead(found.every(f"eps3 {e:g}"), found.every("eps3 0")) for e in eps3[1:]}
    free = [e for e in eps3[1:] if spread[e].low > 0 and price[e].low > -0.1]
    n = found.each * len(found.every("eps3 0"))
    moves = max(one["released noise"] for one in found.worlds.values())
    return (
        *(found.target(way) for way in ("autoencoder", "score", "joint", "none")),
        found.lead("A prior makes pictures that a second network recognises more often.", best, "none", "judge"),
        found.lead("Climbing in a decoder's code, without a prior, beats climbing in pixels.", "none", "pixels",
                   "judge"),
        found.lead("With the prior it beats climbing in pixels.", best, "pixels", "judge"),
        Claim("The probability of the network that was climbed proves nothing.",
              "shown: in pixels it is 0.9 or more and the judge sees the class on less than half, intervals included",
              f"in pixels: own probability {own}, judge right {still}",
              verdict(own.low >= 0.9 and still.high < 0.5), n, "judge"),
        found.lead("A diffusion model's score is a better prior than an autoencoder of codes.", "score", "autoencoder",
                   "judge"),
        *(
            found.lead(f"Pictures {NAMED[way]} lie nearer to real ones than without a prior.", way, "none", "realism",
                       "nearest", -1)
            for way in ("autoencoder", "score", "joint")
        ),
        found.lead("Pictures without a prior, in a decoder's code, lie nearer to real ones than those of pixels.",
                   "none", "pixels", "realism", "nearest", -1),
        found.lead("A prior makes the pictures of one class differ more.", best, "none", "diversity", "spread"),
        found.lead("Too strong a prior ignores the class.", best, f"{best} too strong", "ε1"),
        found.lead("The same decoder serves another network with other classes: colours.", f"colours {best}",
                   "colours none", "plug and play"),
        Claim("Noise alone makes pictures of one class differ, from one start, in steps as the equation has them.",
              "shown: at some ε3 they differ more than without, and the judge loses no more than 10 points, intervals "
              "included; partly: they differ more at some ε3",
              "; ".join(f"ε3 {e:g}: differ by {a}, judge right {b}" for e, (a, b) in noises.items()),
              verdict(bool(free), any(s.low > 0 for s in spread.values())), n, "ε3"),
        Claim("The released ε3 of 1e-17 with steps of equal length is no noise.",
              "shown: chains from one start end at one code, to the last digit",
              f"largest difference {moves:g}", verdict(moves == 0), len(found.worlds) * 5, "ε3"),
    )  # fmt: skip


def report_of(
    args: argparse.Namespace, first: dict[str, Any], rows: dict[str, Any], best: Best, eps3: Sequence[float]
) -> Report:
    found, worlds = Found(rows, args.kinds, args.each), rows.values()
    prior = max(("autoencoder", "score"), key=lambda way: _at_best(first, way))
    arms = next(iter(worlds))["arms"]
    facts = {key: one["facts"] for key, one in rows.items()}
    return Report(
        "ppgn",
        "Does a prior make pictures that a second network recognises, over a decoder that was brought?",
        "Nguyen et al. 2017, arXiv:1612.00005",
        f"{' and '.join(args.kinds)} of 16 px: scikit-learn's digits, tinted, 397 held out; drawn shapes on cloudy "
        f"texture, 500 held out; worlds of each that are reported, with weights of their own: {args.worlds}; "
        f"{args.each} chains for each of 10 classes, from noise; one more world of digits chose the settings",
        f"from nothing: an AutoencoderKL of 4 × 4 × 4 codes, off by {_range(facts, 'held_out_error')} on pictures held "
        f"out, the mean picture by {_range(facts, 'mean_picture_error')}; a U-Net of its codes; right on pictures held "
        f"out: climbed {_right(worlds, 'climbed')}, judge {_right(worlds, 'judge')}, colours "
        f"{_right(worlds, 'colours')}, their judge {_right(worlds, 'colour_judge')}",
        command("ppgn"),
        machine(),
        round(sum(one["seconds"] for one in (first, *worlds)), 1),
        args.seed,
        claims_of(found, eps3, prior),
        (
            "Small networks and pictures of 16 pixels, not ImageNet; nothing of the authors' can be run today",
            "The decoder is a variational autoencoder, not a generator trained against a discriminator; its encoder is "
            "its own, not the network that is climbed",
            "The autoencoder of codes has three layers and keeps what a linear one would, where PPGN-h has seven",
            "The score is a diffusion model's at one step of the noise, which the paper does not have",
            "ε1 is in units in which 1 means that prior and score pull alike at the start",
            "Chains start at noise of the codes' own mean and spread, so that hardly a start shows its class",
            "Steps shorten evenly to nothing, where the authors keep their length for classes",
            "Intervals are over classes, as chains of one class end near one another; one of no width says that the "
            "judge was right on all",
            "The prior that is compared with none is the one that did better in the world that chose, the first of "
            "equal ones",
            "The distance to the nearest real picture was added once the sheets of pictures had been looked at",
            "Captions, inpainting and neurons were not measured",
        ),
        {
            "chosen": {way: dict(zip(("noise", "eps1", "first step"), v, strict=True)) for way, v in best.items()},
            "judged": {a: {k: mean_of(found.every(a, kind=k)).rounded() for k in args.kinds} for a in arms},
            "own": {a: mean_of(found.every(a, "own")).rounded() for a in arms},
            "nearest real one": {a: mean_of(found.every(a, "nearest")).rounded() for a in arms},
            "differ by": {a: mean_of(found.every(a, "spread")).rounded() for a in arms},
            "ladder": first["ladder"],
            "world that chose, judged": {a: round(float(np.mean(v["judged"])), 4) for a, v in first["arms"].items()},
            "noise left": {k: {p: f["noise_left"] for p, f in one.items()} for k, one in facts.items()},
            "cpu_seconds": round(sum(one["cpu"] for one in (first, *worlds)), 1),
        },
    )  # fmt: skip


def _at_best(first: dict[str, Any], way: str) -> float:
    """How often the judge is right of a way at its best, in the world that chose."""
    return max(float(np.mean(row["judged"])) for key, row in first["arms"].items() if key.startswith(way))


def _range(facts: dict[str, Any], of: str) -> str:
    values = [one["joint"][of] for one in facts.values()]
    return f"{min(values):.3f} to {max(values):.3f}"


def _right(worlds: Any, of: str) -> str:
    values = [one["right"][of] for one in worlds]
    return f"{min(values):.1%} to {max(values):.1%}"
