"""Predict how many more pictures a target accuracy needs, from the learning curve of a classifier."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Bound, Checked
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..errors import DataError
from ..pictures.samples import Samples
from ..printable import percent
from ..progress import Progress, shown
from ..report.blocks import pair, points
from ..storage.features import FeatureStore
from . import pages
from .learning_curve import FormFit, LearningCurve, learning_curve, resample
from .material import LEAST_PER_CLASS, Material, classifier_text, look_with_each, subset_order
from .study import Findings, Row, beside, bits, from_bits, measured

Draws = Literal["nested", "independent"]
LEAST_RATIO = 3
"""Smallest ratio of the largest training set to the smallest."""
LEVELS = (0.9, 0.95)
UNLIKELY = 0.2
"""Share of resamples that must reach a target within the predicted range, or else the target counts as unlikely."""
NEVER = 2.0**30
"""Multiple of the measured pictures beyond which a target counts as never reached."""


@dataclass(frozen=True)
class Arm:
    """The conditions of one learning curve: encoder, share of wrong labels, and number of classes."""

    encoder: str
    noise: float = 0.0
    n_classes: int | None = None

    @property
    def name(self) -> str:
        wrong = f", {100 * self.noise:.0f} % of labels wrong" if self.noise else ""
        return f"{self.encoder}{wrong}" + ("" if self.n_classes is None else f", {self.n_classes} classes")

    def classes(self, n: int, seed: int) -> list[int]:
        every = range(n)
        return sorted(
            every if self.n_classes is None else random.Random(f"classes {seed}").sample(every, self.n_classes)
        )


@dataclass(frozen=True)
class ScalingStudy(Checked):
    """A study of the accuracy of ``seewhy fit`` with increasing numbers of pictures, and its prediction for more
    pictures.

    The classifier is always tested on the same held-out pictures. For every size, the regularisation is chosen by
    cross-validation on the first subset. The form of the curve is the one that best predicts larger sizes, which are
    held out (:mod:`.learning_curve`). The intervals take into account seeds, subsets, test pictures, and other forms
    that predict nearly as well.

    Args:
        target: wanted accuracy, between 0 and 1; default: report the gain from doubling the pictures.
        n_sizes: number of subset sizes; the largest subset has all training pictures. More sizes describe the curve
            better.
        n_seeds: number of subsets of each size; more subsets give narrower intervals.
        draws: how to draw subsets: ``nested``, so that a larger subset contains the smaller ones, or ``independent``.
        recipe: classifier to fit.
        held_out: fraction of the pictures to test on, 0 to 1, if no test pictures are given; pictures of the same
            object stay together.
        beyond: largest number of pictures for the prediction, as a multiple of the training pictures; larger numbers
            are less certain.
        noise: fractions of the labels to make wrong, 0 to 1, separated by commas; each fraction adds a curve.
        n_classes: numbers of classes to use, each at least 2, separated by commas; each number adds a curve.
        n_draws: number of resampled sets for the intervals.
        seed: seed for the split, the subsets and the resampling.
    """

    noun = "the study"

    target: float | None = None
    n_sizes: Annotated[int, Bound(3)] = 7
    n_seeds: Annotated[int, Bound(2)] = 5
    draws: Draws = "nested"
    recipe: Linear = field(default_factory=lambda: Linear(n_crops=0))
    held_out: float = 0.2
    beyond: Annotated[float, Bound(1)] = 4.0
    noise: tuple[float, ...] = ()
    n_classes: tuple[int, ...] = ()
    n_draws: int = 1000
    seed: int = 0

    @shown("Working out the answer")
    def run(
        self,
        encoders: Mapping[str, Encoder],
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Run the study; fits found in ``folder`` are not repeated. The answer is for the first encoder."""
        progress = progress or Progress()
        self._check(len(samples.classes))
        materials = look_with_each(
            encoders, samples, self.recipe, held_out=self.held_out, seed=self.seed, test=test, store=store,
            progress=progress,
        )  # fmt: skip
        return self.on(materials, folder, is_cut=test is None, progress=progress)

    def on(
        self, materials: Mapping[str, Material], folder: Path | None = None, *, is_cut: bool, progress: Progress
    ) -> Findings:
        """Run the study on encoded pictures; ``is_cut``: test pictures were split off from the training pictures."""
        for each in materials.values():
            _check_enough(each)
        first = next(iter(materials))
        arms = [Arm(name) for name in materials]
        arms += [Arm(first, noise=part) for part in self.noise]
        arms += [Arm(first, n_classes=count) for count in self.n_classes]
        material, how = materials[first], {"n_draws": self.n_draws, "seed": self.seed}
        groups, curves = material.pictures.groups[material.test], []
        for arm, cells in self._measured(arms, materials, folder, progress).items():
            right, nested = torch.tensor(list(cells.values())), self.draws == "nested"
            errors, draws, by_seed = resample(right, groups, nested=nested, **how)
            sizes, top = torch.tensor(list(cells)).double(), 1 - 1 / (arm.n_classes or len(material.classes))
            curves.append(Curve(arm, by_seed, learning_curve(sizes, errors, draws, top=top, seed=self.seed)))
        return Findings(self._findings(curves, material, is_cut, progress), pages.scaling)

    def _check(self, known: int) -> None:
        if self.target is not None and not 0 < self.target < 1:
            raise DataError(
                f"`target` must be an accuracy between 0 and 1, got {self.target:g}. Use --target 0.95, for example."
            )
        if wrong := [part for part in self.noise if not 0 < part < 1]:
            raise DataError(f"`noise` must be the fraction of wrong labels, between 0 and 1, got {wrong[0]:g}.")
        if few := [count for count in self.n_classes if not 2 <= count < known]:
            raise DataError(
                f"`n_classes` must be from 2 to {known - 1}, because the pictures have {known} classes, got {few[0]}."
            )

    def _measured(
        self, arms: Sequence[Arm], materials: Mapping[str, Material], folder: Path | None, progress: Progress
    ) -> dict[Arm, dict[int, list[list[int]]]]:
        """Return, per arm, size, seed and test picture, 1 for a correct prediction, 0 for a wrong one, -1 for none."""
        digests = {name: material.digest() for name, material in materials.items()}
        planned = [
            (arm, size, seed)
            for arm in arms
            for size in sizes(materials[arm.encoder], arm, self.n_sizes)
            for seed in range(self.seed, self.seed + self.n_seeds)
        ]
        chosen: dict[tuple[Arm, int], float] = {}

        def key(arm: Arm, size: int, seed: int) -> str:
            return f"{digests[arm.encoder]} {arm.noise} {arm.n_classes} {size} {seed} {self.draws}"

        def fit(arm: Arm, size: int, seed: int) -> Row:
            right, c = cell(materials[arm.encoder], arm, size, seed, self.draws, chosen.get((arm, size)))
            return {"right": bits(right.tolist()), "curve": {"arm": arm.name, "n": size, "C": c}}

        found: dict[Arm, dict[int, list[list[int]]]] = {arm: {} for arm in arms}
        for (arm, size, _), row in measured(planned, key, fit, folder, progress, "Fitting on more and more pictures"):
            chosen.setdefault((arm, size), row["curve"]["C"])
            found[arm].setdefault(size, []).append(from_bits(row["right"]))
        return found

    def _findings(self, curves: Sequence[Curve], material: Material, is_cut: bool, progress: Progress) -> Row:
        base, have = curves[0], len(material.labels) if is_cut else len(material.pool)
        settings = {name: getattr(self, name) for name in ("n_sizes", "n_seeds", "draws", "n_draws", "beyond", "seed")}
        data = {
            "study": "scaling", "target": self.target,
            "answer": None if self.target is None else answered(base, self.target, have, self.beyond),
            "tested_range": [int(base.fit.sizes[0]), int(base.fit.sizes[-1])],
            "n": len(material.labels), "n_have": have, "n_test": len(material.test), "n_classes": len(material.classes),
            "classifier": classifier_text(self.recipe), "arms": [_arm(curve, base, self.beyond) for curve in curves],
            "settings": {**settings, "levels": list(LEVELS)},
            "model": {"encoder": base.arm.encoder, "fingerprint": material.encoder.fingerprint[:12]},
            **beside(progress),
        }  # fmt: skip
        return {**data, "sentence": sentence(data)}


