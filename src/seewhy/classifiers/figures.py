"""What is reported of the pictures held out: how often it was right, how sure that is, and what to expect of new ones.

Pictures of one day tell nothing of the next. What they can tell is how far the figure falls where they differ most: the
pictures of each class are parted in two by looks, and each half is decided by a fit on the other halves. Over pairs of
lists, one to fit on and a later one, the range held the later figure in 93 % (benchmarks/strangers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..metrics.calibration import accuracy_interval, calibration_error, reliability
from ..progress import Progress
from ..trust.measure import trust_features
from .encoded_set import EncodedSet, HeldOut
from .linear.solvers import fit_logistic

C = 100.0
"""Of a picture, where none was chosen on held-out pictures."""
DOWN, UP = 1.0, 0.7
"""Log odds by which the range goes at most below the interval of the held-out figure, and by which it goes above it."""
MOST = 3000
"""Pictures that are parted, at most."""
N_STARTS, N_ROUNDS = 4, 15


def common_figures(
    pictures: EncodedSet,
    n: int,
    held: HeldOut | None,
    progress: Progress,
    measured: Tensor | None = None,
    c: float | None = None,
) -> dict[str, Any]:
    """What every classifier that is fitted on pictures reports."""
    index = pictures.held.nonzero()[:, 0] if measured is None else measured
    figures: dict[str, Any] = {"held_out_accuracy": None, "held_out_interval": None, "held_out_calibration_error": None}
    how, expected = _split_facts(pictures, index), None
    if held is not None and held.logits is not None:
        confidence, decided = held.logits.softmax(1).max(1)
        right = decided == held.labels
        interval = accuracy_interval(right, held.groups)
        figures = {
            "held_out_accuracy": round(float(right.double().mean()), 4),
            "held_out_interval": [round(end, 4) for end in interval],
            "held_out_calibration_error": round(calibration_error(reliability(confidence, right)), 4),
        }
        if how is not None and how["by"] != "given":
            hardest = accuracy_between_halves(held.pooled, held.labels, len(pictures.classes), c)
            expected = None if hardest is None else expected_range(interval, hardest)
    return {
        **figures,
        "n_held_out": len(index) if held is None else len(held.labels),
        "measured_on": "validation pictures" if pictures.validation else "a part of the pictures",
        "split": how,
        "expected_range": expected and [round(end, 4) for end in expected],
        "n_pictures": n,
        "notes": list(progress.notes),
        "failures": [f.to_json() for f in progress.failures],
    }


def _split_facts(pictures: EncodedSet, index: Int[Tensor, " m"]) -> dict[str, Any] | None:
    """How those held out were kept apart from the others; ``None`` for the user's own validation pictures."""
    grouping = pictures.grouping
    if grouping is None or pictures.validation:
        return None
    lone = [k for k in pictures.labels.unique().tolist() if not bool((pictures.labels[index] == k).any())]
    return {
        "by": grouping.by,
        "threshold": None if grouping.threshold is None else round(grouping.threshold, 4),
        "n_groups": len(grouping.groups.unique()),
        "unmeasured_classes": [pictures.classes[k] for k in lone] if len(index) else [],
        "one_thing_classes": [pictures.classes[k] for k in grouping.one_thing],
    }


def held_out_lines(measures: dict[str, Any]) -> list[str]:
    """What ``fit`` prints of the held-out figure: what to expect, what it rests on, and what is not known."""
    right, how = measures.get("held_out_accuracy"), measures.get("split")
    if right is None:
        return ["no picture could be held out: how often it is right is not known"]
    low, high = measures["held_out_interval"]
    of, between = f"right on {right:.1%} of {measures['n_held_out']}", f"(95 % interval {low:.1%} to {high:.1%})"
    if how is None:
        return [f"{of} validation pictures {between}"]
    if how["by"] == "given":
        lines = [f"{of} pictures, each held out with all others of its group {between}: expect this of new groups"]
    else:
        kept = f"each held out with all others of the same thing ({how['n_groups']:,} things, by looks)"
        if how["by"] == "copies":
            kept = "held out at random; shots of the same things, if there are any, flatter it"
        lines = [_another_day(measures.get("expected_range")), f"{of} pictures {between}, {kept}"]
    if (flattered := measures.get("random_accuracy")) is not None:
        lines.append(f"on a random part, which holds shots of the same things, {flattered:.1%}")
    unknown = "may show one thing only, by looks: how well new things are recognised is not known"
    for key, what in (
        ("unmeasured_classes", "cannot be measured, since all pictures show one thing"),
        ("one_thing_classes", unknown),
    ):
        if names := how[key]:
            some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            lines.append(f"{len(names)} class{'es' if len(names) > 1 else ''} ({some}) {what}")
    return lines


