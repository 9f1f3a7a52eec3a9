"""Trust: what held-out pictures say of decisions, and what it makes of one more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..explanation.prediction import Unknowns
from ..storage.tensors import rebuilt, tensors_of
from .conformal import ConformalLines
from .gaussian import Gaussian
from .logistic import Monotone
from .strangeness import Inputs, Strangeness

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


@dataclass(frozen=True)
class Signs:
    """Of pictures and the class decided for.

    Attributes:
        decided: index of that class.
        signs: log odds of it by the classifier and by the second opinion; higher is surer.
        pooled: probabilities of all classes, the two opinions weighing alike.
    """

    decided: Int[Tensor, " b"]
    signs: Float[Tensor, "b 2"]
    pooled: Float[Tensor, "b k"]

    @classmethod
    def of(cls, gaussian: Gaussian, inputs: Inputs, temperature: float, sharpness: float = 1.0) -> Signs:
        """By a classifier's logits and a second opinion, whose logits are multiplied by ``temperature``."""
        decided = inputs.logits.argmax(1)
        mine = inputs.logits.log_softmax(1)
        second = (gaussian.logits(inputs.features) * temperature).log_softmax(1)
        second = torch.where(gaussian.known, second, mine)  # of a class without a picture it has no opinion of its own
        odds = torch.stack([_log_odds(p.exp().gather(1, decided[:, None])[:, 0]) for p in (mine, second)], 1)
        return cls(decided, odds, ((mine + second) / 2 * sharpness).softmax(1))


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
        strangeness: of each picture, by scores that saw none of its fold.
        unusual: likewise, how unusual it is for the class decided for.
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
    """Of a batch of pictures.

    Attributes:
        sets: the conformal set of each.
        order: pooled probabilities by which its classes are listed.
        probability: that the decision is right.
        low, high: 95 % interval of it, on pictures of another day too.
        fit: part of held-out pictures that are as strange, or stranger.
        unusual: for the class decided for; by it pictures of unknown classes are ranked.
        sure: one class keeps the promise, it is right as often as promised, and the picture is familiar.
        unknown: unlike anything it knows.
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
    """What :func:`~seewhy.trust.measure.measure_trust` found on held-out pictures.

    Attributes:
        strangeness: how unlike its training pictures a picture is; with the second opinion, of all held-out pictures.
        temperature: the second opinion's logits are multiplied by it.
        sharpness: of the pooled log probabilities.
        right: log odds of the classifier and of the second opinion → is the decision right?
        held: what was measured.
        unknowns: how well pictures of no class are told.
        shift: by how much the log odds of being right may fall, and rise, on pictures of another day.
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
        """The second opinion."""
        return self.strangeness.gaussian

    @cached_property
    def _strangest(self) -> Float[Tensor, " n"]:
        return self.held.strangeness.sort().values

    @cached_property
    def line(self) -> float:
        """Strangeness above which a picture is called unlike anything it knows."""
        return float(self.held.strangeness.quantile(KEPT))

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """How strange a picture may be, and how unusual for its class, to be called sure."""
        error = math.sqrt(TYPICAL * (1 - TYPICAL) / len(self.held.unusual))
        strange, unusual = self.held.strangeness.quantile(FAMILIAR), self.held.unusual.quantile(TYPICAL - error)
        return float(strange), float(unusual)

    def _familiar(self, strange: Float[Tensor, " b"], unusual: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
        most_strange, most_unusual = self._limits
        return (strange <= most_strange) & (unusual <= most_unusual)

    def conformal(self, level: float) -> ConformalLines:
        doubtful = self.held.probability < level
        return ConformalLines(self.held.score, self.held.labels, len(self.gaussian.bias), doubtful)

    def judge(self, inputs: Inputs, level: float = LEVEL) -> Judgement:
        """Decisions on pictures, judged."""
        signs = Signs.of(self.gaussian, inputs, self.temperature, self.sharpness)
        probability = self.right.margin(signs.signs).sigmoid()
        sets = self.conformal(level).sets(signs.pooled, signs.decided, level, probability < level)
        strange, unusual = self.strangeness(inputs)
        unknown = strange > self.line
        fit = 1 - torch.searchsorted(self._strangest, strange.contiguous()) / len(self._strangest)
        sure = (sets.sum(1) == 1) & (probability >= level) & self._familiar(strange, unusual)
        low, high = self._interval(signs.signs, probability)
        return Judgement(sets, signs.pooled, probability, low, high, fit, unusual, sure, unknown)

    def _interval(self, signs: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
        """What few pictures leave open, and another day."""
        low, high = self.right.interval(signs)
        low, high = torch.minimum(low, self.counted(probability)).minimum(probability), high.maximum(probability)
        down, up = self.shift
        return (low.logit(1e-6) - down).sigmoid(), (high.logit(1e-6) + up).sigmoid()

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
        sure = alone & (self.held.probability >= level) & self._familiar(self.held.strangeness, self.held.unusual)
        n = int(sure.sum())
        return n, float(self.held.right[sure].float().mean()) if n else None

    def facts(self) -> dict[str, Any]:
        """What is no tensor, for the card of a saved classifier."""
        return {
            "version": VERSION,
            "temperature": self.temperature,
            "sharpness": self.sharpness,
            "shift": list(self.shift),
            "unknowns": vars(self.unknowns),
        }

    def tensors(self) -> dict[str, Tensor]:
        """All but the features of the pictures it was measured on, which a classifier keeps."""
        own = {"held": self.held, "gaussian": self.gaussian, "right": self.right, "strangeness": self.strangeness}
        found = {key: tensor for name, part in own.items() for key, tensor in tensors_of(part, f"{name}.").items()}
        del found["strangeness.bank"]
        return found

    @classmethod
    def restore(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], bank: Float[Tensor, "n d"], n_classes: int
    ) -> Trust:
        """From what :meth:`facts` and :meth:`tensors` gave, and the features of the pictures it was measured on."""
        if facts["version"] != VERSION:
            raise ValueError(f"its measures of trust have version {facts['version']!r}, and {VERSION} is read")
        sizes = {"k": n_classes, "d": bank.shape[1]}
        gaussian = rebuilt(Gaussian, tensors, "gaussian.", sizes)
        n_scores = 5 + (tensors["strangeness.posteriors"].shape[1] > 0)
        scores = {**sizes, "s": n_scores}
        strangeness = rebuilt(Strangeness, tensors, "strangeness.", scores, gaussian=gaussian, bank=bank)
        held = rebuilt(HeldOutSigns, tensors, "held.")
        for name in ("labels", "rival_classes"):
            values = getattr(held, name)
            if not len(values) or int(values.min()) < 0 or int(values.max()) >= n_classes:
                raise ValueError(f"{name} of measures of trust that are none of {n_classes} classes")
        right = rebuilt(Monotone, tensors, "right.", {"s": 2, "t": 3})
        down, up = (float(value) for value in facts["shift"])
        unknowns = Unknowns.restore(facts["unknowns"])
        return cls(
            strangeness, float(facts["temperature"]), float(facts["sharpness"]), right, held, unknowns, (down, up)
        )
