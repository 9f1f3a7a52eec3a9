"""Trust: what held-out pictures say about decisions, applied to a new one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..explanation.prediction import Unknowns
from ..storage.parts import rebuilt, tensors_of
from .strangeness import Gaussian, Inputs, Strangeness

VERSION = 3
KEPT = 0.95
"""Part of held-out pictures of the classes that are not called unlike anything it knows."""
FAMILIAR, TYPICAL = 0.8, 0.67
"""Parts of held-out pictures that are familiar enough and, less a standard error, typical enough of their class to be
called sure if all else allows."""
LEVEL = 0.9
"""How often the true class is promised to be in the set, unless another is asked for."""
LEAST = 1e-6
N_COUNTED = 10
"""Held-out pictures that a probability's lower limit is counted on, at least."""
MIN_PER_CLASS = 50
"""Pictures a class needs for a line of its own: with fewer, that line is a draw of which pictures were held out (its
coverage has a standard deviation of 4 points with 50, of 7 with 20)."""
PRIOR = 1.0
"""Of the squared slopes, in pictures: without it, signs that part right from wrong perfectly have no finite slope."""
N_DRAWS = 200


@dataclass(frozen=True)
class ConformalLines:
    """Split conformal prediction (Vovk, Gammerman & Shafer 2005; by class: section 4.5), from scores ``0…1`` of
    held-out pictures: one less the probability of the own class (LAC: Sadinle, Lei & Wasserman 2019,
    arXiv:1609.00451), 0 where that was decided for. ``doubtful`` are decided with less than the level's probability
    of being right."""

    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    n_classes: int
    doubtful: Bool[Tensor, " n"] | None = None
    min_per_class: int = MIN_PER_CLASS

    def lines(self, level: float) -> Float[Tensor, "2 k"]:
        """The score up to which a class is in the set, of decisions that are not doubtful and of those that are: sets
        that keep the promise only on the whole would break it where it counts. Classes with enough pictures keep it
        for themselves; the others share a line, drawn from all of theirs or, where these are too few, from all
        pictures."""
        if self.doubtful is None:
            return self._by_class(self.scores, self.labels, level).expand(2, -1)
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
        self, probabilities: Float[Tensor, "b k"], decided: Int[Tensor, " b"], level: float, doubtful: Any = None
    ) -> Bool[Tensor, "b k"]:
        """The classes in the set; the predicted class always is."""
        row = torch.zeros(len(decided), dtype=torch.long) if doubtful is None else doubtful.long()
        inside = 1 - probabilities <= self.lines(level)[row] + 1e-6
        return inside.scatter(1, decided[:, None], True)


def quantile(scores: Float[Tensor, " n"], level: float) -> float:
    """The ⌈(n + 1) level⌉-th smallest score, which a new one of the same kind does not exceed with that probability;
    1 where there are too few to promise anything."""
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return 1.0 if rank > len(scores) else float(scores.sort().values[rank - 1])


