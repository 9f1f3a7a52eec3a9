"""Trust: what held-out pictures say of decisions, and what it makes of one more."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..explanation.decision import Unknowns
from .conformal import ConformalLines
from .gaussian import WIDEST, Gaussian
from .logistic import Monotone

VERSION = 1
KEPT = 0.95
"""Part of held-out pictures of the classes that are not called unlike anything it knows."""
LEVEL = 0.9
"""How often the true class is promised to be in the set, unless another is asked for."""
LEAST = 1e-6
N_COUNTED = 10
"""Held-out pictures that a probability's lower limit is counted on, at least."""


@dataclass(frozen=True)
class Signs:
    """Of pictures and the class decided for.

    Attributes:
        decided: index of that class.
        signs: log odds of it by the classifier, by the second opinion, and minus its strangeness; higher is surer.
        pooled: probabilities of all classes, the two opinions weighing alike.
    """

    decided: Int[Tensor, " b"]
    signs: Float[Tensor, "b 3"]
    pooled: Float[Tensor, "b k"]

    @classmethod
    def of(
        cls,
        gaussian: Gaussian,
        features: Float[Tensor, "b d"],
        logits: Float[Tensor, "b k"],
        temperature: float,
        sharpness: float = 1.0,
    ) -> Signs:
        """By a classifier's logits and a second opinion, whose logits are multiplied by ``temperature``."""
        decided = logits.argmax(1)
        mine = logits.log_softmax(1)
        second = (gaussian.logits(features) * temperature).log_softmax(1)
        second = torch.where(gaussian.known, second, mine)  # of a class without a picture it has no opinion of its own
        odds = torch.stack([_log_odds(p.exp().gather(1, decided[:, None])[:, 0]) for p in (mine, second)], 1)
        strange = gaussian.strangeness(features, decided)
        both = (mine + second) / 2
        return cls(decided, torch.cat([odds, -strange[:, None]], 1), (both * sharpness).softmax(1))