def _check_enough(material: Material) -> None:
    each, names = LEAST_RATIO * LEAST_PER_CLASS, material.classes
    if len(material.pool) < each * len(names):
        raise DataError(
            f"At least {each} training pictures per class ({each * len(names)} in all) are needed for three sizes, got "
            f"{len(material.pool)} pictures of {len(names)} classes. Add pictures, or give test pictures with --test."
        )


def sizes(material: Material, arm: Arm, n_sizes: int) -> list[int]:
    """Return sizes that rise geometrically up to all pictures, with at least :data:`LEAST_PER_CLASS` of each class."""
    classes = [arm.classes(len(material.classes), seed) for seed in range(5 if arm.n_classes else 1)]
    labels = material.labels[material.pool]
    most = min(int(torch.isin(labels, torch.tensor(own)).sum()) for own in classes)
    least = max(LEAST_PER_CLASS * len(classes[0]), round(most / 64))
    steps = torch.logspace(0, 1, n_sizes, base=most / least).double() * least
    return sorted({round(float(v)) for v in steps})


def cell(
    material: Material, arm: Arm, size: int, seed: int, draws: Draws, c: float | None
) -> tuple[Int[Tensor, " t"], float]:
    """Fit a classifier on ``size`` pictures; return the correctness of each test picture and ``C``. A picture counts as
    1 if it is predicted correctly, otherwise as 0, or as -1 if its class is not used. If ``c`` is ``None``, ``C`` is
    chosen by cross-validation.
    """
    own = arm.classes(len(material.classes), seed)
    labels = noisy(material.labels, material.pool, own, arm.noise, seed)
    order = subset_order(material.labels, material.pool, own, seed if draws == "nested" else f"{seed} {size}")[:size]
    number = torch.full((len(material.classes),), -1)
    number[own] = torch.arange(len(own))
    part = material.part(order, number[labels[order]], [material.classes[k] for k in own], seed)
    head, c = material.fitted(part, c)
    truth = number[material.labels[material.test]]
    with torch.no_grad():
        said = head(material.tested).argmax(1)
    return torch.where(truth < 0, -1, (said == truth).long()), c