def _another_day(expected: Sequence[float] | None) -> str:
    """What cannot be told comes first, then what can be expected, and how to know."""
    sentence = "nothing in these pictures tells whether another place or another day is harder"
    if expected is not None:
        sentence += f": expect {range_in_words(expected)} right"
    return f"{sentence}. To know, name visits, cameras or patients with --group, or run seewhy evaluate on new pictures"


def linear_fit(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int, c: float | None = None
) -> Callable[[Float[Tensor, "b d"]], Float[Tensor, "b k"]]:
    """A linear classifier of features, as ``linear`` fits one without crops: features → logits."""
    return fit_logistic(features, labels, n_classes, c or C, tol=1e-4).logits


def accuracy_between_halves(
    pooled: Float[Tensor, "n p"], labels: Int[Tensor, " n"], n_classes: int, c: float | None = None
) -> float | None:
    """Accuracy where each half of every class is decided by a fit on the other halves; ``None`` without two classes."""
    if len(labels) > MOST:
        some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:MOST]
        pooled, labels = pooled[some], labels[some]
    features, half = trust_features(pooled.float()), torch.zeros(len(labels), dtype=torch.long)
    for k in labels.unique().tolist():
        mine = (labels == k).nonzero()[:, 0]
        half[mine] = halves(features[mine])
    right = []
    for part in (0, 1):
        tested = half == part
        if not bool(tested.any()) or len(labels[~tested].unique()) < 2:
            return None
        logits = linear_fit(features[~tested], labels[~tested], n_classes, c)(features[tested])
        right.append(logits.argmax(1) == labels[tested])
    return float(torch.cat(right).double().mean())


def halves(features: Float[Tensor, "n d"], seed: int = 0) -> Int[Tensor, " n"]:
    """0 or 1 for each picture: two spherical means of what differs between them, the best of a few starts."""
    n = len(features)
    if n < 4:
        return torch.arange(n) % 2
    x = normalize(features - features.mean(0), dim=1)
    draw, best, chosen = torch.Generator().manual_seed(seed), -math.inf, torch.arange(n) % 2
    for _ in range(N_STARTS):
        centres = x[torch.randperm(n, generator=draw)[:2]]
        for _ in range(N_ROUNDS):
            nearest = (x @ centres.T).argmax(1)
            sums = torch.zeros_like(centres).index_add(0, nearest, x)
            centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, normalize(sums, dim=1), centres)
        fit = float((x @ centres.T).max(1).values.sum())
        if fit > best and len(nearest.unique()) == 2:
            best, chosen = fit, nearest
    return chosen


def expected_range(interval: tuple[float, float], hardest: float) -> tuple[float, float]:
    """Where the figure of another day may lie, by the interval of the held-out one and that between halves.

    Example:
        >>> [round(end, 2) for end in expected_range((0.84, 0.97), 0.65)]
        [0.66, 0.98]
    """
    low, high = interval
    return min(low, max(hardest, _moved(low, -DOWN))), _moved(high, UP)


def range_in_words(expected: Sequence[float]) -> str:
    """Whole per cents, rounded outwards.

    Example:
        >>> range_in_words((0.613, 0.9012))
        '61 to 91 %'
    """
    return f"{math.floor(expected[0] * 100)} to {math.ceil(expected[1] * 100)} %"


def log_odds_shift(measures: Mapping[str, Any]) -> tuple[float, float]:
    """By how much the log odds of being right may fall and rise, by the range that was measured; 0 without one."""
    expected, interval = measures.get("expected_range"), measures.get("held_out_interval")
    if expected is None or interval is None:
        return 0.0, 0.0
    return max(0.0, _log_odds(interval[0]) - _log_odds(expected[0])), UP


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def _moved(p: float, by: float) -> float:
    return 1 / (1 + math.exp(-(_log_odds(p) + by)))
