"""A linear classifier on frozen features (CNN Features off-the-shelf; Razavian et al. 2014, arXiv 1403.6382)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data import Sample, Samples
from ..descriptions.base import Descriptions
from ..encoders.base import Encoder
from ..errors import DataError
from ..listener import Listener
from ..store import FeatureStore
from ..types import Crop
from . import classifiers
from .base import Classifier
from .head import Head
from .holdout import HoldOut, Pictures, common_measures, look_at, patch_evidence
from .jitter import crops_by_name
from .normalise import Normalise
from .recipe import Recipe
from .solvers import LinearFit, Solver, balanced_weight, c_path, fit_logistic, fit_svm

GRID = tuple(10.0 ** (e / 2) for e in range(-2, 8))
"""C per picture, for features of mean squared length 1: the losses of a picture's views are averaged."""

UNCHOSEN = 100.0
"""That C where nothing is held out to choose it on: the middle of what is best on photographs."""

TOL = 1e-4
"""Relative decrease at which fits stop; 1e-6 takes twice as long for the same accuracy (benchmarks/linear_fit.py)."""


@classifiers.register
@dataclass(frozen=True)
class Linear(Recipe):
    """Logistic regression or a linear SVM on the pooled features of a frozen encoder.

    Every picture is seen as itself and as ``n_crops`` random crops and flips; features get a signed power and unit
    length; the regularisation is chosen on held-out pictures; probabilities are calibrated by temperature on them;
    the final fit uses all pictures, or all but the validation pictures where the user gives some. The paper crops at
    fixed places and squares its features; random crops and the square root did better on validation data
    (benchmarks/grocery.py).

    Args:
        solver: ``"logistic"`` (multinomial) or ``"svm"`` (one against the rest, squared hinge).
        n_crops: random crops a picture.
        power: exponent of the signed power.
        l2: whether features get unit length.
        class_weight: ``"balanced"`` weighs classes alike; ``None`` weighs pictures alike.
        held_out: part of the pictures on which C, temperature and evidence are measured.
        n_bank: pictures whose patches are kept as evidence, spread over the classes.
        seed: of split and crops.
    """

    name: ClassVar[str] = "linear"
    paper: ClassVar[str] = "Razavian et al. 2014, arXiv:1403.6382"
    needs: ClassVar[str] = "pictures in classes"

    solver: Solver = "logistic"
    n_crops: int = 8
    power: float = 0.5
    l2: bool = True
    class_weight: str | None = None
    held_out: float = 0.2
    n_bank: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver not in ("logistic", "svm"):
            raise DataError(f"There is no solver called {self.solver!r}. Use logistic or svm.")
        if self.class_weight not in (None, "balanced"):
            raise DataError(f"There is no class weight called {self.class_weight!r}. Use balanced, or None.")
        HoldOut(self.held_out)  # refuses a part that cannot be held out

    def fit(
        self,
        encoder: Encoder,
        samples: Samples,
        *,
        validation: Samples | None = None,
        descriptions: Descriptions | None = None,
        store: FeatureStore | None = None,
        listener: Listener | None = None,
    ) -> Classifier:
        """Look at the pictures and fit.

        Args:
            encoder: frozen.
            samples: pictures with classes.
            validation: pictures on which C, temperature and evidence are measured, instead of on a part of
                ``samples``; they are never trained on. Give them where ``samples`` holds near-duplicates (frames of
                one film, photos of one visit), on which everything looks better than it is.
            descriptions: of the same classes, as words evidence.
            store: where looks are kept, so that a second or an interrupted run does not look again.
            listener: hears of progress, notes and failures.

        Raises:
            DataError: fewer than two classes have a readable picture, or a validation picture is of another class.
        """
        listener = listener or Listener()
        if descriptions is not None:
            descriptions = descriptions.limited_to(samples.classes)
        pictures = self._look(encoder, samples, validation, store, listener)
        return self.fit_seen(encoder, pictures, descriptions=descriptions, store=store, listener=listener)

    def fit_seen(
        self,
        encoder: Encoder,
        pictures: Pictures,
        *,
        descriptions: Descriptions | None = None,
        store: FeatureStore | None = None,
        listener: Listener | None = None,
    ) -> Classifier:
        """Fit on pictures that were looked at before, all with as many views.

        Args:
            encoder: what they were looked at with, or what makes of their features those in ``pictures``.
            pictures: with those that are held out.
            descriptions: of their classes, as words evidence.
            store: where looks are kept.
            listener: hears of progress, notes and failures.
        """
        listener = listener or Listener()
        chosen = self._choose(pictures)
        trial = self._classifier(encoder, pictures, chosen)
        last = chosen if pictures.validation else replace(chosen, fit=self._solve(pictures, pictures.final, chosen))
        plain = self._classifier(encoder, pictures, last)
        evidence = patch_evidence(trial, plain, pictures, self.n_bank, store, listener)
        measures = _measures(chosen, pictures, listener)
        done = replace(plain, **evidence, held_out=pictures.held_out(), measures=measures)
        return done if descriptions is None else done.with_descriptions(descriptions, store)

    def _look(
        self,
        encoder: Encoder,
        samples: Samples,
        validation: Samples | None,
        store: FeatureStore | None,
        listener: Listener,
    ) -> Pictures:
        """See the pictures as themselves and as crops, validation pictures as themselves alone."""
        held_out = HoldOut(self.held_out, self.seed, validation)
        return look_at(encoder, samples, held_out, store=store, listener=listener, views=self._views)

    def _views(self, sample: Sample) -> Sequence[Crop | None]:
        return crops_by_name(sample.image, self.n_crops, self.seed)

    def _choose(self, pictures: Pictures) -> _Choice:
        """C and temperature, on held-out pictures; without any, a middling C and no calibration."""
        x, y, picture = pictures.rows(~pictures.held)
        x = self._feature(x)
        unit = 1.0 / (self.n_crops + 1) / max(float(x.square().sum(1).mean()), 1e-12)
        held = pictures.held_out()
        if held is None:
            first = _Choice(UNCHOSEN * unit, self.n_crops + 1)
            return replace(first, fit=self._solve(pictures, ~pictures.held, first))
        n, m = len(x), len(held.labels)
        path = c_path(
            torch.cat([x, self._feature(held.pooled)]),
            torch.cat([y, held.labels]),
            len(pictures.classes),
            torch.cat([torch.full((n,), -1), torch.zeros(m, dtype=torch.long)]),
            groups=torch.cat([picture, len(pictures.labels) + torch.arange(m)]),
            grid=[c * unit for c in GRID],
            solver=self.solver,
            balanced=self.class_weight == "balanced",
        )
        best = path.best
        first = _Choice(best.c, self.n_crops + 1, best.temperature, best.accuracy, path.fit)
        return replace(first, fit=self._solve(pictures, ~pictures.held, first))

    @property
    def _feature(self) -> Normalise:
        return Normalise(self.power, self.l2)

    def _solve(self, pictures: Pictures, of: Tensor, chosen: _Choice) -> LinearFit:
        """Fit on all views of these pictures, from the fit there is."""
        x, y, _ = pictures.rows(of)
        weight = balanced_weight(y) if self.class_weight == "balanced" else None
        solve = fit_logistic if self.solver == "logistic" else fit_svm
        n_classes = len(pictures.classes)
        return solve(self._feature(x), y, n_classes, chosen.c, sample_weight=weight, warm_start=chosen.fit, tol=TOL)

    def _classifier(self, encoder: Encoder, pictures: Pictures, chosen: _Choice) -> Classifier:
        fit, n_held = chosen.fit, int(pictures.held.sum())
        if fit is None:
            raise ValueError("a choice without a fit")
        head = Head(self._feature, fit.weight / chosen.temperature, fit.bias / chosen.temperature)
        origin = f"{int(pictures.final.sum()):,} of your pictures, {len(pictures.classes)} classes"
        if pictures.validation:
            origin += f"; chosen and measured on {n_held:,} validation pictures"
        return Classifier(self.name, self.parameters(), encoder, pictures.classes, head, trained_on=origin)


@dataclass(frozen=True)
class _Choice:
    """What was chosen on held-out pictures: C of a row, rows a picture, and the fit with it."""

    c: float
    n_views: int
    temperature: float = 1.0
    accuracy: float | None = None
    fit: LinearFit | None = None


def _measures(chosen: _Choice, pictures: Pictures, listener: Listener) -> dict[str, Any]:
    """``C`` is a picture's: a row's times the number of its views."""
    return {
        **common_measures(pictures, int(pictures.final.sum()), chosen.accuracy, listener),
        "C": float(f"{chosen.c * chosen.n_views:.4g}"),
        "temperature": round(chosen.temperature, 4),
    }