def noisy(
    labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], classes: Sequence[int], noise: float, seed: int
) -> Int[Tensor, " n"]:
    """Return the labels with a share ``noise`` of the training labels changed, the same ones for every size."""
    changed = labels.clone()
    for place in pool.tolist() if noise > 0 else ():
        draw = random.Random(f"noise {seed} {place}")
        if draw.random() < noise:
            others = [k for k in classes if k != int(labels[place])]
            changed[place] = others[draw.randrange(len(others))]
    return changed


@dataclass(frozen=True)
class Curve:
    """A fitted learning curve and the measured errors by size and seed, for one set of conditions (:class:`Arm`)."""

    arm: Arm
    by_seed: Float[Tensor, "s r"]
    fit: LearningCurve


def answered(curve: Curve, target: float, have: int, beyond: float) -> dict[str, Any]:
    """Return how many more pictures the target needs, as one of these kinds.

    * ``"more"``: an interval of numbers.
    * ``"enough"``: the present number of pictures is about enough.
    * ``"open"``: an interval whose upper end is beyond the predicted range.
    * ``"unlikely"``: few resamples reach the target within this range, or most never reach it.
    * ``"far"``: more than this range.
    * ``"unreachable"``: the target cannot be reached.
    """
    reached, largest = 1 - float(curve.fit.errors.min()), float(curve.fit.sizes[-1])
    if target <= reached:
        raise DataError(
            f"`target` must be above {reached:.3f}, the accuracy that {int(largest)} training pictures already reach, "
            f"got {target:.3f}. Give a higher target, or leave it out."
        )
    most = largest * beyond
    needed = curve.fit.crossing(1 - target, largest * NEVER, 3000)
    low, high = _pair(needed, LEVELS[0])
    reach = float((needed <= most).double().mean())
    never = float(needed.isinf().double().mean())
    kind = "unreachable" if never >= (1 + LEVELS[0]) / 2 else "unlikely" if never > 0.5 else "far"
    if low <= most:
        kind = "enough" if high <= have else "more" if high <= most else "open" if reach >= UNLIKELY else "unlikely"

    def more(size: float, less: int = 0) -> int | None:
        return None if size > most else max(0, rounded(size - less))

    sides, median = (low, high), _pair(needed, 0.0)[0]
    return {
        "kind": kind, "level": LEVELS[0], "more": [more(v, have) for v in sides], "needed": [more(v) for v in sides],
        "median": more(median), "reached_within": round(reach, 4), "most": int(most),
    }  # fmt: skip


