"""Reliability of decisions, measured on held-out pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..explanation.prediction import Unknowns
from ..metrics.calibration import wilson
from ..storage.parts import rebuilt, tensors_of
from .strangeness import Gaussian, Inputs, Strangeness

VERSION = 4
KEPT = 0.95
"""Share of held-out pictures that are accepted as known."""
FAMILIAR, TYPICAL = 0.9, 0.6
"""Quantiles of strangeness and of atypicality among held-out pictures, above which no decision is called sure."""
LEVEL = 0.9
"""Default coverage of conformal sets."""
LEAST = 1e-6
N_COUNTED = 10
"""Smallest number of held-out pictures behind a probability's lower bound."""
MIN_PER_CLASS = 50
"""Smallest number of held-out pictures for a class's own threshold; with 50, the standard deviation of its coverage is
4 percentage points.
"""
PRIOR = 1.0
"""Weight of the prior on squared slopes, in pictures."""
N_DRAWS = 200


@dataclass(frozen=True)
class ConformalLines:
    """Thresholds of split conformal prediction sets (Vovk, Gammerman & Shafer 2005; for each class: section 4.5).

    Args:
        scores: nonconformity score of each held-out picture, 0 to 1: 0 if the prediction is right, otherwise 1 minus
            the probability of the true class (LAC: Sadinle, Lei & Wasserman 2019, arXiv:1609.00451).
        labels: true classes.
        n_classes: number of classes.
        doubtful: whether the probability that the prediction is right is below the level.
        min_per_class: smallest number of held-out pictures with which a class has a threshold of its own.
    """

    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    n_classes: int
    doubtful: Bool[Tensor, " n"]
    min_per_class: int = MIN_PER_CLASS

    def lines(self, level: float) -> Float[Tensor, "2 k"]:
        """Return the thresholds of each class, for confident and for doubtful decisions separately.

        Classes with few pictures share a threshold.
        """
        rows = []
        for part in (~self.doubtful, self.doubtful):
            part = part if int(part.sum()) >= self.min_per_class else torch.ones_like(part)
            rows.append(self._by_class(self.scores[part], self.labels[part], level))
        return torch.stack(rows)

    def _by_class(self, scores: Float[Tensor, " m"], labels: Int[Tensor, " m"], level: float) -> Float[Tensor, " k"]:
        own = torch.bincount(labels, minlength=self.n_classes) >= self.min_per_class
        rest = scores[~own[labels]]
        lines = torch.full((self.n_classes,), quantile(rest if len(rest) >= self.min_per_class else scores, level))
        for k in own.nonzero()[:, 0].tolist():
            lines[k] = quantile(scores[labels == k], level)
        return lines

    def sets(
        self,
        probabilities: Float[Tensor, "b k"],
        decided: Int[Tensor, " b"],
        level: float,
        doubtful: Bool[Tensor, " b"],
    ) -> Bool[Tensor, "b k"]:
        """Return which classes are in the conformal set, always including the predicted class."""
        inside = 1 - probabilities <= self.lines(level)[doubtful.long()] + 1e-6
        return inside.scatter(1, decided[:, None], True)


def quantile(scores: Float[Tensor, " n"], level: float) -> float:
    """Return the ⌈(n + 1) level⌉-th smallest score, or 1 if there are too few scores."""
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return 1.0 if rank > len(scores) else float(scores.sort().values[rank - 1])


