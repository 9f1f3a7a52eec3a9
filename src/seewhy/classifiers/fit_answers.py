"""Fit a model that makes several decisions, on a frozen encoder or on one network that is trained for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder
from ..errors import DataError, InputError
from ..metrics.labels import Aim, average_precision, given_apart, interval_of, threshold_for
from ..pictures.answers import Answers
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..storage.output import working_folder
from ..trust.groups import group_folds
from ..types import Failure
from .base import Classifier, HeldOut
from .certainty import paired_gain
from .encoded_set import HoldOut, encode_samples
from .fitting import PictureRecipe, recipe_named
from .multi_output import LabelMeasure, MultiOutput, Shared, held_out

FEWEST = 5
"""Smallest number of pictures with a label, and without it, from which the label is learnt."""
SHOWN = 1.64
"""Standard errors by which a trained network must be better: a one-sided 95 % interval."""
N_FOLDS = 5
"""Folds of held-out pictures: precision and recall of a fold are measured with a threshold chosen on the others."""
FEWEST_PATCHED = 100
"""Smallest number of pictures in the patch bank of a decision."""


class _Once(Progress):
    """Passes on what is in progress, each unreadable picture once and, if it ``tells``, the notes."""

    def __init__(self, to: Progress, tells: bool = False) -> None:
        super().__init__()
        self.doing, self.track = to.doing, to.track  # type: ignore[method-assign]
        self.to, self.tells = to, tells

    def note(self, text: str) -> None:
        super().note(text)
        if self.tells:
            self.to.note(text)

    def failed(self, failure: Failure) -> None:
        super().failed(failure)
        if failure not in self.to.failures:
            self.to.failed(failure)


def fit_answers(
    encoder: Encoder,
    answers: Answers,
    recipe: PictureRecipe,
    *,
    validation: Answers | None = None,
    aim: str = "f1",
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> MultiOutput:
    """Fit one classifier for each label or question; see :func:`seewhy.fit_multi`."""
    if isinstance(recipe, TrainsShared):
        return _fit_tuned(encoder, answers, recipe, validation, aim, store, progress or Progress(), checkpoint)
    if recipe.network is not None:
        raise InputError(
            f"{recipe.name} trains one network for each decision, so a picture would be encoded once for each. Use "
            "fine_tune, which trains one network for all, or linear, or fit one model for each decision."
        )
    if recipe.n_bank is not None:
        recipe = recipe_named(recipe, {"n_bank": max(FEWEST_PATCHED, recipe.n_bank // len(answers.given))})
    chosen_for, progress = Aim.parse(aim), progress or Progress()
    progress.note_all(answers.notes)
    made: dict[str, Classifier] = {}
    left_out: dict[str, str] = {}

    def fit_all(store: FeatureStore) -> None:
        for name in progress.track(answers.given, f"Learning {answers.kind}", len(answers.given)):
            try:
                samples, own = answers.of(name), _Once(progress)
                if answers.kind == "labels":
                    _check_enough(name, [s.label for s in samples.items])
                tested = None
                if validation is not None:
                    items, others = validation.of(name).of(samples.classes)
                    own.note_all(others)
                    tested = Samples(items, samples.classes)
                made[name] = recipe.fit(encoder, samples, validation=tested, store=store, progress=own).with_trust(own)
            except DataError as error:
                left_out[name] = str(error)

    if store is not None:
        fit_all(store)
    else:
        with working_folder(None) as folder:
            fit_all(FeatureStore(folder / "features.sqlite"))
    if not made:
        raise DataError(f"No decision could be learnt. The first problem is: {next(iter(left_out.values()))}")
    model = MultiOutput(answers.kind, made, chosen_for, {}, left_out)
    return model if answers.kind == "questions" else replace(model, measures=_measured(model))


@runtime_checkable
class TrainsShared(Protocol):
    """A method that trains one network for several decisions; ``frozen`` is the method on features."""

    held_out: float
    seed: int

    @property
    def frozen(self) -> PictureRecipe: ...

    def shared(
        self, encoder: Encoder, answers: Answers, *, store: FeatureStore | None, progress: Progress,
        checkpoint: Path | None,
    ) -> Shared: ...  # fmt: skip


def _fit_tuned(
    encoder: Encoder, answers: Answers, recipe: TrainsShared, validation: Answers | None, aim: str,
    store: FeatureStore | None, progress: Progress, checkpoint: Path | None,
) -> MultiOutput:  # fmt: skip
    """Train the network, and keep it if it is better than the frozen one on pictures from which neither learnt."""
    progress.note_all(answers.notes)
    once = _Once(progress)
    own, held = (answers, validation) if validation is not None else _parted(encoder, answers, recipe, store, once)
    how: dict[str, Any] = {"aim": aim, "progress": once}
    frozen = fit_answers(encoder, own, recipe.frozen, validation=held, store=store, **how)
    shared = recipe.shared(encoder, own, store=store, progress=_Once(progress, tells=True), checkpoint=checkpoint)
    tuned = fit_answers(shared.encoder(), own, recipe.frozen, validation=held, **how)
    each = [(name, frozen.decisions[name], one) for name, one in tuned.decisions.items() if name in frozen.decisions]
    gains = [_gain(answers.kind, *one) for one in each]
    known = torch.tensor([(gain, error) for gain, error in gains if not math.isnan(gain)]).reshape(-1, 2)
    gain, error = known.mean(0).tolist() if len(known) else (0.0, 0.0)  # as if the decisions were right together
    what = "mean average precision" if answers.kind == "labels" else "mean accuracy"
    shown = f"{what} {100 * gain:+.1f} points, standard error {100 * error:.1f}, on {len(held):,} held-out pictures"
    if gain <= SHOWN * error:
        progress.note(f"fine-tuning shows no gain ({shown}), so the frozen encoder is kept")
        return fit_answers(encoder, answers, recipe.frozen, validation=validation, store=store, **how)
    progress.note(f"fine-tuning is better than the frozen encoder: {shown}")
    return replace(tuned, shared=shared)


def _parted(
    encoder: Encoder, answers: Answers, recipe: TrainsShared, store: FeatureStore | None, progress: Progress
) -> tuple[Answers, Answers]:
    """Hold out some pictures for all decisions; pictures of one object stay together."""
    items = [replace(s, label=kind, kind=kind) for s, kind in zip(answers.items, answers.kinds, strict=True)]
    every = Samples(tuple(items), tuple(sorted(set(answers.kinds))))
    pictures = encode_samples(encoder, every, HoldOut(recipe.held_out, recipe.seed), store=store, progress=progress)
    held = {s.image for s, out in zip(pictures.items, pictures.held.tolist(), strict=True) if out}
    if not held:
        raise DataError("No picture can be held out. Give pictures of different objects, or validation pictures.")
    index = {flag: [i for i, s in enumerate(items) if (s.image in held) is flag] for flag in (False, True)}
    return answers.part(index[False]), answers.part(index[True])


def _gain(kind: str, name: str, before: Classifier, after: Classifier) -> tuple[float, float]:
    """Return the gain of a decision on the same held-out pictures, and its standard error over groups."""
    sides = [one.held_out for one in (before, after)]
    if any(held is None or held.logits is None for held in sides):
        return math.nan, math.nan
    one, other = cast("list[HeldOut]", sides)
    groups = torch.arange(len(one.labels)) if one.groups is None else one.groups
    logits = [cast(Tensor, held.logits) for held in (one, other)]
    if kind == "questions":
        right = [(one_side.argmax(1) == one.labels).double() for one_side in logits]
        return paired_gain(right[0], right[1], groups)
    k = before.classes.index(name)
    scores = [one_side.softmax(1)[:, k] for one_side in logits]

    def gained(weights: Float[Tensor, " n"]) -> float:
        values = [average_precision(p, one.labels == k, weights) for p in scores]
        return values[1] - values[0]

    low, high = interval_of(gained, groups)
    return gained(torch.ones(len(groups))), (high - low) / 2 / 1.959964


def _check_enough(label: str, answers: Sequence[str]) -> None:
    n = answers.count(label)
    for has, count in (("have", n), ("do not have", len(answers) - n)):
        if count < FEWEST:
            raise DataError(f"At least {FEWEST} pictures must {has} {label!r}, got {count}. Add pictures of it.")


def _measured(model: MultiOutput) -> dict[str, LabelMeasure]:
    """Return the threshold of each label, and how well it is given, on held-out pictures."""
    found = {}
    for name, one in model.decisions.items():
        p, true, groups = held_out(name, one)
        if not bool(true.any()) or bool(true.all()):
            found[name] = LabelMeasure(name, len(true), int(true.sum()), None, None, 0.5, None, None, None)
            continue
        threshold = threshold_for(model.aim, p, true)
        folds = group_folds(true.long(), groups.unique(return_inverse=True)[1], N_FOLDS, seed=0)
        given = given_apart(model.aim, p, true, folds)
        found[name] = LabelMeasure.of(name, p, true, groups, None if math.isinf(threshold) else threshold, given)
    return found
