"""Measurement of reliability on held-out pictures and on held-out classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ..explanation.prediction import Unknowns
from ..metrics.calibration import accuracy_interval
from ..metrics.similarity import mean_ranks
from ..progress import Progress
from .base import HeldOutSigns, Judgement, Monotone, Signs, Trust
from .strangeness import Gaussian, Inputs, Strangeness, narrowed

MIN_PICTURES = 8
"""Smallest number of held-out pictures to measure decisions on."""
N_FOLDS = 5
N_PARTS = 8
"""Number of class subsets that are held out in turn as unknown."""
FEWEST_WITHOUT = 12
"""Smallest number of pictures for a fit without a class subset."""
MOST_WITHOUT = 1500
"""Largest number of pictures for a fit without a class subset."""
N_RIVALS = 8

Fit = Callable[[Float[Tensor, "n d"], Int[Tensor, " n"], int], Callable[[Float[Tensor, "b d"]], Float[Tensor, "b k"]]]
"""A function from features, labels and the number of classes to a classifier, which maps features to logits."""


def trust_features(pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
    """Return the normalised signed square root of features, which is closer to Gaussian."""
    return narrowed(normalize(pooled.sign() * pooled.abs().sqrt(), dim=1))


def measure_trust(
    inputs: Inputs,
    labels: Int[Tensor, " n"],
    groups: Int[Tensor, " n"] | None = None,
    *,
    fit: Fit | None = None,
    strange: Inputs | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
    progress: Progress | None = None,
) -> Trust | None:
    n = len(inputs)
    groups = torch.arange(n) if groups is None else groups.unique(return_inverse=True)[1]
    if n < MIN_PICTURES or len(labels.unique()) < 2 or len(groups.unique()) < 2:
        return None
    seen = _Seen(inputs, labels, groups, drawn_folds(groups))
    trust = replace(_measured(seen), shift=shift)
    found = _near(trust.unknowns, fit, seen, progress or Progress())
    if strange is not None:
        judged = trust.judge(strange)
        far, sure = auroc(judged.unusual, trust.held.unusual), _part(judged.sure)
        found = replace(found, far=far, far_found=_part(judged.unknown), far_sure=sure)
    return replace(trust, unknowns=found)


def _part(of: Bool[Tensor, " n"]) -> float:
    return float(of.float().mean())


class _Seen(NamedTuple):
    """Held-out pictures with their class, group and fold."""

    inputs: Inputs
    labels: Int[Tensor, " n"]
    groups: Int[Tensor, " n"]
    fold: Int[Tensor, " n"]

    def rows(self, index: Tensor) -> _Seen:
        return _Seen(self.inputs.rows(index), self.labels[index], self.groups[index], self.fold[index])


def _measured(seen: _Seen) -> Trust:
    inputs, labels, groups, fold = seen
    n, k = inputs.logits.shape
    gaussian = Gaussian.fit(inputs.features, labels, k)
    without = {f: Gaussian.fit(inputs.features[fold != f], labels[fold != f], k) for f in fold.unique().tolist()}
    temperature, sharpness = _temperatures(without, inputs, labels, fold)
    decided, signs, pooled = inputs.logits.argmax(1), torch.zeros(n, 2), torch.zeros_like(inputs.logits)
    for f, others in without.items():  # every picture by a second opinion without its fold
        own = Signs.of(others, inputs.rows(fold == f), temperature, sharpness)
        signs[fold == f], pooled[fold == f] = own.signs, own.pooled
    right = decided == labels
    strangeness, strange, unusual = Strangeness.fit(inputs, labels, fold, gaussian, without)
    signs = torch.cat([signs, -unusual[:, None]], 1)
    rightness = Monotone.fit(signs, right, groups)
    rivals = pooled.scatter(1, decided[:, None], -1.0).topk(min(N_RIVALS, k), dim=1)
    # The class decided for is in every set, so that a right decision is covered whatever its probability.
    score = (1 - pooled.gather(1, labels[:, None])[:, 0]).masked_fill(right, 0.0)
    probability = rightness.margin(signs).sigmoid()
    rival_values = rivals.values.clamp(min=0)
    held = HeldOutSigns(labels.clone(), score, rival_values, rivals.indices, right, probability, strange, unusual)
    trust = Trust(strangeness, temperature, sharpness, rightness, held, Unknowns())
    return replace(trust, unknowns=Unknowns(kept=_part(strange <= trust.line)))


def drawn_folds(groups: Int[Tensor, " n"], seed: int = 0) -> Int[Tensor, " n"]:
    """Return a fold for each picture, with whole groups in balanced folds."""
    sizes = torch.bincount(groups)
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))
    order = order[sizes[order].argsort(descending=True, stable=True)]
    n_folds = min(N_FOLDS, len(sizes))
    load, of = [0] * n_folds, torch.zeros(len(sizes), dtype=torch.long)
    for group in order.tolist():
        lightest = min(range(n_folds), key=load.__getitem__)
        load[lightest] += int(sizes[group])
        of[group] = lightest
    return of[groups]


def _temperatures(without: dict[int, Gaussian], inputs: Inputs, labels: Tensor, fold: Tensor) -> tuple[float, float]:
    """Fit the factor on the logits of the Gaussian classifier, and the factor on the pooled log probabilities."""
    second, asked = torch.zeros_like(inputs.logits), torch.zeros(len(labels), dtype=torch.bool)
    for f, gaussian in without.items():
        mine = fold == f
        second[mine] = gaussian.logits(inputs.features[mine])
        asked[mine] = gaussian.known[labels[mine]]
    if not bool(asked.any()):
        return 1.0, 1.0
    temperature = _likeliest(second[asked], labels[asked])
    both = inputs.logits.log_softmax(1) + (second * temperature).log_softmax(1).clamp(min=-1e4)
    return temperature, _likeliest(both[asked] / 2, labels[asked])


def _likeliest(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    low, high, ratio = -4.0, 2.0, (5**0.5 - 1) / 2

    def loss(power: float) -> float:
        return float(cross_entropy(logits.double().clamp(min=-1e9) * 10**power, labels))

    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(10 ** ((low + high) / 2))


def _near(found: Unknowns, fit: Fit | None, seen: _Seen, progress: Progress) -> Unknowns:
    """Measure the detection of classes that were excluded from a fit."""
    draw = torch.Generator().manual_seed(0)
    present = seen.labels.unique()
    if len(present) < 3:
        return found
    if len(seen.labels) > MOST_WITHOUT:
        seen = seen.rows(torch.randperm(len(seen.labels), generator=draw)[:MOST_WITHOUT])
    labels, fold = seen.labels, seen.fold
    order = present[torch.randperm(len(present), generator=draw)]
    known, unknown, theirs = [], [], []
    parts, folds = order.chunk(min(N_PARTS, len(order))), fold.unique()
    for p, part in enumerate(progress.track(parts, "Measuring how far to trust it", len(parts))):
        rest = present[~torch.isin(present, part)]
        out, held = torch.isin(labels, part), fold == folds[p % len(folds)]
        judge = _without(fit, seen, rest, ~out & ~held)
        if judge is None or not bool((~out & held).any()):
            continue
        known.append(judge(~out & held))
        unknown.append(judge(out))
        theirs.append(labels[out])
    if not unknown:
        return found
    noticed, sure = (torch.cat([getattr(j, name) for j in unknown]) for name in ("unknown", "sure"))
    near = auroc(*(torch.cat([j.unusual for j in js]) for js in (unknown, known)))
    in_noticed, in_sure = accuracy_interval(noticed, torch.cat(theirs)), _of_other_classes(sure, torch.cat(theirs))
    return replace(
        found, near=near, near_found=_part(noticed), near_interval=in_noticed, near_sure=_part(sure),
        near_sure_interval=in_sure, near_kept=1 - _part(torch.cat([j.unknown for j in known])), n_near=len(noticed),
    )  # fmt: skip


def _without(fit: Fit | None, everything: _Seen, rest: Tensor, trained: Tensor) -> Callable[[Tensor], Judgement] | None:
    """Fit a reliability model on some classes and return its judge."""
    inputs, labels = everything.inputs, everything.labels
    new = torch.full((int(labels.max()) + 1,), -1)
    new[rest] = torch.arange(len(rest))
    seen = everything.rows(trained)
    features, own = seen.inputs.features, new[seen.labels]
    if len(own) < FEWEST_WITHOUT or len(own.unique()) < 2 or len(seen.fold.unique()) < 2:
        return None
    fewer, groups = replace(seen.inputs, logits=seen.inputs.logits[:, rest]), seen.groups.unique(return_inverse=True)[1]
    trust = _measured(_Seen(fewer, own, groups, seen.fold))
    logits = inputs.logits[:, rest] if fit is None else fit(features, own, len(rest))(inputs.features)
    known = ~trained & torch.isin(labels, rest)
    if fit is not None and bool(known.any()):  # as confident as the whole classifier on the same pictures
        logits = logits * (_lead(inputs.logits[known][:, rest]) / max(_lead(logits[known]), 1e-6))
    of_rest = replace(inputs, logits=logits)
    return lambda of: trust.judge(of_rest.rows(of))


def _of_other_classes(flags: Bool[Tensor, " n"], labels: Int[Tensor, " n"]) -> tuple[float, float]:
    """Return the 95 % interval of a share on pictures of as many other classes: √2 times as wide as its own."""
    share, (low, high) = _part(flags), accuracy_interval(flags, labels)
    return max(0.0, share - 2**0.5 * (share - low)), min(1.0, share + 2**0.5 * (high - share))


def _lead(logits: Float[Tensor, "n k"]) -> float:
    return float((logits.max(1).values - logits.mean(1)).mean())


def auroc(higher: Float[Tensor, " n"], lower: Float[Tensor, " m"]) -> float | None:
    """Return the area under the ROC curve, or ``None`` if a sample is empty."""
    if not len(higher) or not len(lower):
        return None
    n, m = len(higher), len(lower)
    ranks = mean_ranks(torch.cat([higher, lower])[None])[0, :n]
    return float((ranks.sum() - n * (n - 1) / 2) / (n * m))


@dataclass(frozen=True)
class RiskCoverage:
    """The risk-coverage curve of selective prediction (Geifman & El-Yaniv 2017, arXiv:1705.08500).

    Attributes:
        coverage: share of accepted decisions, least doubtful first.
        risk: error rate of the accepted decisions.
        area: mean risk (AURC).
        best: AURC of a perfect order.
        chance: AURC of a random order.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float
    best: float
    chance: float

    @classmethod
    def of(cls, doubt: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> RiskCoverage:
        wrong = ~right
        _, place, count = doubt.unique(return_inverse=True, return_counts=True)
        share = torch.zeros(len(count), dtype=torch.double).scatter_add(0, place, wrong.double()) / count
        risk = _mean_so_far(share.repeat_interleave(count))
        best = _mean_so_far(wrong.sort().values.double())
        coverage = tuple((i + 1) / len(doubt) for i in range(len(doubt)))
        return cls(coverage, tuple(risk.tolist()), float(risk.mean()), float(best.mean()), float(wrong.double().mean()))

    def at(self, n_points: int = 50) -> list[dict[str, float]]:
        """Return up to ``n_points`` points of the curve, evenly spaced over coverage."""
        n = len(self.coverage)
        chosen = sorted({round(i) for i in torch.linspace(0, n - 1, min(n, n_points)).tolist()})
        return [{"coverage": round(self.coverage[i], 4), "risk": round(self.risk[i], 4)} for i in chosen]


def _mean_so_far(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return values.cumsum(0) / torch.arange(1, len(values) + 1)
