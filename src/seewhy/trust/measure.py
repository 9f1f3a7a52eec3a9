"""Measuring trust: by held-out pictures, with parts of the classes left out in turn to be unknown ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ..explanation.decision import Unknowns
from .base import HeldOutSigns, Signs, Trust
from .gaussian import ABSENT, Moments, narrowed
from .logistic import Monotone
from .selective import auroc

MIN_PICTURES = 30
"""Below, an interval of a probability is as wide as half of all there is."""
N_FOLDS = 5
N_PARTS = 4
"""Parts of the classes that are left out in turn."""
N_RIVALS = 8


def trust_features(pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
    """Signed square root and unit length: what makes pooled features of one class most like a Gaussian."""
    return narrowed(normalize(pooled.sign() * pooled.abs().sqrt(), dim=1))


def measure_trust(
    pooled: Float[Tensor, "n p"],
    labels: Int[Tensor, " n"],
    logits: Float[Tensor, "n k"],
    groups: Int[Tensor, " n"] | None = None,
    fold: Int[Tensor, " n"] | None = None,
    *,
    strange: Float[Tensor, "m p"] | None = None,
    strange_logits: Float[Tensor, "m k"] | None = None,
    seed: int = 0,
) -> Trust | None:
    """What held-out pictures say of decisions.

    Args:
        pooled: features of held-out pictures.
        labels: their classes.
        logits: by a classifier that saw no picture of the same thing.
        groups: pictures of the same thing have the same number; left out, each is alone.
        fold: which are left out together from the second opinion, groups whole, 0 or more; left out, drawn.
        strange: features of pictures that are of nothing.
        strange_logits: of these.
        seed: of draws.

    Returns:
        Nothing where there are too few pictures to measure on, or fewer than two classes.
    """
    n, k = logits.shape
    groups = torch.arange(n) if groups is None else groups.unique(return_inverse=True)[1]
    if n < MIN_PICTURES or len(labels.unique()) < 2 or len(groups.unique()) < 2:
        return None
    fold = drawn_folds(groups, seed) if fold is None else fold
    features = trust_features(pooled)
    part = torch.randperm(k, generator=torch.Generator().manual_seed(seed)) % min(N_PARTS, max(k, 1))
    moments = Moments.of(features, labels, fold, part if k > 2 else torch.zeros_like(part))
    temperature, sharpness = _temperatures(moments, features, labels, logits, fold)
    own = _out_of_fold(moments, features, logits, fold, temperature, sharpness)
    right = own.decided == labels
    rightness = Monotone.fit(own.signs[:, :2], right, groups, seed)
    familiar, near, near_known = _familiar(moments, features, labels, logits, fold, groups, temperature, seed)
    known = familiar.margin(own.signs)
    held = _held(own, labels, right, rightness, known)
    trust = Trust(
        moments.gaussian(), temperature, sharpness, rightness, familiar, held, Unknowns(None, None, None, None, 1)
    )
    return replace(trust, unknowns=_unknowns(trust, near, near_known, strange, strange_logits))


def drawn_folds(groups: Int[Tensor, " n"], seed: int = 0) -> Int[Tensor, " n"]:
    """A fold of each picture, groups whole, the largest placed first."""
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


def _temperatures(
    moments: Moments, features: Tensor, labels: Tensor, logits: Tensor, fold: Tensor
) -> tuple[float, float]:
    """What the second opinion's logits, and then the pooled log probabilities, are multiplied by: the likeliest."""
    second = torch.zeros_like(logits)
    for f in fold.unique().tolist():
        second[fold == f] = moments.gaussian(without_fold=f).logits(features[fold == f])
    asked = second.gather(1, labels[:, None])[:, 0] > ABSENT / 2
    if not bool(asked.any()):
        return 1.0, 1.0
    temperature = _likeliest(second[asked], labels[asked])
    both = logits.log_softmax(1) + (second * temperature).log_softmax(1).clamp(min=-1e4)
    return temperature, _likeliest(both[asked] / 2, labels[asked])