def rounded(count: float) -> int:
    """Round to two significant digits."""
    if count < 1:
        return 0
    digits = max(0, int(math.log10(count)) - 1)
    return int(round(count / 10**digits) * 10**digits)


def sentence(data: dict[str, Any]) -> str:
    low, high = data["tested_range"]
    tested = f"Tested with {low:,} to {high:,} pictures."
    arm, answer = data["arms"][0], data["answer"]
    slope = arm["slope"]
    change, interval = points(slope["value"], sign=True), pair(slope["interval_90"], sign=True)
    doubling = f"Doubling the pictures changed accuracy by {change} points ({interval}; 90 % interval)."
    if answer is None:
        ahead = arm["predictions"][0]
        a, b = ahead["interval_90"]
        outlook = f"With {ahead['n']:,} pictures, accuracy will be {100 * a:.1f} to {100 * b:.1f} % (90 % interval)."
        return f"{outlook} {doubling} {tested}"
    target, most = f"{100 * data['target']:.1f} %".replace(".0 %", " %"), f"{answer['most']:,}"
    least, enough = ("" if n is None else f"{n:,}" for n in answer["more"])
    said = {
        "more": f"To reach {target}, add between {least} and {enough} pictures (90 % interval).",
        "enough": f"The {data['n_have']:,} pictures you have should be enough for {target} (90 % interval).",
        "open": f"To reach {target}, add at least {least or 0} pictures (with 95 % confidence). Even with {most} "
        f"pictures in all, the most that SeeWhy predicts for, only {percent(answer['reached_within'], ' ')} of the "
        f"resampled curves reach this accuracy.",
        "unlikely": f"This encoder will probably not reach {target}. Even with {most} pictures in all, the most "
        f"that SeeWhy predicts for, only {percent(answer['reached_within'], ' ')} of the resampled curves reach this "
        f"accuracy.",
        "far": f"To reach {target}, you need more than {most} pictures in all (with 95 % confidence), more than SeeWhy "
        "predicts for. To predict further, raise --set beyond.",
        "unreachable": f"This encoder does not reach {target}, however many pictures you add (with 95 % confidence).",
    }[answer["kind"]]
    return f"{said} {doubling} {tested}"


