"""Classifier: a frozen encoder, a small head, and the evidence it can give."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from ..descriptions.base import Descriptions, WordBank
from ..encoders.base import Encoder
from ..errors import DataError, ImageError
from ..features import Views, Wish, see
from ..prototypes.bank import PatchBank
from ..prototypes.measure import LikenessMeasure
from ..store import FeatureStore
from ..trust.base import LEVEL, Trust
from ..types import Failure, Prediction, Ranked
from .head import Head, Projected
from .known_pictures import KnownPictures
from .network import Network

if TYPE_CHECKING:
    from ..data import Samples
    from ..evaluation import Report
    from ..explanation import Explanation

One = str | Path | Image.Image | np.ndarray
"""One picture: a file name, or pixels in memory."""


@dataclass(frozen=True)
class HeldOut:
    """Pictures kept out of training, as features: what evidence is measured on.

    Of a linear classifier fitted on pictures these are (up to 5,000 of) *all* pictures it was fitted on that can be
    measured: each was held out once, with all others of its group, from one of several fits (out-of-fold). Of
    classifiers that are fitted once, and where the user gave validation pictures, they are the part that was held out.

    Attributes:
        pooled: one row a picture.
        labels: index of each one's class.
        logits: what a classifier that saw no picture of its group says of each, divided by the final temperature:
            ``softmax`` of them is calibrated as predictions are. ``None`` in archives of earlier versions, and where no
            classifier was fitted.
        groups: pictures with the same number show the same thing, as far as is known. ``None`` where it was not asked.
    """

    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n k"] | None = None
    groups: Int[Tensor, " n"] | None = None


@dataclass(frozen=True)
class Classifier:
    """Made by a recipe (see :mod:`seewhy.classifiers`), or loaded with :func:`seewhy.load`.

    Attributes:
        recipe: registered name of what made it.
        parameters: the recipe's fields.
        encoder: what looks.
        classes: names, in the order of the head's rows.
        head: pooled features → logits.
        words: descriptions of the classes, if there are any.
        decided_by_words: whether the decision itself is made from ``words``.
        bank: patches of the user's pictures, if it was fitted on pictures.
        likeness: how far neighbours in the bank can be trusted.
        held_out: pictures kept out of training.
        words_accuracy: of the words alone, on ``words_accuracy_on``.
        trained_on: one line for the card.
        measures: further figures found while fitting.
        folder: where it was loaded from; explainers trained for it lie there.
        network: what was trained inside the network, for classifiers that explain themselves.
        known: the pictures it was fitted on, by digests and a few numbers each, where it was fitted on pictures.
        fitted_in: what the features were computed in that a saved one was fitted on, if that is known.
        trust: what held-out pictures say of decisions, where it was measured already.
    """

    recipe: str
    parameters: dict[str, Any]
    encoder: Encoder
    classes: tuple[str, ...]
    head: Head
    words: WordBank | None = None
    decided_by_words: bool = False
    bank: PatchBank | None = None
    likeness: LikenessMeasure | None = None
    held_out: HeldOut | None = None
    words_accuracy: float | None = None
    words_accuracy_on: str = ""
    trained_on: str = ""
    measures: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    network: Network | None = None
    known: KnownPictures | None = None
    fitted_in: str = ""
    trust: Trust | None = None

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise DataError(f"Two classes are called {twice[0]!r}. Give each class a name of its own.")

    def index_of(self, label: str) -> int:
        """Position of a class.

        Raises:
            DataError: there is no such class; the message carries the nearest names.
        """
        if label in self.classes:
            return self.classes.index(label)
        inside = [c for c in self.classes if label.casefold() in c.casefold()]
        near = inside[:3] or difflib.get_close_matches(label, self.classes, n=3, cutoff=0.4)
        known = near or self.classes[:5]
        raise DataError(
            f"There is no class called {label!r} among the {len(self.classes)} of this classifier. "
            f"{'Did you mean' if near else 'The first are'} {', '.join(map(repr, known))}?"
        )

    @property
    def where(self) -> str:
        """The attribution it is explained by unless another is asked for: its own, if it has one, or Grad-CAM."""
        return "grad_cam" if self.network is None else self.network.where

    def probabilities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Normalised pixels → class probabilities."""
        return self.head.probabilities(self.encoder.look(pixels).pooled)

    @cached_property
    def measured_trust(self) -> Trust | None:
        """What held-out pictures say of decisions; measured now where it was not, ``None`` where it cannot be."""
        from .certainty import trust_of

        return self.trust or trust_of(self)

    def prediction(
        self,
        name: str,
        probabilities: Float[Tensor, " k"],
        top: int = 5,
        pooled: Float[Tensor, " d"] | None = None,
        level: float = LEVEL,
    ) -> Prediction:
        """The decision on one picture, from its probabilities and, where it is to be judged, its features.

        Args:
            name: of the picture.
            probabilities: of all classes.
            top: classes listed.
            pooled: features; without them nothing is said of how far to trust it.
            level: how often the true class is to be among those named.
        """
        from .certainty import decide

        judged = None
        if pooled is not None:
            (judged,) = decide(self, pooled[None], probabilities.clamp(min=1e-30).log()[None], level)
        values, order = probabilities.topk(min(top, len(self.classes)))
        ranked = tuple(Ranked(self.classes[i], v) for i, v in zip(order.tolist(), values.tolist(), strict=True))
        return Prediction(name, ranked, len(self.classes), judged)

    def predict_all(
        self,
        pictures: Iterable[One],
        *,
        store: FeatureStore | None = None,
        views: Views | None = None,
        batch_size: int = 32,
        top: int = 5,
        level: float = LEVEL,
    ) -> Iterator[Prediction | Failure]:
        """Decide on pictures as a stream: one result a picture, in order; a broken one never stops the others.

        Args:
            pictures: file names or pixels.
            store: where looks are kept between runs; left out, nothing is kept.
            views: several crops a picture, whose logits are averaged; left out, the model's own crop.
            batch_size: pictures the engine sees at once.
            top: classes listed.
            level: how often the true class is to be among those named by the decision.
        """
        wish = Wish() if views is None else Wish(views=views)
        for seen in see(self.encoder, pictures, store=store, wish=wish, batch_size=batch_size):
            if isinstance(seen, Failure):
                yield seen
                continue
            with torch.no_grad():
                probabilities = self.head(seen.pooled).mean(0).softmax(0)
            yield self.prediction(seen.name, probabilities, top, seen.pooled[0], level)

    def predict(self, picture: One, *, top: int = 5) -> Prediction:
        """Decide on one picture.

        Raises:
            ImageError: it cannot be read.
        """
        return cast(Prediction, _only(self.predict_all([picture], top=top)))

    def explain_all(
        self,
        pictures: Iterable[One],
        *,
        store: FeatureStore | None = None,
        batch_size: int = 16,
        **options: Any,
    ) -> Iterator[Explanation | Failure]:
        """Explain pictures as a stream; ``options`` are those of :class:`seewhy.evidence.explain.ExplainOptions`."""
        from ..evidence.explain import ExplainOptions, explain_all

        return explain_all(self, pictures, ExplainOptions(**options), store=store, batch_size=batch_size)

    def explain(self, picture: One, **options: Any) -> Explanation:
        """Explain one picture: decision, where, like what, in words, each with its measure.

        Args:
            picture: a file name or pixels.
            **options: ``where``, ``target``, ``contrast``, ``measure``, … of
                :class:`seewhy.evidence.explain.ExplainOptions`.

        Raises:
            ImageError: the picture cannot be read.
            DataError: ``target`` or ``contrast`` is not one of the classes.
        """
        return cast("Explanation", _only(self.explain_all([picture], **options)))

    def evaluate(self, samples: Samples | str | Path, **options: Any) -> Report:
        """Accuracy, calibration, confusions and the faithfulness of the explanations on labelled pictures."""
        from ..evaluation import evaluate

        return evaluate(self, samples, **options)

    def with_descriptions(self, descriptions: Descriptions, store: FeatureStore | None = None) -> Classifier:
        """The same classifier with words as evidence; the decision does not change.

        The texts are encoded without the class's name before them, and measured without the name where it is in them,
        so that the name cannot do their work.
        """
        from dataclasses import replace

        from .labelled import nameless

        words = WordBank.build(self.encoder, descriptions.limited_to(self.classes), with_names=False, store=store)
        words = nameless(self.encoder, words, store, bare=True)
        changed = replace(self, words=words, decided_by_words=False, words_accuracy=None, words_accuracy_on="")
        if self.held_out is None:
            return changed
        on = f"{len(self.held_out.labels)} held-out pictures{words.told}"
        return replace(changed, words_accuracy=words_alone(changed, self.held_out), words_accuracy_on=on)

    def provenance(self) -> dict[str, str]:
        """What a card says of its origin."""
        engine = self.encoder.engine
        other = f", fitted in {self.fitted_in}" if self.fitted_in not in ("", engine.precision) else ""
        return {
            "classifier": self.recipe,
            "encoder": self.encoder.name,
            "engine": f"{engine.name} {engine.precision}{other}",
            "trained on": self.trained_on,
            "classes": str(len(self.classes)),
            "fingerprint": self.encoder.fingerprint[:12],
        }

    @cached_property
    def digest(self) -> str:
        """Of all that an explanation can depend on beside picture and options; 64 hexadecimal digits.

        It covers everything that :meth:`save` writes, SeeWhy's version and what the engine computes in.
        """
        from .saving import digest

        return hashlib.sha256(f"{digest(self)}|{self.encoder.engine.precision}".encode()).hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write the classifier: a folder of safetensors and JSON, whole or not at all."""
        from .saving import save

        return save(self, Path(folder))

    def __repr__(self) -> str:
        return f"Classifier({self.recipe!r}, {self.encoder.name!r}, {len(self.classes)} classes, {self.trained_on!r})"


def words_alone(classifier: Classifier, held_out: HeldOut) -> float:
    """Accuracy of choosing the class whose descriptions, as they are measured, score highest on average."""
    if classifier.words is None:
        raise DataError("This classifier has no descriptions. Give some with --descriptions FILE.")
    joint = Projected(classifier.encoder.text)(held_out.pooled)
    chosen = (joint @ classifier.words.measured.class_weight().T).argmax(1)
    return round(float((chosen == held_out.labels).float().mean()), 4)


def _only(results: Any) -> Any:
    """The one result of a stream, which is closed here and not when somebody drops the error it may end in."""
    try:
        result = next(results)
    finally:
        results.close()
    if isinstance(result, Failure):
        raise ImageError(result.image, result.error)
    return result


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as the user wrote them, without outer blanks.

    Raises:
        DataError: fewer than two, or one of them twice.
    """
    cleaned = tuple(n.strip() for n in names if n.strip())
    if len(cleaned) < 2:
        raise DataError(f"{len(cleaned)} class was named. Name at least two, separated by commas.")
    if len(set(cleaned)) < len(cleaned):
        twice = next(n for n in cleaned if cleaned.count(n) > 1)
        raise DataError(f"The class {twice!r} is named twice. Name each class once.")
    return cleaned
