"""A measure before and after, on the same pictures: the shared line of every table of what a training changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pictures.samples import Sample
from .bootstrap import Combine, paired

N_BINS = 15


def groups_of(items: Sequence[Sample]) -> Tensor | None:
    """The number of each picture's group, if any has one."""
    if not any(item.group for item in items):
        return None
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(item.group or f"\0{i}", len(number)) for i, item in enumerate(items)])


def ratio(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Hits of tries."""
    return means[..., 0] / means[..., 1].clamp(min=1e-12)


def gap(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """Expected calibration error from what :func:`calibration_sums` gives."""
    return means[..., :-1].abs().sum(-1) / means[..., -1].clamp(min=1e-12)


def harmonic(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
    """``2 b n / (b + n)`` of two parts' hits of tries."""
    b, n = ratio(means[..., :2]), ratio(means[..., 2:])
    return 2 * b * n / (b + n).clamp(min=1e-12)


def accuracy_sums(right: Bool[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Hits and tries of each picture."""
    return torch.stack([right.float(), torch.ones(len(right))], 1)


def calibration_sums(
    confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"], n_bins: int = N_BINS
) -> Float[Tensor, "n v"]:
    """What each picture adds to the gap of its bin of confidence; and one, its own weight."""
    place = (confidence * n_bins).long().clamp(0, n_bins - 1)
    sums = torch.zeros(len(confidence), n_bins + 1)
    sums[torch.arange(len(sums)), place] = right.float() - confidence
    sums[:, -1] = 1
    return sums


def measure_row(
    name: str,
    hits: Sequence[Float[Tensor, "n v"]],
    groups: Tensor | None,
    seed: int,
    combine: Combine = ratio,
    strata: Tensor | None = None,
) -> dict[str, Any]:
    """A measure before and after, with intervals."""
    sums = torch.stack(list(hits), 1)
    n = len(sums)
    if groups is not None:
        sums = torch.zeros(int(groups.max()) + 1, *sums.shape[1:]).index_add_(0, groups, sums)
    found = paired(sums, combine, seed=seed, strata=None if groups is not None else strata)
    *_, last = range(len(hits))
    row: dict[str, Any] = {"measure": name, "n": n, "after": _rounded(float(found.values[last]))}
    row["after_interval"] = [_rounded(x) for x in found.interval(last)]
    if last:
        difference, interval, real = found.difference(1, 0)
        row |= {"before": _rounded(float(found.values[0])), "before_interval": [_rounded(x) for x in found.interval(0)]}
        row |= {"difference": _rounded(difference), "difference_interval": [_rounded(x) for x in interval]}
        row["real"] = real
    return row


def _rounded(value: float) -> float:
    return round(value, 4)
