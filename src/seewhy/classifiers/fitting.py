"""The base class of methods that fit a classifier to pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from jaxtyping import Int
from torch import Tensor

from ..descriptions.base import Caption, Descriptions
from ..encoders.base import Encoder
from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import InputError
from ..parameters import configured
from ..pictures.samples import Samples
from ..progress import Progress
from ..prototypes.bank import PatchBank
from ..prototypes.measure import Labelled, LikenessMeasure, Trial, trials
from ..prototypes.nearest import NearestPatches
from ..storage.features import FeatureStore
from ..threads import beside
from ..undisturbed import undisturbed
from . import Recipe, classifiers
from .base import Classifier, HeldOut
from .certainty import common_figures
from .encoded_set import EncodedSet, HeldOutPart, HoldOut, Split, encode_samples, spread


@dataclass(frozen=True)
class Fitting:
    encoder: Encoder
    samples: Samples
    held_out: HoldOut
    descriptions: Descriptions | None
    captions: Sequence[Caption] | None
    store: FeatureStore | None
    progress: Progress
    checkpoint: Path | None

    def sealed(self, seal: str) -> tuple[Path, str] | None:
        """Return the checkpoint file with a digest of the fit, which must be equal to resume."""
        return None if self.checkpoint is None else (self.checkpoint, seal)

    def look(self, reader: Encoder | None = None, *, keep: bool = True, **how: Any) -> EncodedSet:
        """Encode the pictures with the encoder, or with another encoder ``reader``; see :func:`.encode_samples`."""
        store, eye = self.store if keep else None, reader or self.encoder
        return encode_samples(eye, self.samples, self.held_out, store=store, progress=self.progress, **how)


@dataclass(frozen=True)
class Outcome:
    """The result of :meth:`PictureRecipe.learn`.

    Attributes:
        classifier: classifier with the held-out pictures and their logits.
        pictures: training and held-out pictures.
        figures: metrics of this method, in addition to the metrics that every method reports.
        trial: the fit without held-out pictures, if ``classifier`` was fitted again with them.
        measured: all pictures for the metrics, if the classifier stores only some of them.
        index: indices of the pictures for the metrics; default: the held-out pictures.
        patches: pictures for the patch bank, if they differ from ``pictures``.
        keep: whether the features of the classifier's encoder may be cached.
    """

    classifier: Classifier
    pictures: EncodedSet
    figures: Mapping[str, Any] = field(default_factory=dict)
    trial: Classifier | None = None
    measured: HeldOut | None = None
    index: Int[Tensor, " m"] | None = None
    patches: EncodedSet | None = None
    keep: bool = True


@dataclass(frozen=True, kw_only=True)
class PictureRecipe(Recipe):
    """The base class of methods that learn from labelled pictures; a subclass implements :meth:`learn`.

    Class attributes:
        takes: inputs in addition to pictures: ``"descriptions"``, ``"captions"``, ``"checkpoint"``.

    Args:
        held_out: fraction of the pictures to hold out for metrics, between 0 and 1.
        split: ``grouped`` keeps pictures of the same object together. ``random`` does not; the metrics are then too
            optimistic.
        n_bank: number of pictures whose patches are stored as evidence; a larger number makes the model file larger.
        seed: seed of all random numbers: splits, crops, weights and order.
    """

    takes: ClassVar[tuple[str, ...]] = ("descriptions",)

    held_out: HeldOutPart = 0.2
    split: Split = "grouped"
    seed: int = 0

    @abstractmethod
    def learn(self, fitting: Fitting) -> Outcome:
        """Encode the pictures and fit the classifier."""

    @final
    @undisturbed
    def fit(
        self,
        encoder: Encoder,
        samples: Samples,
        *,
        validation: Samples | None = None,
        descriptions: Descriptions | None = None,
        captions: Sequence[Caption] | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Classifier:
        """Fit a classifier to labelled pictures, and measure it on held-out pictures.

        Args:
            encoder: the encoder, which is not changed.
            samples: labelled pictures.
            validation: pictures on which settings are chosen and metrics computed, never used for training; default:
                the fraction ``held_out`` of ``samples``. If ``samples`` has near-duplicates, such as frames of the same
                film, give other pictures here; otherwise all metrics are too optimistic.
            descriptions: texts that describe the classes, to show as evidence or to learn from.
            captions: texts for each picture; see :mod:`seewhy.language.matching`.
            store: cache of features.
            progress: progress reporter.
            checkpoint: file to resume an interrupted run from; the caller deletes it after the run.
        """
        self.check_given(descriptions=descriptions, captions=captions, checkpoint=checkpoint)
        hold_out = HoldOut(self.held_out, self.seed, validation, self.split)
        words = None if descriptions is None else descriptions.limited_to(samples.classes)
        progress = progress or Progress()
        fitting = Fitting(encoder, samples, hold_out, words, captions, store, progress, checkpoint)
        with progress.doing("Fitting the classifier"):
            outcome = self.learn(fitting)
        with progress.doing("Measuring it on held-out pictures"), beside(encoder.engine.name):  # many small products
            made = replace(outcome.classifier, **self._evidence(outcome, fitting))
        return made.with_descriptions(words, store) if words is not None and made.words is None else made

    def check_given(self, **given: object) -> None:
        for name, value in given.items():
            if value is not None and name not in self.takes:
                able = [n for n in classifiers if name in getattr(classifiers[n], "takes", ())]
                texts = " and ".join(name for name in self.takes if name != "checkpoint")
                raise InputError(
                    f"The method {self.name} does not take {name}, only "
                    f"{f'pictures with {texts}' if texts else 'pictures'}. Leave {name} out, or use one of "
                    f"{', '.join(able)}."
                )

    def _evidence(self, outcome: Outcome, fitting: Fitting) -> dict[str, Any]:
        made, pictures, progress = outcome.classifier, outcome.pictures, fitting.progress
        evidence = {} if self.n_bank is None else _patches(outcome, self.n_bank, fitting)
        fitted_on = ~pictures.held if outcome.trial is None else pictures.final
        measured, c = outcome.measured or made.held_out, outcome.figures.get("C")
        common = common_figures(pictures, int(fitted_on.sum()), measured, progress, outcome.index, c)
        return {**evidence, "measures": {**common, **outcome.figures}, "known": pictures.known(fitted_on)}


def _patches(outcome: Outcome, n_bank: int, fitting: Fitting) -> dict[str, Any]:
    """Return the patch bank and its reliability on the held-out pictures of each fold."""
    pictures, final, progress = outcome.patches or outcome.pictures, outcome.classifier, fitting.progress
    chosen = [
        i for part in (pictures.final, ~pictures.final) for i in spread(pictures.labels.tolist(), part.tolist(), n_bank)
    ]
    same = pictures.encoder == final.encoder.fingerprint
    encoded = {i: s for i in chosen if same and (s := pictures.encoded[i]).features is not None and s.picture}
    missing = [i for i in chosen if i not in encoded]
    request = EncodeRequest(features=lambda _index: True, pictures=True)
    store = fitting.store if outcome.keep else None
    stream = encode_stream(final.encoder, [pictures.items[i].source for i in missing], store=store, request=request)
    again = list(progress.track(stream, "Storing patches of the pictures", len(missing)))
    encoded |= {i: s for i, s in zip(missing, again, strict=True) if isinstance(s, Encoded)}
    encoded = {i: encoded[i] for i in chosen if i in encoded}
    kept = [i for i in encoded if bool(pictures.final[i])]
    if not kept:
        return {"bank": None}
    bank = PatchBank.build(final, [encoded[i] for i in kept], [int(pictures.labels[i]) for i in kept])
    index, measured = outcome.index, outcome.measured
    if index is not None and measured is not None and measured.logits is not None:
        decided = dict(zip(index.tolist(), measured.logits.argmax(1).tolist(), strict=True))
    else:
        trial = outcome.trial or final
        with torch.no_grad():
            held = [i for i in encoded if bool(pictures.held[i])]
            decided = {i: int(trial.head(encoded[i].pooled[:1]).argmax()) for i in held}
    folds = pictures.held.long() if pictures.folds is None or pictures.validation else pictures.folds
    tested = {i: Labelled(encoded[i], int(pictures.labels[i]), k) for i, k in decided.items() if i in encoded}
    made: list[Trial] = []
    rounds = sorted({int(folds[i]) for i in tested})
    for number, fold in enumerate(rounds, 1):
        others = bank.without(folds[kept] == fold)
        if others.pictures:
            mine = [one for i, one in tested.items() if int(folds[i]) == fold]
            what = f"Testing whether similar parts have the same class, round {number} of {len(rounds)}"
            made += trials(final, NearestPatches(), others, progress.track(mine, what, len(mine)), len(tested))
    return {"bank": bank, "likeness": LikenessMeasure.of(made)}


def recipe_named(method: str | PictureRecipe, settings: Mapping[str, Any] | None = None) -> PictureRecipe:
    """Return a method that can be fitted on pictures, by its name or as it is, with these settings."""
    kind: Any = classifiers[method] if isinstance(method, str) else method
    if not hasattr(kind, "fit"):
        able = ", ".join(name for name in classifiers if hasattr(classifiers[name], "fit"))
        raise InputError(f"`method` must be one of {able}, got {method}.")
    recipe: PictureRecipe = configured(kind, settings or {})
    return recipe
