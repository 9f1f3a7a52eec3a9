"""From cells to curves, and from curves to the answer: how many more pictures, in which doubt, within which range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError
from ..printable import percent
from ..progress import Progress
from .learning_curve import FormFit, LearningCurve, learning_curve
from .material import Material, classifier_text
from .scaling_cells import Arm
from .scaling_draws import Resampled, resample

if TYPE_CHECKING:
    from .scaling import ScalingStudy

LEVELS = (0.9, 0.95)
UNLIKELY = 0.2
"""Part of the draws that reach a target within what is foretold, below which it is probably out of reach."""
NEVER = 2.0**30
"""Times what was seen: what is not reached by then is not reached."""


@dataclass(frozen=True)
class Measured:
    """An arm's cells.

    Attributes:
        arm: what was varied.
        sizes: rising.
        right: of each size, seed and test picture; -1 where it was not asked.
    """

    arm: Arm
    sizes: Sequence[int]
    right: Int[Tensor, "s r t"]


@dataclass(frozen=True)
class Curve:
    """An arm's curve with what it was drawn from."""

    arm: Arm
    resampled: Resampled
    curve: LearningCurve

    @property
    def sizes(self) -> Float[Tensor, " s"]:
        return self.curve.sizes


def findings(
    study: ScalingStudy, measured: Sequence[Measured], material: Material, have: int, progress: Progress
) -> dict[str, Any]:
    """The study's JSON.

    Args:
        study: its settings.
        measured: the first arm answers.
        material: of the first arm.
        have: pictures that the user has.
        progress: with notes and failures.

    Raises:
        DataError: the target is reached already.
    """
    groups = material.pictures.groups[material.test]
    curves = [_curve(one, groups, study, len(material.pictures.classes)) for one in measured]
    base = curves[0]
    seen = int(base.sizes[-1])
    answer = None if study.target is None else answered(base, study.target, have, study.beyond)
    data = {
        "study": "scaling",
        "sentence": "",
        "target": study.target,
        "answer": answer,
        "tested_range": [int(base.sizes[0]), seen],
        "n": len(material.pictures.labels),
        "n_have": have,
        "n_test": len(groups),
        "n_classes": len(material.pictures.classes),
        "classifier": classifier_text(study.recipe),
        "arms": [_arm(curve, base, study) for curve in curves],
        "settings": {
            "n_sizes": study.n_sizes,
            "n_seeds": study.n_seeds,
            "draws": study.draws,
            "n_draws": study.n_draws,
            "levels": list(LEVELS),
            "beyond": study.beyond,
            "seed": study.seed,
        },
        "model": {"encoder": base.arm.encoder, "fingerprint": material.encoder.fingerprint[:12]},
        "notes": list(progress.notes),
        "failures": [f.to_json() for f in progress.failures],
    }
    return {**data, "sentence": sentence(data)}


def _curve(one: Measured, groups: Tensor, study: ScalingStudy, n_classes: int) -> Curve:
    found = resample(one.right, groups, nested=study.draws == "nested", n_draws=study.n_draws, seed=study.seed)
    sizes = torch.tensor(one.sizes).double()
    top = 1 - 1 / (one.arm.n_classes or n_classes)
    return Curve(one.arm, found, learning_curve(sizes, found.errors, found.draws, top=top, seed=study.seed))


def answered(curve: Curve, target: float, have: int, beyond: float) -> dict[str, Any]:
    """How many more pictures, as what can be said of it.

    ``kind`` is ``"more"``: between two numbers; ``"enough"``: about those there are; ``"open"``: at least so many, and
    perhaps more than is foretold; ``"unlikely"``: probably out of reach, as few of the draws reach it within what is
    foretold, or most of them never; ``"far"``: more than is foretold; ``"unreachable"``: no number would do.

    Raises:
        DataError: it is reached already by what was measured.
    """
    reached = 1 - float(curve.resampled.errors.min())
    seen = float(curve.sizes[-1])
    if target <= reached:
        raise DataError(
            f"The target {target:.1%} is reached already: {reached:.1%} of the test pictures are right after learning "
            f"from {int(seen)} pictures. A higher one was expected. Give more than {reached:.3f}, or leave it out."
        )
    most = seen * beyond
    needed = curve.curve.crossing(1 - target, seen * NEVER, 3000)
    low, high = (float(v) for v in _quantiles(needed, LEVELS[0]))
    reach = float((needed <= most).double().mean())
    never = float(needed.isinf().double().mean())
    if high <= have:
        kind = "enough"
    elif high <= most:
        kind = "more"
    elif low <= most:
        kind = "open" if reach >= UNLIKELY else "unlikely"
    elif never >= (1 + LEVELS[0]) / 2:
        kind = "unreachable"
    else:
        kind = "unlikely" if never > 0.5 else "far"
    median = float(_quantile(needed, 0.5))
    return {
        "kind": kind,
        "level": LEVELS[0],
        "more": [_more(low, have, most), _more(high, have, most)],
        "needed": [_within(low, most), _within(high, most)],
        "median": _within(median, most),
        "reached_within": round(reach, 4),
        "most": int(most),
    }


