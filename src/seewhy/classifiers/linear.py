"""A linear classifier on frozen features (CNN Features off-the-shelf; Razavian et al. 2014, arXiv 1403.6382)."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data import Sample, Samples, copies_under_two_classes, split
from ..descriptions.base import Descriptions
from ..encoders.base import Encoder
from ..errors import DataError
from ..features import Seen, Wish, see
from ..listener import Listener
from ..prototypes.bank import PatchBank
from ..prototypes.measure import measure_likeness
from ..store import FeatureStore
from ..types import Crop, Failure
from . import classifiers
from .base import Classifier, HeldOut
from .head import Head
from .jitter import random_crops
from .normalise import Normalise
from .recipe import Recipe
from .solvers import Solver, balanced_weight, c_path, fit_logistic, fit_svm

MAX_HELD_OUT = 5000


@classifiers.register
@dataclass(frozen=True)
class Linear(Recipe):
    """Logistic regression or a linear SVM on the pooled features of a frozen encoder.

    Every picture is seen as itself and as ``n_crops`` random crops and flips; features get a signed power and unit
    length; the regularisation is chosen on held-out pictures; probabilities are calibrated by temperature on them;
    the final fit uses all pictures. The paper crops at fixed places and squares its features; random crops and the
    square root did better on validation data here (benchmarks/grocery.py).

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

    def fit(
        self,
        encoder: Encoder,
        samples: Samples,
        *,
        descriptions: Descriptions | None = None,
        store: FeatureStore | None = None,
        listener: Listener | None = None,
    ) -> Classifier:
        """Look at the pictures and fit.

        Args:
            encoder: frozen.
            samples: pictures with classes.
            descriptions: of the same classes, as words evidence.
            store: where looks are kept, so that a second or an interrupted run does not look again.
            listener: hears of progress, notes and failures.

        Raises:
            DataError: fewer than two classes have a readable picture.
        """
        listener = listener or Listener()
        if descriptions is not None:
            descriptions = descriptions.limited_to(samples.classes)
        for note in samples.notes:
            listener.note(note)
        items, seen = self._look(encoder, samples.items, store, listener)
        classes = tuple(c for c in samples.classes if any(s.label == c for s in items))
        if len(classes) < 2:
            raise DataError(
                f"Only {len(classes)} class has a readable picture; at least two are needed. "
                "Put the pictures of each class into a folder of its own."
            )
        labels = torch.tensor([classes.index(s.label) for s in items])
        held = torch.tensor(split([s.label for s in items], [s.digest for s in seen], self.held_out, self.seed))
        twice = copies_under_two_classes([s.label for s in items], [s.digest for s in seen])
        if twice:
            listener.note(f"{twice} picture(s) lie in more than one class, byte for byte; neither copy is held out")
        pooled = torch.stack([s.pooled for s in seen])
        chosen = self._choose(encoder, classes, pooled, labels, held)
        plain = self._solve(encoder, classes, pooled, labels, chosen.c, chosen.temperature)
        bank = _bank_pictures(labels.tolist(), self.n_bank, len(classes))
        evidence = self._evidence(chosen.trial, plain, items, labels, held, bank, store, listener)
        done = replace(plain, **evidence, held_out=_held_out(pooled, labels, held))
        done = replace(done, measures=self._measures(chosen, len(items), int(held.sum()), listener))
        return done if descriptions is None else done.with_descriptions(descriptions, store)

    def _views(self, items: Sequence[Sample]) -> Any:
        """Crops by file name, so that adding pictures leaves those of the others as they were."""
        names = [zlib.crc32(Path(s.image).name.encode("utf-8", "surrogateescape")) for s in items]

        def views(index: int) -> Sequence[Crop | None]:
            return [None, *random_crops(self.n_crops, self.seed, names[index])]

        return views

    def _look(
        self, encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, listener: Listener
    ) -> tuple[list[Sample], list[Seen]]:
        kept, found = [], []
        stream = see(encoder, [s.image for s in items], store=store, wish=Wish(views=self._views(items)))
        for sample, seen in zip(items, listener.track(stream, "Looking", len(items)), strict=True):
            if isinstance(seen, Failure):
                listener.failed(seen)
                continue
            kept.append(sample)
            found.append(seen)
        return kept, found

    def _choose(
        self, encoder: Encoder, classes: tuple[str, ...], pooled: Tensor, labels: Tensor, held: Tensor
    ) -> _Choice:
        """C and temperature, on held-out pictures; without any, C = 1 and no calibration, and the card says so."""
        if not held.any():
            return _Choice(1.0, 1.0, None, self._solve(encoder, classes, pooled, labels, 1.0))
        n_views = pooled.shape[1]
        # Held-out pictures are judged as they are predicted: by their own crop alone.
        x = torch.cat([pooled[~held].flatten(0, 1), pooled[held][:, 0]])
        y = torch.cat([labels[~held].repeat_interleave(n_views), labels[held]])
        fold = torch.cat(
            [torch.full((int((~held).sum()) * n_views,), -1), torch.zeros(int(held.sum()), dtype=torch.long)]
        )
        groups = torch.cat(
            [torch.arange(int((~held).sum())).repeat_interleave(n_views), torch.arange(len(labels))[held] + len(labels)]
        )
        balanced = self.class_weight == "balanced"
        path = c_path(self._feature(x), y, len(classes), fold, groups=groups, solver=self.solver, balanced=balanced)
        best = path.best
        trial = self._solve(encoder, classes, pooled[~held], labels[~held], best.c, best.temperature)
        return _Choice(best.c, best.temperature, round(best.accuracy, 4), trial)

    @property
    def _feature(self) -> Normalise:
        return Normalise(self.power, self.l2)

    def _solve(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        pooled: Tensor,
        labels: Tensor,
        c: float,
        temperature: float = 1.0,
    ) -> Classifier:
        """Fit on all views of these pictures."""
        y = labels.repeat_interleave(pooled.shape[1])
        weight = balanced_weight(y) if self.class_weight == "balanced" else None
        solve = fit_logistic if self.solver == "logistic" else fit_svm
        fit = solve(self._feature(pooled.flatten(0, 1)), y, len(classes), c, sample_weight=weight)
        head = Head(self._feature, fit.weight / temperature, fit.bias / temperature)
        trained_on = f"{len(labels):,} of your pictures, {len(classes)} classes"
        return Classifier(self.name, self.parameters(), encoder, classes, head, trained_on=trained_on)

    def _evidence(
        self,
        trial: Classifier,
        final: Classifier,
        items: Sequence[Sample],
        labels: Tensor,
        held: Tensor,
        bank: Sequence[int],
        store: FeatureStore | None,
        listener: Listener,
    ) -> dict[str, Any]:
        """The bank of patches, and how far it can be trusted: by a bank and a fit without the held-out pictures."""
        from ..prototypes.nearest import NearestPatches

        wish = Wish(features=lambda _index: True, pictures=True)
        stream = see(final.encoder, [items[i].image for i in bank], store=store, wish=wish)
        looked = list(listener.track(stream, "Keeping patches", len(bank)))
        pairs = [(s, int(labels[i]), bool(held[i])) for s, i in zip(looked, bank, strict=True) if isinstance(s, Seen)]
        if not pairs:
            return {}
        found: dict[str, Any] = {"bank": PatchBank.build(final, [s for s, _, _ in pairs], [k for _, k, _ in pairs])}
        train = [(s, k) for s, k, out in pairs if not out]
        if train and len(train) < len(pairs):
            known = PatchBank.build(trial, [s for s, _ in train], [k for _, k in train])
            found["likeness"] = measure_likeness(trial, NearestPatches(), known, [s for s, _, out in pairs if out])
        return found

    def _measures(self, chosen: _Choice, n: int, n_held: int, listener: Listener) -> dict[str, Any]:
        return {
            "held_out_accuracy": chosen.accuracy,
            "n_held_out": n_held,
            "n_pictures": n,
            "C": chosen.c,
            "temperature": round(chosen.temperature, 4),
            "notes": list(listener.notes),
            "failures": [f.to_json() for f in listener.failures],
        }


@dataclass(frozen=True)
class _Choice:
    """What was chosen on held-out pictures, and the classifier it was chosen with."""

    c: float
    temperature: float
    accuracy: float | None
    trial: Classifier


def _bank_pictures(labels: Sequence[int], most: int, n_classes: int) -> list[int]:
    """Up to ``most`` pictures, as evenly spread over the classes as can be, in order."""
    cap = max(1, most // n_classes)
    taken: dict[int, int] = defaultdict(int)
    found = []
    for i, label in enumerate(labels):
        if taken[label] < cap:
            taken[label] += 1
            found.append(i)
    return found


def _held_out(pooled: Tensor, labels: Tensor, held: Tensor) -> HeldOut | None:
    if not held.any():
        return None
    index = held.nonzero()[:, 0]
    if len(index) > MAX_HELD_OUT:
        index = index[torch.linspace(0, len(index) - 1, MAX_HELD_OUT).long()]
    return HeldOut(pooled[index, 0], labels[index])
