"""Whether decisions are worse on one part of the pictures: of one site, camera, person."""

from __future__ import annotations

from math import comb, sqrt
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ...errors import DataError
from ...pictures.samples import some
from ..bootstrap import holm
from .check import Check, Material
from .limit import Figure, Limit, missing

FEWEST = 10
"""Pictures that a part needs to be judged."""
ALPHA = 0.05
Counts = tuple[int, int, int, int]
"""Right and all of a part, right and all of the rest."""


def fisher(right: int, n: int, right_rest: int, n_rest: int) -> float:
    """Fisher's exact test, two-sided: how often tables at least as unlikely come of nothing.

    >>> round(fisher(1, 10, 11, 14), 5)
    0.00276
    """
    total, all_right = n + n_rest, right + right_rest
    whole = comb(total, n)
    ways = [
        comb(all_right, k) * comb(total - all_right, n - k)
        for k in range(max(0, n - (total - all_right)), min(n, all_right) + 1)
    ]
    here = comb(all_right, right) * comb(total - all_right, n - right)
    return sum(w for w in ways if w <= here) / whole


def apart(counts: Counts, level: float) -> tuple[float, float]:
    """Newcombe's interval (1998, method 10) of the rest's share less this part's.

    >>> [round(v, 3) for v in apart((48, 80, 56, 70), 0.95)]
    [0.052, 0.334]
    """
    right, n, right_rest, n_rest = counts
    a, b = right_rest / n_rest, right / n
    (low_a, high_a), (low_b, high_b) = _wilson(a, n_rest, level), _wilson(b, n, level)
    return (
        a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2),
        a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2),
    )


def _wilson(part: float, n: int, level: float) -> tuple[float, float]:
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle, half = part + z2 / (2 * n), sqrt(z2 * (part * (1 - part) / n + z2 / (4 * n * n)))
    return (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)


class GroupGap(Check):
    """How much worse decisions are on one group than on all others together, for the group that is worst off.

    Intervals hold for all groups together (Bonferroni); p values are Fisher's, corrected by Holm's rule.
    """

    name, title = "group_gap", "Groups treated alike"
    told = "Accuracy of all other groups less that of the worst group (--group COLUMN); intervals hold for all groups."
    side, preset, bound, required, low = "at_most", 0.05, "best", False, -1.0

    def measure(self, material: Material, limit: Limit) -> Figure:
        if not material.grouped:
            return missing("No groups are known. Name the column that has them with --group.")
        names = [s.group for s in material.items]
        if empty := [s.image for s in material.items if s.group is None]:
            raise DataError(
                f"{len(empty)} of {len(names)} pictures are of no group: {some(empty, 3)}. A group for each was "
                "expected. Fill the column, or leave these out."
            )
        rows = group_rows(dict.fromkeys(str(n) for n in names), [str(n) for n in names], material.right)
        judged = [row for row in rows if row["gap"] is not None]
        if len(judged) < 2:
            return missing(
                f"{len(judged)} of {len(rows)} groups have {FEWEST} pictures. Two such groups, at least, are needed."
            )
        worst = max(judged, key=lambda row: limit.judged(Figure(row["gap"], tuple(row["interval"]))) or -1.0)
        said = (
            f"On {worst['group']} ({worst['n']} pictures) it is right on {worst['accuracy']:.1%}, on all others on "
            f"{worst['accuracy_rest']:.1%} (p = {worst['p']:.2g}, corrected over {len(judged)} groups)."
        )
        few = len(rows) - len(judged)
        said += f" {few} groups with fewer than {FEWEST} pictures are not judged." if few else ""
        return Figure(worst["gap"], tuple(worst["interval"]), worst["n"], said, rows)


def group_rows(groups: Any, names: list[str], right: Bool[Tensor, " n"]) -> list[dict[str, Any]]:
    """Each group's accuracy beside that of all others; groups that are too small have no gap."""
    rows: list[dict[str, Any]] = []
    for group in sorted(groups):
        mine = torch.tensor([n == group for n in names])
        n, n_right = int(mine.sum()), int(right[mine].sum())
        rest, rest_right = int((~mine).sum()), int(right[~mine].sum())
        large = n >= FEWEST and rest >= FEWEST
        rows.append(
            {
                "group": group, "n": n, "accuracy": round(n_right / n, 4),
                "accuracy_rest": round(rest_right / rest, 4) if rest else None,
                "gap": rest_right / rest - n_right / n if large else None,
                "interval": None, "p": fisher(n_right, n, rest_right, rest) if large else None,
                "counts": (n_right, n, rest_right, rest),
            }
        )  # fmt: skip
    judged = [row for row in rows if row["gap"] is not None]
    for row, p in zip(judged, holm([row["p"] for row in judged]), strict=True):
        low, high = apart(row["counts"], 1 - ALPHA / len(judged))
        row |= {"gap": round(row["gap"], 4), "interval": [round(low, 4), round(high, 4)], "p": p}
    return [{k: v for k, v in row.items() if k != "counts"} for row in rows]
