"""The classifier: a frozen encoder, a small head, and the data for its explanations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import checked
from ..bounds import Count
from ..descriptions.base import WordBank, Words
from ..encoders.base import Encoder
from ..encoders.stream import Encoded, EncodeRequest, Views, encode_stream
from ..errors import DataError, ImageError
from ..explanation.prediction import Prediction, Ranked
from ..heads.head import Head
from ..keywords import EvaluateKeywords, ExplainKeywords
from ..pictures.sources import Many, One, several
from ..progress import Progress
from ..prototypes.bank import PatchBank
from ..prototypes.measure import LikenessMeasure
from ..spelling import first_repeated, nearest, suggestion
from ..storage.features import FeatureStore
from ..threads import beside
from ..trust.base import LEVEL, Trust
from ..types import Failure
from .encoded_set import HeldOut as HeldOut
from .known_pictures import KnownPictures
from .network import Network

if TYPE_CHECKING:
    from ..evaluation import Report
    from ..explanation.base import Explanation
    from .words import WordsMeasure


@dataclass(frozen=True)
class Classifier:
    """An image classifier that explains its predictions.

    Fit one with a recipe (see :mod:`seewhy.classifiers`), or load one with :func:`seewhy.load`.

    Attributes:
        recipe: registered name of the method that fitted the classifier.
        parameters: settings of that method.
        encoder: network that turns pictures into features.
        classes: class names, in the order of the head's outputs.
        head: function from pooled features to logits.
        words: descriptions of the classes, or ``None``.
        decided_by_words: whether the descriptions decide the class.
        bank: features of patches of the training pictures, or ``None``.
        likeness: reliability of the patches' similarity, or ``None``.
        held_out: logits, features and labels of pictures that were not used for training.
        words_accuracy: accuracy of predictions from the descriptions.
        words_accuracy_on: the pictures on which this accuracy was measured.
        trained_on: one line about the training data.
        measures: further metrics that were computed during fitting.
        folder: folder that the classifier was loaded from, or ``None``.
        network: the trained layers of a self-explaining classifier; otherwise ``None``.
        known: digest and statistics of each training picture.
        fitted_in: precision of the features that the head was fitted on; empty if unknown.
        trust: reliability measured on held-out pictures, or ``None``.
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
        if (twice := first_repeated(self.classes)) is not None:
            raise DataError(f"Class names must differ, but {twice!r} occurs twice.")

    @checked
    def index_of(self, label: str | int) -> int:
        return position(label, self.classes)

    @property
    def base(self) -> Encoder:
        """The encoder before its training, which has learnt none of the labels."""
        return self.encoder if self.network is None else self.network.base

    @property
    def where(self) -> str:
        """The name of the default attribution method: that of a self-explaining network, otherwise Grad-CAM."""
        return "grad_cam" if self.network is None else self.network.where

    def probabilities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        with beside(self.encoder.engine.name):
            return self.head.probabilities(self.encoder.pooled(pixels))

    @cached_property
    def measured_trust(self) -> Trust | None:
        """The reliability on held-out pictures, measured on first use; ``None`` if there are no held-out pictures."""
        return self.with_trust().trust

    def with_trust(self, progress: Progress | None = None) -> Classifier:
        """Return a copy that saves :attr:`measured_trust` with the classifier."""
        from .certainty import trust_of

        return replace(self, trust=self.trust or trust_of(self, progress))

    @cached_property
    def measured_words(self) -> WordsMeasure | None:
        """The fit of the descriptions to held-out pictures, compared with wrong descriptions; ``None`` if there are no
        held-out pictures.
        """
        from .words import measure_words

        return measure_words(self)

    def prediction(
        self,
        name: str,
        probabilities: Float[Tensor, " k"],
        top: int = 5,
        pooled: Float[Tensor, " d"] | None = None,
        level: float = LEVEL,
    ) -> Prediction:
        """Return the prediction for one picture; ``pooled`` is needed to compute the reliability."""
        from .certainty import decide

        judged = None
        if pooled is not None:
            (judged,) = decide(self, pooled[None], probabilities.clamp(min=1e-30).log()[None], level)
        values, order = probabilities.topk(min(top, len(self.classes)))
        ranked = tuple(Ranked(self.classes[i], v) for i, v in zip(order.tolist(), values.tolist(), strict=True))
        return Prediction(name, ranked, len(self.classes), judged)

    @checked
    def predict_all(
        self,
        pictures: Many,
        *,
        store: FeatureStore | None = None,
        views: Views | None = None,
        batch_size: Count = 32,
        top: Count = 5,
        level: float = LEVEL,
    ) -> Iterator[Prediction | Failure]:
        """Predict pictures one by one, in order; an unreadable picture yields a :class:`Failure`.

        Args:
            pictures: see :mod:`seewhy.pictures.sources`.
            store: cache of features between runs; default: no cache.
            views: function from a picture's index to its crops, over which the logits are averaged; default: the centre
                crop.
            batch_size: pictures per batch.
            top: number of most probable classes to return.
            level: required probability, 0.5 to 1, that the predicted set of classes contains the true class.
        """
        for seen in looked_at(self.encoder, pictures, store, views, batch_size):
            yield seen if isinstance(seen, Failure) else self.predict_seen(seen, top, level)

    def predict_seen(self, seen: Encoded, top: int = 5, level: float = LEVEL) -> Prediction:
        """Return the prediction for an encoded picture."""
        with beside(self.encoder.engine.name):
            return self.prediction(seen.name, self.probabilities_of(seen), top, seen.pooled[0], level)

    def probabilities_of(self, seen: Encoded) -> Float[Tensor, " k"]:
        """Return the probabilities of the classes of an encoded picture, whose logits are averaged over its crops."""
        with beside(self.encoder.engine.name), torch.no_grad():
            return self.head(seen.pooled).mean(0).softmax(0)

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, picture: One, *, top: Count = 5, store: FeatureStore | None = None
    ) -> Prediction: ...
    @overload
    def predict(
        self, picture: Many, *, top: Count = 5, store: FeatureStore | None = None
    ) -> list[Prediction | Failure]: ...
    @checked
    def predict(
        self, picture: One | Many, *, top: Count = 5, store: FeatureStore | None = None
    ) -> Prediction | list[Prediction | Failure]:
        """Predict the class of one picture or of several.

        For several pictures, the result is a list in their order, with a :class:`Failure` for each unreadable picture.

        A picture is a file name, a Pillow image, an array ``(h, w, 3)``, a tensor ``(3, h, w)``, …
        (:mod:`seewhy.pictures.sources`).

        Args:
            picture: one picture, or a collection of pictures.
            top: number of most probable classes to return.
            store: cache of features between runs; default: no cache.

        Raises:
            ImageError: a single picture cannot be read.
            InputError: the input is not a picture.
        """
        many = several(picture)
        if many is None:
            return cast(Prediction, only(self.predict_all(_walk(picture), top=top, store=store)))
        return list(self.predict_all(many, top=top, store=store))

    @checked
    def predict_proba(
        self,
        pictures: One | Many,
        *,
        store: FeatureStore | None = None,
        views: Views | None = None,
        batch_size: Count = 32,
    ) -> np.ndarray:
        """Return the probabilities of all classes, as a float32 array ``(n, k)``.

        Args:
            pictures: one picture or several; see :mod:`seewhy.pictures.sources`.
            store: cache of features between runs; default: no cache.
            views: function from a picture's index to its crops, over which the logits are averaged; default: the
                centre crop.
            batch_size: pictures per batch.

        Raises:
            ImageError: a picture cannot be read.
        """
        rows = []
        for seen in looked_at(self.encoder, pictures, store, views, batch_size):
            if isinstance(seen, Failure):
                raise ImageError(seen.image, seen.error)
            rows.append(self.probabilities_of(seen).numpy())
        return np.stack(rows) if rows else np.empty((0, len(self.classes)), np.float32)

    @checked
    def explain_all(
        self,
        pictures: Many,
        *,
        store: FeatureStore | None = None,
        batch_size: Count = 16,
        **options: Unpack[ExplainKeywords],
    ) -> Iterator[Explanation | Failure]:
        """Explain pictures one by one, in order; an unreadable picture yields a :class:`Failure`.

        Args:
            pictures: see :mod:`seewhy.pictures.sources`.
            store: cache of features between runs; default: no cache.
            batch_size: pictures per batch.
            **options: options of :class:`seewhy.evidence.explain.ExplainOptions`.
        """
        from ..evidence.explain import ExplainOptions, explain_all

        return explain_all(self, _walk(pictures), ExplainOptions(**options), store=store, batch_size=batch_size)

    @overload
    def explain(  # type: ignore[overload-overlap]
        self, picture: One, *, store: FeatureStore | None = None, **options: Unpack[ExplainKeywords]
    ) -> Explanation: ...
    @overload
    def explain(
        self, picture: Many, *, store: FeatureStore | None = None, **options: Unpack[ExplainKeywords]
    ) -> list[Explanation | Failure]: ...
    @checked
    def explain(
        self, picture: One | Many, *, store: FeatureStore | None = None, **options: Unpack[ExplainKeywords]
    ) -> Explanation | list[Explanation | Failure]:
        """Explain the prediction for one picture or for several.

        For several pictures, the result is a list in their order, with a :class:`Failure` for each unreadable picture.

        An explanation has the prediction, a heat map, similar patches of the training pictures, descriptions, and the
        measured faithfulness of the map.

        Args:
            picture: one picture, or a collection of pictures.
            store: cache of features between runs; default: no cache.
            **options: options of :class:`seewhy.evidence.explain.ExplainOptions`, such as ``where``, ``target``,
                ``contrast`` and ``measure``.

        Raises:
            ImageError: a single picture cannot be read.
            DataError: ``target`` or ``contrast`` is not one of the classes.
            InputError: the input is not a picture, or an option is unknown or has the wrong type.
        """
        many = several(picture)
        if many is None:
            return cast("Explanation", only(self.explain_all(_walk(picture), store=store, **options)))
        return list(self.explain_all(many, store=store, **options))

    @checked
    def evaluate(self, samples: Any, labels: Any = None, **options: Unpack[EvaluateKeywords]) -> Report:
        """Measure accuracy, calibration, confusions and the faithfulness of explanations on labelled pictures.

        Args:
            samples: labelled pictures, in the forms that :func:`seewhy.fit` takes.
            labels: class name of each picture, if ``samples`` has none.
            **options: options of :func:`seewhy.evaluation.evaluate`.
        """
        from ..evaluation import evaluate
        from ..pictures.datasets import samples_of

        return evaluate(self, samples_of(samples, labels), **options)

    @checked
    def with_descriptions(self, descriptions: Words, store: FeatureStore | None = None) -> Classifier:
        """Return a copy with other descriptions; the copy makes the same predictions."""
        from .words import with_descriptions

        return with_descriptions(self, descriptions, store)

    def provenance(self) -> dict[str, str]:
        engine = self.encoder.engine
        other = f", fitted in {self.fitted_in}" if self.fitted_in not in ("", engine.precision) else ""
        return {
            "classifier": self.recipe, "encoder": self.encoder.name,
            "engine": f"{engine.name} {engine.precision}{other}", "trained on": self.trained_on,
            "classes": str(len(self.classes)), "fingerprint": self.encoder.fingerprint[:12],
        }  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the classifier that an explanation depends on."""
        from .saving import digest

        return hashlib.sha256(f"{digest(self)}|{self.encoder.engine.precision}".encode()).hexdigest()

    @checked
    def save(self, folder: str | Path) -> Path:
        """Save the classifier to a folder of safetensors and JSON files."""
        from .saving import save

        return save(self, Path(folder))

    def __repr__(self) -> str:
        return f"Classifier({self.recipe!r}, {self.encoder.name!r}, {len(self.classes)} classes, {self.trained_on!r})"


def position(label: str | int, classes: Sequence[str]) -> int:
    """Return the index of a class, given its name or index."""
    if not isinstance(label, str):
        if str(label) in classes and list(classes).index(str(label)) != label:
            raise DataError(
                f"The class {label} is ambiguous: it could be an index or the class named {str(label)!r}. "
                f"Write {str(label)!r} in quotes."
            )
        if not 0 <= label < len(classes):
            raise DataError(
                f"A class index must be from 0 ({classes[0]!r}) to {len(classes) - 1} ({classes[-1]!r}), got {label}."
            )
        return int(label)
    if label in classes:
        return list(classes).index(label)
    inside = [c for c in classes if label.casefold() in c.casefold()]
    near = inside[:3] or nearest(label, classes, n=3, cutoff=0.4)
    raise DataError(f"There is no class {label!r} among the {len(classes)} classes. {suggestion(near, classes)}")


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the stripped class names, after a check that there are at least two and that they differ."""
    cleaned = tuple(n.strip() for n in names if n.strip())
    if len(cleaned) < 2:
        raise DataError(f"At least two class names are required, got {len(cleaned)}. Separate the names by commas.")
    if (twice := first_repeated(cleaned)) is not None:
        raise DataError(f"Class names must differ, but {twice!r} occurs twice.")
    return cleaned


def looked_at(
    encoder: Encoder, pictures: Any, store: FeatureStore | None, views: Views | None, batch_size: int
) -> Iterator[Encoded | Failure]:
    """Encode one picture or several, each as its centre crop or as the crops of ``views``."""
    request = EncodeRequest() if views is None else EncodeRequest(views=views)
    return encode_stream(encoder, _walk(pictures), store=store, request=request, batch_size=batch_size)


def _walk(pictures: Any) -> Iterable[Any]:
    many = several(pictures)
    return [pictures] if many is None else many


def only(results: Any) -> Any:
    """Return the only result of a generator, and close the generator."""
    try:
        result = next(results)
    finally:
        results.close()
    if isinstance(result, Failure):
        raise ImageError(result.image, result.error)
    return result
