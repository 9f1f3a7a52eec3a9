"""How a classifier is made of pictures: a recipe learns, and all that is the same for every recipe is done here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

from jaxtyping import Int
from torch import Tensor

from ..descriptions.base import Descriptions
from ..encoders.base import Encoder
from ..errors import InputError
from ..language.matching import Caption
from ..pictures.samples import Sample, Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..threads import beside
from ..types import Crop
from ..undisturbed import undisturbed
from . import classifiers
from .base import Classifier, HeldOut
from .holdout import HoldOut, Pictures, Split, look_at
from .holdout_measures import common_measures
from .patches import patch_evidence
from .recipe import Recipe


@dataclass(frozen=True)
class Fitting:
    """What a recipe is given to learn from.

    Attributes:
        encoder: it is left as it is.
        samples: pictures with classes.
        held_out: which of them are measured on.
        descriptions: of the classes of ``samples``, if there are any.
        captions: of the pictures, if there are any.
        store: where looks are kept.
        progress: hears of progress, notes and failures.
        checkpoint: where to keep what a stopped run goes on from.
    """

    encoder: Encoder
    samples: Samples
    held_out: HoldOut
    descriptions: Descriptions | None
    captions: Sequence[Caption] | None
    store: FeatureStore | None
    progress: Progress
    checkpoint: Path | None

    def sealed(self, seal: str) -> tuple[Path, str] | None:
        """The checkpoint, and of what it must be; ``None`` where none is kept."""
        return None if self.checkpoint is None else (self.checkpoint, seal)

    def look(
        self,
        reader: Encoder | None = None,
        *,
        views: Callable[[Sample], Sequence[Crop | None]] = lambda _sample: (None,),
        features: bool = False,
        n_bank: int | None = None,
        keep: bool = True,
    ) -> Pictures:
        """See the pictures once, and hold some of them out; a broken one is reported and left out.

        Args:
            reader: what looks, if it is not the encoder.
            views: of a picture to train on; validation pictures are seen as themselves alone.
            features: whether the first view's feature map is wanted.
            n_bank: pictures of either kind whose patches will be kept.
            keep: whether the looks are worth keeping.

        Raises:
            DataError: fewer than two classes have a readable picture, or a validation picture is of another class.
        """
        return look_at(
            reader or self.encoder,
            self.samples,
            self.held_out,
            store=self.store if keep else None,
            progress=self.progress,
            views=views,
            features=features,
            n_bank=n_bank,
        )


@dataclass(frozen=True)
class Outcome:
    """What a recipe learnt.

    Attributes:
        classifier: with the held-out pictures and what is said of them.
        pictures: fitted on, and held out.
        figures: of the method, beside those that all report.
        trial: the same without the held-out pictures, where ``classifier`` was fitted on them in the end.
        measured: all that was measured on, where the classifier keeps some of it only.
        index: the places of those measured on, where they are not the ones flagged as held out.
        patches: the pictures whose patches are kept, where others of them are held out than for the figures.
        looked_by: what the pictures were looked at with, where it is not the encoder that was given.
        keep: whether looks through the classifier's encoder are worth keeping.
    """

    classifier: Classifier
    pictures: Pictures
    figures: Mapping[str, Any] = field(default_factory=dict)
    trial: Classifier | None = None
    measured: HeldOut | None = None
    index: Int[Tensor, " m"] | None = None
    patches: Pictures | None = None
    looked_by: Encoder | None = None
    keep: bool = True

    @property
    def decided(self) -> dict[int, int] | None:
        """By place, the class decided for of those measured on, where they are not the ones flagged as held out."""
        if self.index is None or self.measured is None or self.measured.logits is None:
            return None
        return dict(zip(self.index.tolist(), self.measured.logits.argmax(1).tolist(), strict=True))


class PictureRecipe(Recipe):
    """A recipe that learns from pictures with classes; it writes :meth:`learn`.

    Class attributes:
        takes: what it learns from beside pictures: descriptions, captions; and whether it keeps a checkpoint.
        held_out: part of the pictures that it is measured on, unless a field says otherwise.
        split: how they are drawn, unless a field says otherwise.
        n_bank: pictures whose patches are kept as evidence; ``None`` for recipes that keep none, or their own.
        seed: of the split, unless a field says otherwise.
    """

    takes: ClassVar[tuple[str, ...]] = ("descriptions",)

    held_out: float = 0.2
    split: Split = "grouped"
    n_bank: int | None = None
    seed: int = 0

    @abstractmethod
    def learn(self, fitting: Fitting) -> Outcome:
        """Look at the pictures and learn: the method itself."""

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
        """Make a classifier of pictures, with its evidence and its figures.

        Args:
            encoder: what looks; it is left as it is.
            samples: pictures with classes.
            validation: pictures to choose and to measure on, never trained on; left out, ``held_out`` of ``samples``.
                Give them where ``samples`` holds near-duplicates (frames of one film, photos of one visit), on which
                everything looks better than it is.
            descriptions: of the same classes, as words evidence or to learn from.
            captions: texts of each picture; see :mod:`seewhy.language.matching`.
            store: where looks are kept, so that a second or an interrupted run does not look again.
            progress: hears of progress, notes and failures.
            checkpoint: where to keep what a stopped run goes on from; the caller deletes it when the result is safe.

        Raises:
            DataError: fewer than two classes have a readable picture, a validation picture is of another class, or a
                class or picture has no text.
            InputError: something was given that the recipe does not take, or the texts that it needs were not.
            ModelError: the encoder is not of the kind that the recipe needs.
        """
        self.check_given(descriptions=descriptions, captions=captions, checkpoint=checkpoint)
        fitting = Fitting(
            encoder,
            samples,
            HoldOut(self.held_out, self.seed, validation, self.split),
            None if descriptions is None else descriptions.limited_to(samples.classes),
            captions,
            store,
            progress or Progress(),
            checkpoint,
        )
        outcome = self.learn(fitting)
        with beside(encoder.engine.name):  # thousands of small products
            made = replace(outcome.classifier, **self._evidence(outcome, fitting))
        words = fitting.descriptions if made.words is None else None
        return made if words is None else made.with_descriptions(words, store)

    def check_given(self, **given: object) -> None:
        """Refuse what the recipe does not take."""
        for name, value in given.items():
            if value is not None and name not in self.takes:
                able = [n for n in classifiers if name in getattr(classifiers[n], "takes", ())]
                raise InputError(
                    f"{self.name} was given {name}. Pictures{_beside(self.takes)} were expected. "
                    f"Leave {name} out, or use one of {', '.join(able)}."
                )

    def _evidence(self, outcome: Outcome, fitting: Fitting) -> dict[str, Any]:
        """Patches of the pictures, how far they can be trusted, the figures, and which pictures are known."""
        made, pictures, progress = outcome.classifier, outcome.pictures, fitting.progress
        found: dict[str, Any] = {}
        if self.n_bank is not None:
            store = fitting.store if outcome.keep else None
            of, trial = outcome.patches or pictures, outcome.trial or made
            found = patch_evidence(trial, made, of, self.n_bank, store, progress, decided=outcome.decided)
        fitted_on = ~pictures.held if outcome.trial is None else pictures.final
        measured = outcome.measured or made.held_out
        c = outcome.figures.get("C")
        common = common_measures(pictures, int(fitted_on.sum()), measured, progress, outcome.index, c)
        known = pictures.known(outcome.looked_by or fitting.encoder, fitted_on)
        return {**found, "measures": {**common, **outcome.figures}, "known": known}


def _beside(takes: Sequence[str]) -> str:
    texts = " and ".join(name for name in takes if name != "checkpoint")
    return f" with {texts}" if texts else " alone"