def _log_odds(p: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return torch.logit(p.double().clamp(LEAST, 1 - LEAST)).float()


@dataclass(frozen=True)
class HeldOutSigns:
    """What was measured on held-out pictures, one row a picture.

    Attributes:
        labels: their classes.
        score: one less the pooled probability of each one's own class.
        rivals: pooled probabilities of the most probable classes beside the one decided for.
        rival_classes: which those are.
        right: whether the decision was.
        probability: that it is, as said.
        known: log odds that it is of a known class.
    """

    labels: Int[Tensor, " n"]
    score: Float[Tensor, " n"]
    rivals: Float[Tensor, "n r"]
    rival_classes: Int[Tensor, "n r"]
    right: Bool[Tensor, " n"]
    probability: Float[Tensor, " n"]
    known: Float[Tensor, " n"]


@dataclass(frozen=True)
class Judgement:
    """Of a batch of pictures.

    Attributes:
        sets: the conformal set of each.
        order: pooled probabilities by which its classes are listed.
        probability: that the decision is right.
        low, high: 95 % interval of it.
        fit: part of held-out pictures that fit their class no better.
        known: log odds that it is of a known class.
        sure: one class keeps the promise, and it is right as often as promised.
        unknown: unlike anything it knows.
    """

    sets: Bool[Tensor, "b k"]
    order: Float[Tensor, "b k"]
    probability: Float[Tensor, " b"]
    low: Float[Tensor, " b"]
    high: Float[Tensor, " b"]
    fit: Float[Tensor, " b"]
    known: Float[Tensor, " b"]
    sure: Bool[Tensor, " b"]
    unknown: Bool[Tensor, " b"]

    @property
    def doubt(self) -> Float[Tensor, " b"]:
        """As :attr:`seewhy.explanation.decision.Decision.doubt`."""
        return torch.where(self.unknown, 2 - self.fit, 1 - self.probability)


@dataclass(frozen=True)
class Trust:
    """What :func:`~seewhy.trust.measure.measure_trust` found on held-out pictures.

    Attributes:
        gaussian: the second opinion, of all held-out pictures.
        temperature: its logits are multiplied by it.
        sharpness: of the pooled log probabilities.
        right: log odds of the classifier and of the second opinion → is the decision right?
        familiar: these and the likeness to the class → is the picture of a known class?
        held: what was measured.
        unknowns: how well pictures of no class are told.
    """

    gaussian: Gaussian
    temperature: float
    sharpness: float
    right: Monotone
    familiar: Monotone
    held: HeldOutSigns
    unknowns: Unknowns

    @cached_property
    def _known(self) -> Float[Tensor, " n"]:
        return self.held.known.sort().values

    @cached_property
    def line(self) -> float:
        """Log odds of being known, below which a picture is called unlike anything it knows."""
        return float(self._known.quantile(1 - KEPT))

    def conformal(self, level: float) -> ConformalLines:
        doubtful = self.held.probability < level
        return ConformalLines(self.held.score, self.held.labels, len(self.gaussian.bias), doubtful)

    def judge(self, features: Float[Tensor, "b d"], logits: Float[Tensor, "b k"], level: float = LEVEL) -> Judgement:
        """Decisions on pictures, judged.

        Args:
            features: what :func:`~seewhy.trust.measure.trust_features` makes of pooled features.
            logits: of the classifier.
            level: how often the true class is to be in the set.
        """
        signs = Signs.of(self.gaussian, features, logits, self.temperature, self.sharpness)
        probability = self.right.margin(signs.signs[:, :2]).sigmoid()
        sets = self.conformal(level).sets(signs.pooled, signs.decided, level, probability < level)
        low, high = self.right.interval(signs.signs[:, :2])
        known = self.familiar.margin(signs.signs)
        unknown = known < self.line
        fit = torch.searchsorted(self._known, known.contiguous(), right=True) / len(self._known)
        sure = (sets.sum(1) == 1) & (probability >= level) & ~unknown
        low, high = torch.minimum(low, self.counted(probability)).minimum(probability), high.maximum(probability)
        return Judgement(sets, signs.pooled, probability, low, high, fit, known, sure, unknown)

    def counted(self, probability: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """What counting allows at least: Wilson's lower limit (95 %) on the held-out pictures at least as sure.

        A model that is fitted on few pictures, all of them right, gives narrow intervals that few pictures cannot bear.
        Of fewer than ``N_COUNTED``, the surest that many are counted.
        """
        order = self.held.probability.argsort(descending=True)
        right = self.held.right[order].double().cumsum(0)
        surer = torch.searchsorted(-self.held.probability[order], -probability.contiguous(), right=True)
        n = surer.clamp(min=min(N_COUNTED, len(order)))
        part, n, z = right[n - 1] / n, n.double(), 1.96
        spread = z * (part * (1 - part) / n + z * z / (4 * n * n)).sqrt()
        return ((part + z * z / (2 * n) - spread) / (1 + z * z / n)).float()

    def sure_held_out(self, level: float = LEVEL) -> tuple[int, float | None]:
        """Held-out pictures that would be called sure, and the part of them that were right."""
        lines = self.conformal(level).lines(level)[0]  # those that can be sure are not doubtful
        alone = (1 - self.held.rivals > lines[self.held.rival_classes] + 1e-6).all(1)
        sure = alone & (self.held.probability >= level) & (self.held.known >= self.line)
        n = int(sure.sum())
        return n, float(self.held.right[sure].float().mean()) if n else None

    def check(self, n_classes: int, width: int | None) -> None:
        """Refuse parts that do not fit together or the classifier; ``width`` is that of its features, where known.

        Raises:
            ValueError: says what does not fit.
        """
        k, d = self.gaussian.weight.shape
        if k != n_classes or (width is not None and d != min(width, WIDEST)):
            raise ValueError(f"a second opinion of {k} classes by {d} features")
        shapes = {"bias": (k,), "form": (d, d), "slope": (d,), "height": ()}
        found = {name: tuple(getattr(self.gaussian, name).shape) for name in shapes}
        if found != shapes:
            raise ValueError(f"a second opinion of shapes {found}")
        n = len(self.held.labels)
        rows = {f.name: len(getattr(self.held, f.name)) for f in fields(self.held)}
        if n == 0 or set(rows.values()) != {n}:
            raise ValueError(f"measures of trust on {rows} pictures")
        for name in ("labels", "rival_classes"):
            values = getattr(self.held, name)
            if values.is_floating_point() or int(values.min()) < 0 or int(values.max()) >= k:
                raise ValueError(f"{name} of measures of trust that are none of {k} classes")
        for model, n_signs in ((self.right, 2), (self.familiar, 3)):
            if model.mean.shape != (n_signs,) or model.deviation.shape != (n_signs,):
                raise ValueError(f"a model of trust of {tuple(model.mean.shape)} signs")
            if model.slopes.shape != (n_signs + 1,) or model.drawn.shape[1:] != (n_signs + 1,):
                raise ValueError(f"a model of trust with slopes {tuple(model.slopes.shape)}")

    def facts(self) -> dict[str, Any]:
        """What is no tensor, for the card of a saved classifier."""
        return {
            "version": VERSION,
            "temperature": self.temperature,
            "sharpness": self.sharpness,
            "unknowns": vars(self.unknowns),
        }

    def tensors(self) -> dict[str, Tensor]:
        parts: dict[str, Any] = {
            "held": self.held,
            "gaussian": self.gaussian,
            "right": self.right,
            "familiar": self.familiar,
        }
        return {f"{name}.{f.name}": getattr(part, f.name) for name, part in parts.items() for f in fields(part)}

    @classmethod
    def restore(cls, facts: dict[str, Any], tensors: dict[str, Tensor]) -> Trust:
        """From what :meth:`facts` and :meth:`tensors` gave.

        Raises:
            ValueError: of a later version.
            KeyError: something is missing.
        """
        if facts["version"] != VERSION:
            raise ValueError(f"its measures of trust have version {facts['version']!r}, and {VERSION} is read")

        def part(kind: Any, name: str) -> Any:
            return kind(**{f.name: tensors[f"{name}.{f.name}"] for f in fields(kind)})

        return cls(
            part(Gaussian, "gaussian"),
            float(facts["temperature"]),
            float(facts["sharpness"]),
            part(Monotone, "right"),
            part(Monotone, "familiar"),
            part(HeldOutSigns, "held"),
            Unknowns(**facts["unknowns"]),
        )
