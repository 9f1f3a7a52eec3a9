"""Classifier: a frozen encoder, a small head, and the evidence it can give."""

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
from ..spelling import first_repeated, nearest
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
    """Predicts and explains pictures; made by a recipe (see :mod:`seewhy.classifiers`) or loaded with
    :func:`seewhy.load`.

    Attributes:
        recipe: registered name of the recipe that made it; ``parameters`` are the recipe's fields.
        encoder: turns pictures into features.
        classes: names, in the order of the head's rows.
        head: pooled features → logits.
        words: descriptions of the classes, if any; ``decided_by_words``: whether they make the decision.
        bank: patches of your pictures, if it was fitted on pictures; ``likeness`` says how far similar patches can be
            trusted.
        held_out: pictures kept out of training.
        words_accuracy: accuracy of the words alone, measured on ``words_accuracy_on``.
        trained_on: one line for the card.
        measures: further figures found while fitting.
        folder: the folder it was loaded from, which also holds explainers trained for it.
        network: the trained layers inside the network, for classifiers that explain themselves.
        known: digests and a few numbers of each picture that it was fitted on.
        fitted_in: precision in which a saved classifier's features were computed, if known.
        trust: how often decisions are right on held-out pictures, once measured.
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
            raise DataError(f"Two classes are called {twice!r}. Give each class a name of its own.")

    @checked
    def index_of(self, label: str | int) -> int:
        return position(label, self.classes)

    @property
    def where(self) -> str:
        """The attribution used unless another is requested: the classifier's own, if it has one, otherwise Grad-CAM."""
        return "grad_cam" if self.network is None else self.network.where

    def probabilities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        with beside(self.encoder.engine.name):
            return self.head.probabilities(self.encoder.pooled(pixels))

    @cached_property
    def measured_trust(self) -> Trust | None:
        """What held-out pictures say of the decisions; measured now if it was not before, ``None`` if it cannot be."""
        return self.with_trust().trust

    def with_trust(self, progress: Progress | None = None) -> Classifier:
        """The same classifier, with :attr:`measured_trust` among what is saved."""
        from .certainty import trust_of

        return replace(self, trust=self.trust or trust_of(self, progress))

    @cached_property
    def measured_words(self) -> WordsMeasure | None:
        """How well the descriptions fit held-out pictures, beside wrong ones; ``None`` without held-out pictures."""
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
        """The decision on one picture from its probabilities and, if its trust is measured, its features."""
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
        """Predict pictures as a stream, in order, with one result per picture; a broken one never stops the others.

        ``store`` keeps features between runs. With ``views``, logits are averaged over several crops per picture.
        ``level`` is how often the classes named must include the true one.
        """
        for seen, probabilities in self._decided(_walk(pictures), store, views, batch_size):
            if isinstance(seen, Failure):
                yield seen
            else:
                with beside(self.encoder.engine.name):
                    prediction = self.prediction(seen.name, probabilities, top, seen.pooled[0], level)
                yield prediction

    def _decided(
        self, pictures: Iterable[Any], store: FeatureStore | None, views: Views | None, batch_size: int
    ) -> Iterator[tuple[Encoded | Failure, Tensor]]:
        """Each picture as it was seen, and the probabilities of all classes."""
        request = EncodeRequest() if views is None else EncodeRequest(views=views)
        for seen in encode_stream(self.encoder, pictures, store=store, request=request, batch_size=batch_size):
            if isinstance(seen, Failure):
                yield seen, torch.empty(0)
                continue
            with beside(self.encoder.engine.name), torch.no_grad():
                probabilities = self.head(seen.pooled).mean(0).softmax(0)
            yield seen, probabilities

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
        """Predict one picture, or several: then the result is a list, with a :class:`Failure` for each broken picture.

        A picture is a file name, a Pillow image, an array ``(h, w, 3)``, a tensor ``(3, h, w)``, …
        (:mod:`seewhy.pictures.sources`).

        Raises:
            ImageError: the one picture cannot be read.
            InputError: it is no picture.
        """
        many = several(picture)
        if many is None:
            return cast(Prediction, _only(self.predict_all(_walk(picture), top=top, store=store)))
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
        """Probabilities of all classes, float32 ``(n, k)``, from :meth:`predict_all`.

        Raises:
            ImageError: a picture cannot be read.
        """
        rows = []
        for seen, probabilities in self._decided(_walk(pictures), store, views, batch_size):
            if isinstance(seen, Failure):
                raise ImageError(seen.image, seen.error)
            rows.append(probabilities.numpy())
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
        """Explain pictures as a stream; ``options`` are those of :class:`seewhy.evidence.explain.ExplainOptions`."""
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
        """Explain one picture, or several as in :meth:`predict`: decision, where, like what, in words, with measures.

        Options are ``where``, ``target``, ``contrast``, ``measure``, … of
        :class:`seewhy.evidence.explain.ExplainOptions`.

        Raises:
            ImageError: the one picture cannot be read.
            DataError: ``target`` or ``contrast`` is not one of the classes.
            InputError: it is no picture, or an option is unknown or of another type.
        """
        many = several(picture)
        if many is None:
            return cast("Explanation", _only(self.explain_all(_walk(picture), store=store, **options)))
        return list(self.explain_all(many, store=store, **options))

    @checked
    def evaluate(self, samples: Any, labels: Any = None, **options: Unpack[EvaluateKeywords]) -> Report:
        """Accuracy, calibration, confusions and the faithfulness of the explanations on labelled pictures."""
        from ..evaluation import evaluate
        from ..pictures.datasets import samples_of

        return evaluate(self, samples_of(samples, labels), **options)

    @checked
    def with_descriptions(self, descriptions: Words, store: FeatureStore | None = None) -> Classifier:
        """The same classifier with other descriptions, measured without the class's name; the decision does not
        change.
        """
        from .words import with_descriptions

        return with_descriptions(self, descriptions, store)

    def provenance(self) -> dict[str, str]:
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
        """Digest of all that an explanation depends on besides picture and options: what is saved, and the
        precision.
        """
        from .saving import digest

        return hashlib.sha256(f"{digest(self)}|{self.encoder.engine.precision}".encode()).hexdigest()

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the classifier: a folder of safetensors and JSON, whole or not at all."""
        from .saving import save

        return save(self, Path(folder))

    def __repr__(self) -> str:
        return f"Classifier({self.recipe!r}, {self.encoder.name!r}, {len(self.classes)} classes, {self.trained_on!r})"


def position(label: str | int, classes: Sequence[str]) -> int:
    """The index of a class, from its name or from the index itself."""
    if not isinstance(label, str):
        if str(label) in classes and list(classes).index(str(label)) != label:
            raise DataError(
                f"The class {label} is ambiguous: it is a number, and another class has the name {str(label)!r}. "
                f"Expected a name. Write {str(label)!r} in quotes."
            )
        if not 0 <= label < len(classes):
            raise DataError(
                f"There is no class number {label}. Expected a number from 0 ({classes[0]!r}) to {len(classes) - 1} "
                f"({classes[-1]!r}). Give one of them, or the name of a class."
            )
        return int(label)
    if label in classes:
        return list(classes).index(label)
    inside = [c for c in classes if label.casefold() in c.casefold()]
    near = inside[:3] or nearest(label, classes, n=3, cutoff=0.4)
    raise DataError(
        f"There is no class called {label!r} among the {len(classes)} of this classifier. "
        f"{'Did you mean' if near else 'The first are'} {', '.join(map(repr, near or classes[:5]))}?"
    )


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names without outer blanks, after a check that there are at least two and none occurs twice."""
    cleaned = tuple(n.strip() for n in names if n.strip())
    if len(cleaned) < 2:
        raise DataError(f"{len(cleaned)} class was named. Name at least two, separated by commas.")
    if (twice := first_repeated(cleaned)) is not None:
        raise DataError(f"The class {twice!r} is named twice. Name each class once.")
    return cleaned


def _walk(pictures: Any) -> Iterable[Any]:
    """Several pictures one by one; a single one counts as one of them."""
    many = several(pictures)
    return [pictures] if many is None else many


def _only(results: Any) -> Any:
    """The one result of a stream, which is closed here and not when somebody drops the error it may end in."""
    try:
        result = next(results)
    finally:
        results.close()
    if isinstance(result, Failure):
        raise ImageError(result.image, result.error)
    return result