def _arm(curve: Curve, base: Curve, beyond: float) -> dict[str, Any]:
    found, seen, arm = curve.fit, float(curve.fit.sizes[-1]), curve.arm
    grid = torch.logspace(0, math.log10(beyond * seen / float(found.sizes[0])), 60).double() * found.sizes[0]
    ahead = torch.tensor([seen * 2**k for k in range(1, max(2, int(math.log2(beyond)) + 1))]).double()
    band, said = 1 - found.at(grid), 1 - found.at(ahead)
    right, draws = 1 - curve.by_seed, 1 - found.resampled
    measured_at = [
        {"n": int(n), "accuracy": _r(right[i].mean()), "by_seed": list(map(_r, right[i])), **_intervals(draws[:, i])}
        for i, n in enumerate(found.sizes)
    ]
    predicted = [
        {"n": rounded(float(n)), "accuracy": _r(said[:, i].median()), **_intervals(said[:, i])}
        for i, n in enumerate(ahead)
    ]
    drawn = [
        {"n": _r(n, 1), "accuracy": _r(band[:, i].median()), "interval_90": _pair(band[:, i], 0.9)}
        for i, n in enumerate(grid)
    ]
    return {
        "name": arm.name, "encoder": arm.encoder, "noise": arm.noise, "n_classes": arm.n_classes, "points": measured_at,
        "slope": _summary(*found.slopes()), "floor": _summary(*found.floors()),
        "form": found.form.form.name, "forms": [_form(fit) for fit in found.forms], "predictions": predicted,
        "band": drawn, "against": None if curve is base else _against(curve, base),
    }  # fmt: skip


def _form(fit: FormFit) -> dict[str, Any]:
    return {
        "name": fit.form.name, "formula": fit.form.formula, "paper": fit.form.paper,
        "numbers": [float(f"{v:.4g}") for v in fit.found[0].tolist()],
        "held_out_error": None if math.isinf(fit.off) else round(fit.off, 4), "n_held_out": fit.n_cuts,
        "share": round(fit.share, 4), "n_failed": int(fit.failed.sum()), "n_fits": len(fit.draws),
    }  # fmt: skip


def _against(curve: Curve, base: Curve) -> dict[str, Any]:
    """Return the differences from the first arm: accuracy at the largest size, slope, and worth of a picture."""
    own, other, worth = curve.fit, base.fit, worth_of(curve.fit, base.fit)
    (slopes, slope), (before, was) = own.slopes(), other.slopes()
    finite = worth[worth.isfinite()]
    return {
        "accuracy": _summary(other.resampled[:, -1] - own.resampled[:, -1], other.errors[-1] - own.errors[-1]),
        "slope": _summary(slopes - before, slope - was),
        "worth": None if len(finite) < len(worth) / 2 else _summary(finite, finite.median()),
        "n_beyond": len(worth) - len(finite),
    }


def worth_of(curve: LearningCurve, base: LearningCurve) -> Float[Tensor, " d"]:
    """Return the worth of a picture of this curve, relative to a picture of the base curve.

    The worth is the number of pictures with which the base has the error of this curve's largest size, divided by this
    size. The base curve is interpolated; the worth is infinite outside its range.
    """
    asked, n = curve.resampled[:, -1:], base.sizes.log()
    errors = base.resampled.cummin(1).values
    after = (errors > asked).sum(1).clamp(1, errors.shape[1] - 1)
    rows = torch.arange(len(errors))
    high, low = errors[rows, after - 1], errors[rows, after]
    part = (high - asked[:, 0]) / (high - low).clamp(min=1e-9)
    inside = (part >= 0) & (part <= 1)
    size = (n[after - 1] + part * (n[after] - n[after - 1])).exp()
    return torch.where(inside, size / float(curve.sizes[-1]), torch.inf)


def _summary(draws: Tensor, value: Tensor) -> dict[str, Any]:
    return {"value": _r(value), **_intervals(draws)}


def _intervals(draws: Tensor) -> dict[str, list[float]]:
    return {f"interval_{level * 100:.0f}": _pair(draws, level) for level in LEVELS}


def _pair(draws: Tensor, level: float) -> list[float]:
    """Return an interval by nearest-rank quantiles, because draws may be infinite."""
    ordered, last = draws.sort().values, len(draws) - 1
    return [_r(ordered[min(last, round(part * last))]) for part in ((1 - level) / 2, (1 + level) / 2)]


def _r(value: Tensor, digits: int = 4) -> float:
    return round(float(value), digits)