def _more(size: float, have: int, most: float) -> int | None:
    return None if size > most else max(0, rounded(size - have))


def _within(size: float, most: float) -> int | None:
    return None if size > most else rounded(size)


def rounded(count: float) -> int:
    """To two digits that count.

    >>> rounded(2345), rounded(7.2), rounded(0)
    (2300, 7, 0)
    """
    if count < 1:
        return 0
    digits = max(0, int(math.log10(count)) - 1)
    return int(round(count / 10**digits) * 10**digits)


def sentence(data: dict[str, Any]) -> str:
    """The answer in words."""
    low, high = data["tested_range"]
    tested = f"tested range: {low:,} to {high:,} pictures"
    arm, answer = data["arms"][0], data["answer"]
    slope = arm["slope"]
    points = f"a doubling brought {slope['value'] * 100:.1f} points ({_range(slope['interval_90'])}, 90 %)"
    if answer is None:
        ahead = arm["predictions"][0]
        a, b = ahead["interval_90"]
        return f"With {ahead['n']:,} pictures {a:.1%} to {b:.1%} are right (90 %); {points}; {tested}."
    target, most = f"{data['target']:.1%}".replace(".0%", "%"), f"{answer['most']:,}"
    first, last = answer["more"]
    said = {
        "more": f"For {target}: between {first:,} and {last:,} more pictures (90 %)"
        if first is not None and last is not None
        else "",
        "enough": f"For {target}: the {data['n_have']:,} pictures there are should be enough (90 %)",
        "open": f"For {target}: at least {first or 0:,} more pictures (95 %); {most} in all, the most that is foretold,"
        f" may not be enough (they are in {answer['reached_within']:.0%} of the draws)",
        "unlikely": f"{target} is probably out of reach with this encoder: {most} pictures in all, the most that is "
        f"foretold, are enough in {percent(answer['reached_within'], ' ')} of the draws",
        "far": f"For {target}: more than {most} pictures in all (95 %), beyond what is foretold (--beyond "
        "foretells further)",
        "unreachable": f"{target} is not reachable with this encoder, however many pictures (95 %)",
    }[answer["kind"]]
    return f"{said}; {points}; {tested}."


def _range(interval: Sequence[float]) -> str:
    return f"{interval[0] * 100:.1f} to {interval[1] * 100:.1f}"


def _arm(curve: Curve, base: Curve, study: ScalingStudy) -> dict[str, Any]:
    found, seen = curve.curve, float(curve.sizes[-1])
    grid = torch.logspace(0, math.log10(study.beyond * seen / float(curve.sizes[0])), 60).double() * curve.sizes[0]
    ahead = torch.tensor([seen * 2**k for k in range(1, max(2, int(math.log2(study.beyond)) + 1))]).double()
    band, said = 1 - found.at(grid), 1 - found.at(ahead)
    return {
        "name": curve.arm.name,
        "encoder": curve.arm.encoder,
        "noise": curve.arm.noise,
        "n_classes": curve.arm.n_classes,
        "points": [_point(curve, i) for i in range(len(curve.sizes))],
        "slope": _summary(found.slopes(), float(_slope(found))),
        "floor": _summary(found.floors(), float(_floor(found))),
        "form": found.form.form.name,
        "forms": [_form(fit, study.n_draws) for fit in found.forms],
        "predictions": [
            {"n": rounded(float(n)), "accuracy": _r(said[:, i].median()), **_intervals(said[:, i])}
            for i, n in enumerate(ahead)
        ],
        "band": [
            {"n": _r(n, 1), "accuracy": _r(band[:, i].median()), "interval_90": _pair(band[:, i], 0.9)}
            for i, n in enumerate(grid)
        ],
        "against": None if curve is base else _against(curve, base),
    }