def _likeliest(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """By golden section over powers of ten; the likelihood has one peak."""
    low, high = -4.0, 2.0
    ratio = (5**0.5 - 1) / 2

    def loss(power: float) -> float:
        return float(cross_entropy(logits.double().clamp(min=-1e9) * 10**power, labels))

    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(10 ** ((low + high) / 2))


def _out_of_fold(
    moments: Moments,
    features: Tensor,
    logits: Tensor,
    fold: Tensor,
    temperature: float,
    sharpness: float = 1.0,
    without: int | None = None,
) -> Signs:
    """Signs of every picture by a second opinion without its fold, and without a part of the classes."""
    if without is not None:
        logits = logits.masked_fill(moments.part == without, -torch.inf)
    decided = torch.zeros(len(features), dtype=torch.long)
    signs, pooled = torch.zeros(len(features), 3), torch.zeros_like(logits)
    for f in fold.unique().tolist():
        mine = fold == f
        gaussian = moments.gaussian(without_fold=f, without_part=without)
        found = Signs.of(gaussian, features[mine], logits[mine], temperature, sharpness)
        decided[mine], signs[mine], pooled[mine] = found.decided, found.signs, found.pooled
    return Signs(decided, signs, pooled)


def _familiar(
    moments: Moments,
    features: Tensor,
    labels: Tensor,
    logits: Tensor,
    fold: Tensor,
    groups: Tensor,
    temperature: float,
    seed: int,
) -> tuple[Monotone, Float[Tensor, "m 3"], Bool[Tensor, " m"]]:
    """The model of being known, and the signs it was fitted on: each part of the classes left out in turn.

    With two classes there is none to leave out: likeness alone then says what is known, in its own deviations.
    """
    n_parts = moments.gram.shape[1]
    if n_parts < 2:
        own = _out_of_fold(moments, features, logits, fold, temperature)
        mean, deviation = own.signs.mean(0), own.signs.std(0, correction=0).clamp(min=1e-6)
        slopes = torch.tensor([0.0, 0.0, 1.0, 0.0])
        return Monotone(mean, deviation, slopes, slopes[None].clone()), own.signs[:0], torch.zeros(0, dtype=torch.bool)
    signs, known, whose = [], [], []
    for p in range(n_parts):
        signs.append(_out_of_fold(moments, features, logits, fold, temperature, without=p).signs)
        known.append(moments.part[labels] != p)
        whose.append(groups)
    all_signs, all_known = torch.cat(signs), torch.cat(known)
    return Monotone.fit(all_signs, all_known, torch.cat(whose), seed), all_signs, all_known


def _held(own: Signs, labels: Tensor, right: Tensor, rightness: Monotone, known: Tensor) -> HeldOutSigns:
    rivals = own.pooled.scatter(1, own.decided[:, None], -1.0).topk(min(N_RIVALS, own.pooled.shape[1]), dim=1)
    # The class decided for is in every set, so that a right decision is covered whatever its probability.
    score = (1 - own.pooled.gather(1, labels[:, None])[:, 0]).masked_fill(right, 0.0)
    probability = rightness.margin(own.signs[:, :2]).sigmoid()
    return HeldOutSigns(labels.clone(), score, rivals.values.clamp(min=0), rivals.indices, right, probability, known)


def _unknowns(
    trust: Trust, near: Tensor, near_known: Tensor, strange: Tensor | None, strange_logits: Tensor | None
) -> Unknowns:
    known = trust.held.known
    margins = trust.familiar.margin(near)
    found = Unknowns(
        auroc(margins[near_known], margins[~near_known]),
        float((margins[~near_known] < trust.line).float().mean()) if len(near) else None,
        None,
        None,
        float((known >= trust.line).float().mean()),
    )
    if strange is None or strange_logits is None:
        return found
    judged = trust.judge(trust_features(strange), strange_logits)
    far, far_found = auroc(known, judged.known), float(judged.unknown.float().mean())
    return replace(found, far=far, far_found=far_found)