@dataclass(frozen=True)
class Monotone:
    """Logistic regression with slopes of at least 0.

        p = sigmoid(slopes · (signs − mean) / deviation + level)

    - ``p``: the probability.
    - ``signs``: the inputs, which ``mean`` and ``deviation`` standardise.
    - ``level``: the intercept, stored as the last of ``slopes``.
    - ``drawn``: the slopes of bootstrap fits to resampled groups.
    """

    mean: Float[Tensor, " s"]
    deviation: Float[Tensor, " s"]
    slopes: Float[Tensor, " t"]
    drawn: Float[Tensor, "r t"]

    @classmethod
    def fit(
        cls, signs: Float[Tensor, "n s"], true: Bool[Tensor, " n"], groups: Int[Tensor, " n"], seed: int = 0
    ) -> Monotone:
        """Fit by maximum likelihood, without inputs whose slope would be negative."""
        mean, deviation = signs.mean(0), signs.std(0, correction=0).clamp(min=1e-6)
        x = torch.cat([(signs - mean) / deviation, torch.ones(len(signs), 1)], 1).double()
        y = true.double()
        used = torch.ones(x.shape[1], dtype=torch.bool)
        while True:
            slopes = _newton(x * used, y, torch.ones(1, len(x), dtype=torch.double))[0]
            wrong = (slopes < 0) & used
            wrong[-1] = False
            if not bool(wrong.any()):
                break
            used &= ~wrong
        place = groups.unique(return_inverse=True)[1]
        n_groups = int(place.max()) + 1
        draws = torch.randint(n_groups, (N_DRAWS, n_groups), generator=torch.Generator().manual_seed(seed))
        weight = torch.stack([torch.bincount(row, minlength=n_groups) for row in draws]).double()
        drawn = _newton(x * used, y, weight[:, place])
        drawn[:, :-1] = drawn[:, :-1].clamp(min=0)
        return cls(mean, deviation, slopes.float(), drawn.float())

    def margin(self, signs: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
        return ((signs - self.mean) / self.deviation) @ self.slopes[:-1] + self.slopes[-1]

    def interval(self, signs: Float[Tensor, "b s"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        margins = ((signs - self.mean) / self.deviation) @ self.drawn[:, :-1].T + self.drawn[:, -1]
        low, high = margins.sigmoid().quantile(torch.tensor([0.025, 0.975]), dim=1)
        return low, high


def _newton(x: Float[Tensor, "n t"], y: Float[Tensor, " n"], weight: Float[Tensor, "r n"]) -> Float[Tensor, "r t"]:
    """Fit one regression per row of weights by Newton's method."""
    t = x.shape[1]
    prior = torch.full((t,), PRIOR, dtype=torch.double)
    prior[-1] = 1e-3
    b = torch.zeros(len(weight), t, dtype=torch.double)
    products = (x[:, :, None] * x[:, None, :]).flatten(1)
    for _ in range(25):
        p = (b @ x.T).sigmoid()
        slope = (weight * (y - p)) @ x - prior * b
        curve = ((weight * p * (1 - p)) @ products).unflatten(1, (t, t)) + torch.diag(prior)
        step = torch.linalg.solve(curve, slope[..., None])[..., 0]
        b = b + step.clamp(-4, 4)
        if float(step.abs().max()) < 1e-8:
            break
    return b


@dataclass(frozen=True)
class Signs:
    """The predicted class, its log odds by two classifiers, and the pooled probabilities of the two classifiers."""

    decided: Int[Tensor, " b"]
    signs: Float[Tensor, "b 2"]
    pooled: Float[Tensor, "b k"]

    @classmethod
    def of(cls, gaussian: Gaussian, inputs: Inputs, temperature: float, sharpness: float) -> Signs:
        """Compute the log odds of the prediction by a classifier and by a Gaussian classifier."""
        decided = inputs.logits.argmax(1)
        mine = inputs.logits.log_softmax(1)
        second = (gaussian.logits(inputs.features) * temperature).log_softmax(1)
        second = torch.where(gaussian.known, second, mine)  # it has no density for a class without pictures
        own = torch.stack([p.exp().gather(1, decided[:, None])[:, 0] for p in (mine, second)], 1)
        odds = torch.logit(own.double().clamp(LEAST, 1 - LEAST)).float()
        return cls(decided, odds, ((mine + second) / 2 * sharpness).softmax(1))


@dataclass(frozen=True)
class HeldOutSigns:
    """Measurements on held-out pictures, cross-fitted by fold.

    Attributes:
        score: the nonconformity score of :class:`ConformalLines`.
        rivals: pooled probabilities of the most probable other classes.
    """

    labels: Int[Tensor, " n"]
    score: Float[Tensor, " n"]
    rivals: Float[Tensor, "n r"]
    rival_classes: Int[Tensor, "n r"]
    right: Bool[Tensor, " n"]
    probability: Float[Tensor, " n"]
    strangeness: Float[Tensor, " n"]
    unusual: Float[Tensor, " n"]


@dataclass(frozen=True)
class Judgement:
    """The reliability of a batch of decisions.

    Attributes:
        sets: conformal sets.
        order: probability of each class, by which the classes of a set are sorted.
        probability: probability that the decision is right if the picture shows a known class, by
            :meth:`Trust.held_to_count`.
        low: lower bound of the 95 % interval of the probability, which includes other days.
        high: upper bound of the same interval.
        fit: fraction of held-out pictures that are at least as strange as this picture.
        unusual: atypicality of the picture for its predicted class.
        familiar: whether the picture is typical enough for :attr:`probability` to hold.
        sure: whether the decision is sure.
        unknown: whether the picture is rejected as unknown.
    """

    sets: Bool[Tensor, "b k"]
    order: Float[Tensor, "b k"]
    probability: Float[Tensor, " b"]
    low: Float[Tensor, " b"]
    high: Float[Tensor, " b"]
    fit: Float[Tensor, " b"]
    unusual: Float[Tensor, " b"]
    familiar: Bool[Tensor, " b"]
    sure: Bool[Tensor, " b"]
    unknown: Bool[Tensor, " b"]

    @property
    def doubt(self) -> Float[Tensor, " b"]:
        """The value of :attr:`seewhy.explanation.prediction.Decision.doubt`."""
        return torch.where(self.unknown, 2 - self.fit, 1 - self.probability)


@dataclass(frozen=True)
class Trust:
    """The reliability model of a classifier, from :func:`~seewhy.trust.measure.measure_trust`.

    Attributes:
        temperature: factor on the logits of the Gaussian classifier.
        sharpness: factor on the pooled log probabilities.
        right: calibration from both log odds and the typicality to the probability of a right decision.
        shift: lowest and highest shift of the log odds of this probability that is expected on another day.
    """

    strangeness: Strangeness
    temperature: float
    sharpness: float
    right: Monotone
    held: HeldOutSigns
    unknowns: Unknowns
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def gaussian(self) -> Gaussian:
        return self.strangeness.gaussian

    @cached_property
    def _strangest(self) -> Float[Tensor, " n"]:
        return self.held.strangeness.sort().values

    @cached_property
    def line(self) -> float:
        """The strangeness above which a picture is rejected as unknown."""
        return float(self.held.strangeness.quantile(KEPT))

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """The largest strangeness and atypicality of a sure decision."""
        error = math.sqrt(FAMILIAR * (1 - FAMILIAR) / len(self.held.unusual))
        strange, unusual = self.held.strangeness.quantile(FAMILIAR - error), self.held.unusual.quantile(TYPICAL)
        return float(strange), float(unusual)

    def _familiar(self, strange: Float[Tensor, " b"], unusual: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
        return (strange <= self._limits[0]) & (unusual <= self._limits[1])

    def conformal(self, level: float) -> ConformalLines:
        doubtful = self.held.probability < level
        return ConformalLines(self.held.score, self.held.labels, len(self.gaussian.bias), doubtful)

    def judge(self, inputs: Inputs, level: float = LEVEL) -> Judgement:
        signs = Signs.of(self.gaussian, inputs, self.temperature, self.sharpness)
        strange, unusual = self.strangeness(inputs)
        of_right = torch.cat([signs.signs, -unusual[:, None]], 1)
        fitted = self.right.margin(of_right).sigmoid()
        probability = self.held_to_count(fitted)
        sets = self.conformal(level).sets(signs.pooled, signs.decided, level, fitted < level)
        fit = 1 - torch.searchsorted(self._strangest, strange.contiguous()) / len(self._strangest)
        familiar = self._familiar(strange, unusual)
        sure = (sets.sum(1) == 1) & (probability >= level) & familiar
        # Widen the interval for the small number of pictures and for later sessions.
        low, high = self.right.interval(of_right)
        low, high = torch.minimum(low, self.counted(fitted)).minimum(probability), high.maximum(probability)
        low, high = (low.logit(1e-6) - self.shift[0]).sigmoid(), (high.logit(1e-6) + self.shift[1]).sigmoid()
        return Judgement(sets, signs.pooled, probability, low, high, fit, unusual, familiar, sure, strange > self.line)

    def held_to_count(self, fitted: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the probabilities, lowered to at most ``(n + 1/2) / (n + 1)``.

            (1 − p) / p = (1 − fitted) / fitted + 1 / (2 n + 1)

        ``p`` is the returned probability, and ``n`` the number of right held-out decisions. The upper limit is the
        estimate with Jeffreys' prior if all ``n`` decisions are right (Krichevsky & Trofimov 1981). The order of the
        decisions stays the same.
        """
        n = int(self.held.right.sum())
        return 1 / (1 / fitted.clamp(min=LEAST) + 1 / (2 * n + 1))

    def counted(self, probability: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return Wilson's lower 95 % bound from held-out decisions with the same or a higher probability."""
        order = self.held.probability.argsort(descending=True)
        right = self.held.right[order].double().cumsum(0)
        surer = torch.searchsorted(-self.held.probability[order], -probability.contiguous(), right=True)
        n = surer.clamp(min=min(N_COUNTED, len(order)))
        low: Tensor = wilson(right[n - 1] / n, n.double(), 1.96)[0]
        return low.float()

    def sure_held_out(self, level: float = LEVEL) -> tuple[int, float | None]:
        """Return the number and the accuracy of sure held-out decisions."""
        lines = self.conformal(level).lines(level)[0]  # limits of the group that is not doubtful
        alone = (1 - self.held.rivals > lines[self.held.rival_classes] + 1e-6).all(1)
        likely = self.held_to_count(self.held.probability) >= level
        sure = alone & likely & self._familiar(self.held.strangeness, self.held.unusual)
        n = int(sure.sum())
        return n, float(self.held.right[sure].float().mean()) if n else None

    def facts(self) -> dict[str, Any]:
        plain = {"temperature": self.temperature, "sharpness": self.sharpness, "shift": list(self.shift)}
        return {"version": VERSION, **plain, "unknowns": vars(self.unknowns)}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors except the features of the measured pictures."""
        own = {"held": self.held, "gaussian": self.gaussian, "right": self.right, "strangeness": self.strangeness}
        found = {key: tensor for name, part in own.items() for key, tensor in tensors_of(part, f"{name}.").items()}
        del found["strangeness.bank"]
        return found

    @classmethod
    def restore(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], bank: Float[Tensor, "n d"], n_classes: int
    ) -> Trust:
        """Rebuild the model from :meth:`facts`, :meth:`tensors` and the features of the measured pictures."""
        if facts["version"] != VERSION:
            raise ValueError(f"version of the trust measures must be {VERSION}, got {facts['version']!r}")
        sizes = {"k": n_classes, "d": bank.shape[1]}
        gaussian = rebuilt(Gaussian, tensors, "gaussian.", sizes)
        scores = {**sizes, "s": 5 + (tensors["strangeness.posteriors"].shape[1] > 0)}
        strangeness = rebuilt(Strangeness, tensors, "strangeness.", scores, gaussian=gaussian, bank=bank)
        held = rebuilt(HeldOutSigns, tensors, "held.")
        for name in ("labels", "rival_classes"):
            values = getattr(held, name)
            if not len(values) or int(values.min()) < 0 or int(values.max()) >= n_classes:
                raise ValueError(f"{name} of the trust measures must have class indices from 0 to {n_classes - 1}")
        right = rebuilt(Monotone, tensors, "right.", {"s": 3, "t": 4})
        temperature, sharpness = float(facts["temperature"]), float(facts["sharpness"])
        down, up = (float(value) for value in facts["shift"])
        return cls(strangeness, temperature, sharpness, right, held, Unknowns.restore(facts["unknowns"]), (down, up))