def _point(curve: Curve, i: int) -> dict[str, Any]:
    draws = 1 - curve.resampled.draws[:, i]
    return {
        "n": int(curve.sizes[i]),
        "accuracy": _r(1 - curve.resampled.by_seed[i].mean()),
        "by_seed": [_r(1 - v) for v in curve.resampled.by_seed[i]],
        **_intervals(draws),
    }


def _slope(found: LearningCurve) -> Tensor:
    return next(f.found[0, 1] for f in found.forms if not f.form.saturates)


def _floor(found: LearningCurve) -> Tensor:
    fit = next(f for f in found.forms if f.form.saturates)
    return fit.form.floor(fit.found)[0]


def _form(fit: FormFit, n_draws: int) -> dict[str, Any]:
    return {
        "name": fit.form.name,
        "formula": fit.form.formula,
        "paper": fit.form.paper,
        "numbers": [float(f"{v:.4g}") for v in fit.found[0].tolist()],
        "held_out_error": None if math.isinf(fit.off) else _r(torch.tensor(fit.off)),
        "n_held_out": fit.n_cuts,
        "share": round(fit.share, 4),
        "n_failed": int(fit.failed.sum()),
        "n_fits": n_draws,
    }


def _against(curve: Curve, base: Curve) -> dict[str, Any]:
    """What differs from the first arm: accuracy at the largest size, slope, and what a picture is worth."""
    last = base.resampled.draws[:, -1] - curve.resampled.draws[:, -1]
    worth = worth_of(curve, base)
    finite = worth[worth.isfinite()]
    return {
        "accuracy": _summary(last, float(base.resampled.errors[-1] - curve.resampled.errors[-1])),
        "slope": _summary(curve.curve.slopes() - base.curve.slopes(), float(_slope(curve.curve) - _slope(base.curve))),
        "worth": None if len(finite) < len(worth) / 2 else _summary(finite, float(finite.median())),
        "n_beyond": int((~worth.isfinite()).sum()),
    }


def worth_of(curve: Curve, base: Curve) -> Float[Tensor, " d"]:
    """How many pictures of the base one of this arm is worth, at this arm's largest size: a shift along the axis.

    The base's measured curve is read between its sizes (straight on the logarithm of the size), not foretold; infinite
    where the accuracy lies outside of what the base reached.
    """
    asked, n = curve.resampled.draws[:, -1:], base.sizes.log()
    errors = base.resampled.draws.cummin(1).values
    after = (errors > asked).sum(1).clamp(1, errors.shape[1] - 1)
    rows = torch.arange(len(errors))
    high, low = errors[rows, after - 1], errors[rows, after]
    part = (high - asked[:, 0]) / (high - low).clamp(min=1e-9)
    inside = (part >= 0) & (part <= 1)
    size = (n[after - 1] + part * (n[after] - n[after - 1])).exp()
    return torch.where(inside, size / float(curve.sizes[-1]), torch.inf)


def _summary(draws: Tensor, value: float) -> dict[str, Any]:
    return {"value": _r(torch.tensor(value)), **_intervals(draws)}


def _intervals(draws: Tensor) -> dict[str, list[float]]:
    return {f"interval_{level * 100:.0f}": _pair(draws, level) for level in LEVELS}


def _pair(draws: Tensor, level: float) -> list[float]:
    return [_r(v) for v in _quantiles(draws, level)]


def _quantiles(draws: Tensor, level: float) -> tuple[Tensor, Tensor]:
    return _quantile(draws, (1 - level) / 2), _quantile(draws, (1 + level) / 2)


def _quantile(draws: Tensor, part: float) -> Tensor:
    """By the nearest draw, as draws may be infinite."""
    ordered = draws.sort().values
    return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))]


def _r(value: Tensor, digits: int = 4) -> float:
    return round(float(value), digits)
