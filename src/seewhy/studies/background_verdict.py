"""Whether a model leans on the background: figures of each class, and the rule that makes yes, no or undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..evaluation.faithfulness import N_FEWEST
from .background_versions import ALONE
from .bootstrap import EQUAL, figure, holm, paired_means, rounded
from .differences import Error, one_sided, within

LEAST = 0.05
"""Of the score, between backgrounds of the own class and of others, below which nobody would call it leaning."""
SHOWN = ("original", "same class", "other classes", *ALONE[1:4])
"""Versions in tables: as it is, exchanged with two kinds of others, and three without another picture."""
ALL = "all pictures"


@dataclass(frozen=True)
class Answers:
    """What a model said to every version of every picture.

    Attributes:
        labels: place of each picture's class.
        score: probability of that class: the columns of :data:`ALONE`, then rounds of backgrounds of the same class,
            then of other classes; NaN where there was none.
        right: whether that class was decided for, likewise.
    """

    labels: Int[Tensor, " n"]
    score: Float[Tensor, "n v"]
    right: Float[Tensor, "n v"]

    @property
    def apart(self) -> Float[Tensor, "n r"]:
        """Score on a background of the same class, less that on one of another, round by round."""
        same, other = self.score[:, len(ALONE) :].chunk(2, 1)
        return same - other

    @property
    def object_cost(self) -> Float[Tensor, " n"]:
        """By how much more the score falls when the object is filled than when as much elsewhere is."""
        return self.score[:, ALONE.index("elsewhere filled")] - self.score[:, ALONE.index("object filled")]

    def shown(self, of: Float[Tensor, "n v"]) -> Float[Tensor, "n s"]:
        """The columns of :data:`SHOWN`, rounds averaged."""
        same, other = (part.nanmean(1) for part in of[:, len(ALONE) :].chunk(2, 1))
        return torch.stack([of[:, 0], same, other, *of[:, 1:4].unbind(1)], 1)


def rule(level: float) -> str:
    """What makes a verdict, as it is written before any figure."""
    return (
        "Each object is laid on backgrounds of its own class and of other classes, cut and filled in the same way. "
        f"Yes: its score is higher on those of its own class by {LEAST:.2f} at least, and the one-sided p value of any "
        f"difference, corrected over all classes and all pictures together (Holm), is below {1 - level:.2g}. No: the "
        f"corrected p value of a difference of {LEAST:.2f} is below {1 - level:.2g}. Otherwise, and with fewer than "
        f"{N_FEWEST} pictures, undecided. Where a machine drew the masks, yes also needs that filling the object costs "
        "more than filling as much elsewhere: masks that miss the object would look like a model that leans."
    )


def error_of(apart: Float[Tensor, "n r"]) -> Error:
    """Standard error of the mean: of one round, as other rounds lend the same backgrounds out again.

    >>> round(error_of(torch.tensor([[1.0, 3.0], [0.0, 0.0], [2.0, 0.0]])).size, 3)
    0.816
    """
    n, rounds = len(apart), [column[column.isfinite()].double() for column in apart.unbind(1)]
    spread = [float(one.var()) for one in rounds if len(one) > 1]
    return Error((sum(spread) / max(1, len(spread)) / n) ** 0.5, max(1, n - 1))


def judged(
    parts: Mapping[str, Bool[Tensor, " n"]], answers: Answers, masks_hit: bool, level: float, n_draws: int, seed: int
) -> list[dict[str, Any]]:
    """The row, with its verdict, of each part of the pictures, such as a class; ``masks_hit`` says whether the masks
    may be believed to be where the object is."""
    rows, p_values = [], []
    for name, chosen in parts.items():
        apart = answers.apart[chosen]
        error, value = error_of(apart), float(apart.nanmean(1).double().mean())
        off = within(level, [error])
        p_values.append((one_sided(value, error), one_sided(LEAST - value, error)))
        rows.append(
            {
                "label": name, "n": int(chosen.sum()), "difference": figure(value, (value - off, value + off)),
                "versions": _versions(answers, chosen, level, n_draws, seed),
            }
        )  # fmt: skip
    for row, p_yes, p_no in zip(rows, *(holm(p) for p in zip(*p_values, strict=True)), strict=True):
        verdict = _verdict(row["difference"]["value"], row["n"], p_yes, p_no, 1 - level)
        row |= {"p_leans": float(f"{p_yes:.3g}"), "p_leans_not": float(f"{p_no:.3g}")}
        row["verdict"] = "undecided" if verdict == "yes" and not masks_hit else verdict
    return rows


def _verdict(value: float, n: int, p_yes: float, p_no: float, alpha: float) -> str:
    if n < N_FEWEST:
        return "undecided"
    if value >= LEAST and p_yes < alpha - EQUAL:
        return "yes"
    return "no" if p_no < alpha - EQUAL else "undecided"


def _versions(
    answers: Answers, chosen: Bool[Tensor, " n"], level: float, n_draws: int, seed: int
) -> list[dict[str, Any]]:
    """Accuracy and score of each version, and what it has more than the original, on the same drawn pictures."""
    both = torch.cat([answers.shown(answers.right)[chosen], answers.shown(answers.score)[chosen]], 1)
    drawn = paired_means(both, n_draws=n_draws, level=level, seed=seed)

    def cell(i: int, original: int) -> dict[str, Any]:
        change, interval, _ = drawn.difference(i, original)
        return {**drawn.figure(i), "change": round(change, 4), "change_interval": rounded(interval)}

    first = {"accuracy": 0, "score": len(SHOWN)}
    return [
        {"version": name, **{measure: cell(k + i, k) for measure, k in first.items()}} for i, name in enumerate(SHOWN)
    ]


def mask_check(answers: Answers, level: float) -> dict[str, Any]:
    """Whether filling the object costs more than filling as much elsewhere, over all pictures."""
    costs = answers.object_cost[:, None]
    error, value = error_of(costs), float(costs.double().mean())
    off, p = within(level, [error]), one_sided(value, error)
    return {**figure(value, (value - off, value + off)), "p": float(f"{p:.3g}"), "hit": p < 1 - level - EQUAL}


def overall(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the model: yes where any row says so, no where that of all pictures does, else undecided."""
    verdicts = {row["label"]: str(row["verdict"]) for row in rows}
    return "yes" if "yes" in verdicts.values() else verdicts[ALL]