@dataclass(frozen=True)
class Monotone:
    """``sigmoid(slopes · (signs − mean) / deviation + level)``: a logistic model whose slopes are 0 or more.

    The last of the ``slopes`` is the level; ``drawn`` are the same, fitted to groups drawn anew with replacement.
    """

    mean: Float[Tensor, " s"]
    deviation: Float[Tensor, " s"]
    slopes: Float[Tensor, " t"]
    drawn: Float[Tensor, "r t"]

    @classmethod
    def fit(
        cls, signs: Float[Tensor, "n s"], true: Bool[Tensor, " n"], groups: Int[Tensor, " n"], seed: int = 0
    ) -> Monotone:
        """Fit by maximum likelihood; signs that would count in the wrong direction are left out."""
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
        """The log odds of being true."""
        return ((signs - self.mean) / self.deviation) @ self.slopes[:-1] + self.slopes[-1]

    def interval(self, signs: Float[Tensor, "b s"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """The range of 95 % of the probabilities when the groups are resampled."""
        margins = ((signs - self.mean) / self.deviation) @ self.drawn[:, :-1].T + self.drawn[:, -1]
        low, high = margins.sigmoid().quantile(torch.tensor([0.025, 0.975]), dim=1)
        return low, high


def _newton(x: Float[Tensor, "n t"], y: Float[Tensor, " n"], weight: Float[Tensor, "r n"]) -> Float[Tensor, "r t"]:
    """One fit a row of weights, all at once; the level has no prior but a faint one."""
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
    """The predicted class, its log odds by the classifier and by the second opinion, and the probabilities of all
    classes with both opinions weighing equally."""

    decided: Int[Tensor, " b"]
    signs: Float[Tensor, "b 2"]
    pooled: Float[Tensor, "b k"]

    @classmethod
    def of(cls, gaussian: Gaussian, inputs: Inputs, temperature: float, sharpness: float) -> Signs:
        """Signs from a classifier's logits and a second opinion, whose logits are multiplied by ``temperature``."""
        decided = inputs.logits.argmax(1)
        mine = inputs.logits.log_softmax(1)
        second = (gaussian.logits(inputs.features) * temperature).log_softmax(1)
        second = torch.where(gaussian.known, second, mine)  # of a class without a picture it has no opinion of its own
        own = torch.stack([p.exp().gather(1, decided[:, None])[:, 0] for p in (mine, second)], 1)
        odds = torch.logit(own.double().clamp(LEAST, 1 - LEAST)).float()
        return cls(decided, odds, ((mine + second) / 2 * sharpness).softmax(1))


@dataclass(frozen=True)
class HeldOutSigns:
    """Measurements on held-out pictures. ``score`` is that of :class:`ConformalLines`; ``rivals`` are the pooled
    probabilities of the most probable other classes; ``strangeness`` and ``unusual`` come from scores that never saw
    the picture's fold."""

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
    """Of a batch: conformal sets with the probabilities that order them, and the probability of being right with its 95
    % interval (also on another day).

    ``fit`` is the share of held-out pictures that are at least as strange, ``unusual`` how unusual the picture is for
    its class. Then whether decisions are ``sure`` and pictures ``unknown``.
    """

    sets: Bool[Tensor, "b k"]
    order: Float[Tensor, "b k"]
    probability: Float[Tensor, " b"]
    low: Float[Tensor, " b"]
    high: Float[Tensor, " b"]
    fit: Float[Tensor, " b"]
    unusual: Float[Tensor, " b"]
    sure: Bool[Tensor, " b"]
    unknown: Bool[Tensor, " b"]

    @property
    def doubt(self) -> Float[Tensor, " b"]:
        """As :attr:`seewhy.explanation.prediction.Decision.doubt`."""
        return torch.where(self.unknown, 2 - self.fit, 1 - self.probability)


@dataclass(frozen=True)
class Trust:
    """Results of :func:`~seewhy.trust.measure.measure_trust`. ``temperature`` multiplies the logits of the second
    opinion, ``sharpness`` the pooled log probabilities. ``right`` turns log odds into the probability of being
    right, which may shift by ``shift`` on another day."""

    strangeness: Strangeness
    temperature: float
    sharpness: float
    right: Monotone
    held: HeldOutSigns
    unknowns: Unknowns
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def gaussian(self) -> Gaussian:
        """The second opinion (see :class:`~seewhy.trust.strangeness.Gaussian`)."""
        return self.strangeness.gaussian

    @cached_property
    def _strangest(self) -> Float[Tensor, " n"]:
        return self.held.strangeness.sort().values

    @cached_property
    def line(self) -> float:
        """The strangeness above which a picture is called unlike anything the classifier knows."""
        return float(self.held.strangeness.quantile(KEPT))

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """How strange a picture may be, and how unusual for its class, to be called sure."""
        error = math.sqrt(TYPICAL * (1 - TYPICAL) / len(self.held.unusual))
        strange, unusual = self.held.strangeness.quantile(FAMILIAR), self.held.unusual.quantile(TYPICAL - error)
        return float(strange), float(unusual)

    def _familiar(self, strange: Float[Tensor, " b"], unusual: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
        return (strange <= self._limits[0]) & (unusual <= self._limits[1])

    def conformal(self, level: float) -> ConformalLines:
        doubtful = self.held.probability < level
        return ConformalLines(self.held.score, self.held.labels, len(self.gaussian.bias), doubtful)

    def judge(self, inputs: Inputs, level: float = LEVEL) -> Judgement:
        signs = Signs.of(self.gaussian, inputs, self.temperature, self.sharpness)
        probability = self.right.margin(signs.signs).sigmoid()
        sets = self.conformal(level).sets(signs.pooled, signs.decided, level, probability < level)
        strange, unusual = self.strangeness(inputs)
        fit = 1 - torch.searchsorted(self._strangest, strange.contiguous()) / len(self._strangest)
        sure = (sets.sum(1) == 1) & (probability >= level) & self._familiar(strange, unusual)
        # What few pictures leave open, and another day.
        low, high = self.right.interval(signs.signs)
        low, high = torch.minimum(low, self.counted(probability)).minimum(probability), high.maximum(probability)
        low, high = (low.logit(1e-6) - self.shift[0]).sigmoid(), (high.logit(1e-6) + self.shift[1]).sigmoid()
        return Judgement(sets, signs.pooled, probability, low, high, fit, unusual, sure, strange > self.line)

    def counted(self, probability: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Wilson's lower limit (95 %) on the held-out pictures at least as sure, or the ``N_COUNTED`` surest: a model
        fitted on few pictures, all of them right, gives narrow intervals that few pictures cannot bear."""
        order = self.held.probability.argsort(descending=True)
        right = self.held.right[order].double().cumsum(0)
        surer = torch.searchsorted(-self.held.probability[order], -probability.contiguous(), right=True)
        n = surer.clamp(min=min(N_COUNTED, len(order)))
        part, n, z = right[n - 1] / n, n.double(), 1.96
        spread = z * (part * (1 - part) / n + z * z / (4 * n * n)).sqrt()
        return ((part + z * z / (2 * n) - spread) / (1 + z * z / n)).float()

    def sure_held_out(self, level: float = LEVEL) -> tuple[int, float | None]:
        """The number of held-out pictures that would be called sure, and the share of them that were right."""
        lines = self.conformal(level).lines(level)[0]  # those that can be sure are not doubtful
        alone = (1 - self.held.rivals > lines[self.held.rival_classes] + 1e-6).all(1)
        sure = alone & (self.held.probability >= level) & self._familiar(self.held.strangeness, self.held.unusual)
        n = int(sure.sum())
        return n, float(self.held.right[sure].float().mean()) if n else None

    def facts(self) -> dict[str, Any]:
        """The values that are no tensors, for the card of a saved classifier."""
        plain = {"temperature": self.temperature, "sharpness": self.sharpness, "shift": list(self.shift)}
        return {"version": VERSION, **plain, "unknowns": vars(self.unknowns)}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors except the features of the measured pictures, which a classifier keeps."""
        own = {"held": self.held, "gaussian": self.gaussian, "right": self.right, "strangeness": self.strangeness}
        found = {key: tensor for name, part in own.items() for key, tensor in tensors_of(part, f"{name}.").items()}
        del found["strangeness.bank"]
        return found

    @classmethod
    def restore(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], bank: Float[Tensor, "n d"], n_classes: int
    ) -> Trust:
        """Rebuild it from :meth:`facts`, :meth:`tensors`, and the features of the pictures it was measured on."""
        if facts["version"] != VERSION:
            raise ValueError(f"its measures of trust have version {facts['version']!r}, and {VERSION} is read")
        sizes = {"k": n_classes, "d": bank.shape[1]}
        gaussian = rebuilt(Gaussian, tensors, "gaussian.", sizes)
        scores = {**sizes, "s": 5 + (tensors["strangeness.posteriors"].shape[1] > 0)}
        strangeness = rebuilt(Strangeness, tensors, "strangeness.", scores, gaussian=gaussian, bank=bank)
        held = rebuilt(HeldOutSigns, tensors, "held.")
        for name in ("labels", "rival_classes"):
            values = getattr(held, name)
            if not len(values) or int(values.min()) < 0 or int(values.max()) >= n_classes:
                raise ValueError(f"{name} of measures of trust that are none of {n_classes} classes")
        right = rebuilt(Monotone, tensors, "right.", {"s": 2, "t": 3})
        temperature, sharpness = float(facts["temperature"]), float(facts["sharpness"])
        down, up = (float(value) for value in facts["shift"])
        return cls(strangeness, temperature, sharpness, right, held, Unknowns.restore(facts["unknowns"]), (down, up))
