"""A linear classifier on frozen features (Razavian et al. 2014, arXiv 1403.6382)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...bounds import Natural, Positive
from ...encoders.base import Encoder
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...metrics.calibration import accuracy_interval
from ...pictures.samples import split
from ...threads import beside
from .. import classifiers
from ..base import Classifier
from ..encoded_set import MAX_HELD_OUT, EncodedSet, HeldOut, evenly
from ..fitting import Fitting, Outcome, PictureRecipe
from .choosing import c_path, choosing_folds
from .jitter import crops_by_name
from .solvers import LinearFit, Solver, balanced_weight, fit_linear, fit_temperature, share_weight

GRID = tuple(10.0 ** (e / 2) for e in range(-2, 8))
"""Values of C per picture, for features with a mean squared norm of 1."""
UNCHOSEN = 100.0
"""C per picture if held-out pictures do not show that another is better."""
TOL = 1e-4
"""Tolerance of the fits; 1e-6 takes twice as long for the same accuracy (benchmarks/linear_fit.py)."""


@dataclass(frozen=True)
class Rows:
    """The features of all views, one row per view.

    Attributes:
        x: features.
        y: class of each row.
        picture: picture index of each row.
        fold: fold in which the picture is held out, or -1.
        own: mask of the rows that come from a centre crop.
        final: mask of the rows that the final fit uses.
        rounds: fold of each picture, or -1.
    """

    x: Float[Tensor, "r d"]
    y: Int[Tensor, " r"]
    picture: Int[Tensor, " r"]
    fold: Int[Tensor, " r"]
    own: Bool[Tensor, " r"]
    final: Bool[Tensor, " r"]
    rounds: Int[Tensor, " n"]

    @classmethod
    def of(cls, pictures: EncodedSet, feature: Normalise) -> Rows:
        x, y, picture = pictures.rows(torch.ones_like(pictures.held))
        own = torch.cat([torch.ones(1, dtype=torch.bool), picture[1:] != picture[:-1]])
        rounds = pictures.folds
        if rounds is None or pictures.validation:
            rounds = torch.where(pictures.held, 0, -1)
        rounds = rounds.unique(return_inverse=True)[1] - int(bool((rounds < 0).any()))
        return cls(feature(x), y, picture, rounds[picture], own, pictures.final[picture], rounds)

    def logits(self, fits: Sequence[LinearFit]) -> Float[Tensor, "n k"]:
        """Return the logits of each picture from the fit without this picture; NaN if every fit used it."""
        logits = torch.full((len(self.rounds), len(fits[0].bias)), torch.nan)
        for number, fit in enumerate(fits):
            asked = self.own & (self.fold == number)
            logits[self.picture[asked]] = fit.logits(self.x[asked])
        return logits


@dataclass(frozen=True)
class Choice:
    """The chosen C and temperature, with the fitted weights.

    Attributes:
        c: chosen value of C, per picture.
        fit: final fit.
        trial: fit without the pictures of the first fold.
        temperature: temperature of the softmax.
        index: indices of the held-out pictures; ``logits``: their calibrated logits.
        at_random: whether each picture is predicted correctly that is held out at random instead of by group; ``None``
            if there are no groups.
    """

    c: float
    fit: LinearFit
    trial: LinearFit
    temperature: float = 1.0
    index: Int[Tensor, " m"] | None = None
    logits: Float[Tensor, "m k"] | None = None
    at_random: Bool[Tensor, " r"] | None = None

    def held_out(self, pictures: EncodedSet, most: int = MAX_HELD_OUT) -> HeldOut | None:
        """Return the features and logits of up to ``most`` held-out pictures."""
        if self.index is None or self.logits is None:
            return None
        some = evenly(torch.ones_like(self.index, dtype=torch.bool), most)
        return replace(pictures.own_crops(self.index[some]), logits=self.logits[some])


@classifiers.register
@dataclass(frozen=True)
class Linear(PictureRecipe):
    """Logistic regression or a linear SVM on the pooled features of a frozen encoder.

    The rows of the fit are every whole picture and ``n_crops`` random crops of it, some of them mirrored. C and the
    temperature are chosen on held-out pictures. The final fit uses all pictures except the user's validation pictures.

    Where we differ: the paper uses crops at fixed positions and squared features. Fixed positions and squared features
    gave lower accuracy in benchmarks/grocery.py.

    Args:
        solver: ``"logistic"`` (multinomial) or ``"svm"`` (one-vs-rest, squared hinge).
        n_crops: number of random crops per picture.
        power: exponent of the signed power normalisation of the features.
        l2: whether to L2-normalise the features.
        class_weight: ``"balanced"`` gives every class the same total weight; ``None`` gives every picture the same
            weight.
        held_out: fraction of the pictures in a cross-validation fold, between 0 and 1. Every picture is held out once,
            to choose C and the temperature and to measure the reliability of evidence.
    """

    name = "linear"
    paper = "Razavian et al. 2014, arXiv:1403.6382"
    needs = "labelled pictures"
    small = {"n_crops": 1}

    solver: Solver = "logistic"
    n_crops: Natural = 8
    power: Positive = 0.5
    l2: bool = True
    class_weight: Literal["balanced"] | None = None
    n_bank: int = 1000

    def learn(self, fitting: Fitting) -> Outcome:
        pictures = fitting.look(
            views=lambda sample: crops_by_name(sample.image, self.n_crops, self.seed), n_bank=self.n_bank
        )
        return self.learn_seen(fitting.encoder, pictures)

    def learn_seen(self, encoder: Encoder, pictures: EncodedSet) -> Outcome:
        """Fit on encoded pictures, which must all have the same number of views."""
        rows = Rows.of(pictures, self._feature)
        with beside(encoder.engine.name, len(pictures.items)):
            chosen = self._choose(rows, pictures)
        trial, plain = (
            self._classifier(encoder, pictures, fit, chosen.temperature) for fit in (chosen.trial, chosen.fit)
        )
        figures = {
            **_random_figures(chosen.at_random),
            "C": float(f"{chosen.c:.4g}"),
            "temperature": round(chosen.temperature, 4),
        }
        return Outcome(
            replace(plain, held_out=chosen.held_out(pictures)),
            pictures,
            figures,
            trial,
            measured=chosen.held_out(pictures, most=len(pictures.labels)),
            index=chosen.index,
        )

    def fit_at(self, pictures: EncodedSet, c: float) -> Head:
        """Fit on the pictures with the given ``C`` per picture, without calibration."""
        rows = Rows.of(pictures, self._feature)
        fit = self._solve(rows, torch.ones_like(rows.own), len(pictures.classes), c / (self.n_crops + 1), None)
        return Head(self._feature, fit.weight, fit.bias)

    def _choose(self, rows: Rows, pictures: EncodedSet) -> Choice:
        """Choose C and the temperature on held-out pictures; without any, use ``UNCHOSEN`` and no calibration."""
        n_classes = len(pictures.classes)
        unit = 1.0 / (self.n_crops + 1) / max(float(rows.x.square().sum(1).mean()), 1e-12)
        if not bool((rows.fold >= 0).any()):
            c = UNCHOSEN * unit
            fit = self._solve(rows, rows.final, n_classes, c, None)
            return Choice(c * (self.n_crops + 1), fit, fit)
        # Pictures of the user's own to choose on leave those to fit on as they are.
        shares = None if pictures.validation else rows.y.bincount(minlength=n_classes).float()
        path = c_path(
            rows.x,
            rows.y,
            n_classes,
            choosing_folds(rows.fold, rows.picture),
            usual=UNCHOSEN * unit,
            groups=rows.picture,
            asked=rows.own,
            grid=[c * unit for c in GRID],
            solver=self.solver,
            weigh=lambda y: self._weight(y, shares),
        )
        c = path.best.c
        starts: list[LinearFit | None] = [*path.latest, *[None] * (int(rows.fold.max()) + 1 - len(path.latest))]
        fits = [self._solve(rows, rows.fold != f, n_classes, c, start, shares) for f, start in enumerate(starts)]
        logits = rows.logits(fits)
        index = (rows.rounds >= 0).nonzero()[:, 0]
        temperature = fit_temperature(logits[index], pictures.labels[index])
        last = fits[0] if pictures.validation else self._solve(rows, rows.final, n_classes, c, fits[0])
        found = Choice(c * (self.n_crops + 1), last, fits[0], temperature, index, logits[index] / temperature)
        if pictures.validation or len(pictures.groups.unique()) == len(pictures):
            return found
        return replace(found, at_random=self._at_random(rows, pictures, c, fits[0]))

    def _at_random(self, rows: Rows, pictures: EncodedSet, c: float, start: LinearFit) -> Bool[Tensor, " r"] | None:
        """Predict pictures held out at random: which are right? ``None`` if no picture can be held out."""
        names = [s.label for s in pictures.items]
        held = torch.tensor(split(names, pictures.digests, self.held_out, self.seed))
        asked = held[rows.picture] & rows.own
        if not bool(asked.any()):
            return None
        shares = rows.y.bincount(minlength=len(pictures.classes)).float()
        fit = self._solve(rows, ~held[rows.picture], len(pictures.classes), c, start, shares)
        return fit.logits(rows.x[asked]).argmax(1) == rows.y[asked]

    @property
    def _feature(self) -> Normalise:
        return Normalise(self.power, self.l2)

    def _solve(
        self, rows: Rows, of: Tensor, n_classes: int, c: float, start: LinearFit | None, shares: Tensor | None = None
    ) -> LinearFit:
        x, y = rows.x[of], rows.y[of]
        weight = self._weight(y, shares)
        return fit_linear(x, y, n_classes, c, solver=self.solver, sample_weight=weight, warm_start=start, tol=TOL)

    def _weight(self, y: Tensor, shares: Tensor | None) -> Tensor | None:
        if self.class_weight == "balanced":
            return balanced_weight(y)
        return None if shares is None else share_weight(y, shares)

    def _classifier(self, encoder: Encoder, pictures: EncodedSet, fit: LinearFit, temperature: float) -> Classifier:
        head = Head(self._feature, fit.weight / temperature, fit.bias / temperature)
        origin = f"{int(pictures.final.sum()):,} of your pictures, {len(pictures.classes)} classes"
        if pictures.validation:
            origin += f"; chosen and measured on {int(pictures.held.sum()):,} validation pictures"
        return Classifier(self.name, self.parameters(), encoder, pictures.classes, head, trained_on=origin)


def _random_figures(right: Bool[Tensor, " r"] | None) -> dict[str, Any]:
    if right is None:
        return {"random_accuracy": None, "random_interval": None}
    interval = [round(end, 4) for end in accuracy_interval(right)]
    return {"random_accuracy": round(float(right.double().mean()), 4), "random_interval": interval}
