"""SeeWhy as a scikit-learn estimator, for pipelines, ``cross_val_score`` and grid searches. Needs the extra.

``X`` is several pictures: file names, Pillow images, or an array ``(n, h, w, 3)`` or ``(n, h, w)``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from .api import encoder_of
from .classifiers.fitting import recipe_named
from .classifiers.known_pictures import too_high
from .classifiers.saving import load
from .encoders.base import Encoder
from .encoders.find import encoder
from .errors import InputError, SeeWhyError, needs
from .keywords import ExplainKeywords
from .parameters import settings_of
from .pictures.datasets import rows_of, samples_of
from .pictures.images import read_picture
from .pictures.miniatures import miniature
from .storage.features import FeatureStore
from .storage.output import working_folder, write_atomic

with needs("sklearn", "seewhy.sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.metrics import accuracy_score
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d

if TYPE_CHECKING:
    from .classifiers.base import Classifier
    from .explanation.base import Explanation
    from .types import Failure

_logger = logging.getLogger(__name__)


class SeeWhyClassifier(ClassifierMixin, BaseEstimator):
    """A classifier on frozen features that explains itself, by default linear (:mod:`seewhy.classifiers`).

    Args:
        encoder: an encoder or its name.
        method: name of the method, such as ``"linear"`` or ``"neighbours"``. It takes those of the parameters below
            that it has.
        settings: more settings of the method, for example ``{"k": 3}``.
        solver: ``"logistic"`` or ``"svm"``.
        n_crops: number of random crops per picture.
        class_weight: ``"balanced"`` or ``None``.
        held_out: fraction of the pictures on which the regularisation and the calibration are chosen, 0 to 1.
        split: ``"grouped"`` or ``"random"``.
        store: cache of features, or its file; with a store, cross-validation encodes each picture once.
        random_state: seed of the split and the crops, or a generator that gives one.

    Attributes:
        classes_: the sorted labels, of the same type as the labels given to :meth:`fit`.
        classifier_: the fitted :class:`seewhy.Classifier`.

    >>> SeeWhyClassifier(n_crops=2)
    SeeWhyClassifier(n_crops=2)
    """

    def __init__(
        self,
        encoder: Encoder | str = "lite0",
        *,
        method: str = "linear",
        settings: Mapping[str, Any] | None = None,
        solver: str = "logistic",
        n_crops: int = 8,
        class_weight: str | None = None,
        held_out: float = 0.2,
        split: str = "grouped",
        store: FeatureStore | str | Path | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.encoder, self.store, self.random_state = encoder, store, random_state
        self.method, self.settings = method, settings
        self.solver, self.n_crops, self.class_weight = solver, n_crops, class_weight
        self.held_out, self.split = held_out, split

    def fit(self, X: Any, y: Any) -> SeeWhyClassifier:
        """Fit on pictures ``X`` and labels ``y``."""
        if y is None:
            raise InputError(
                "SeeWhyClassifier requires y to be passed, but the target y is None. Give one label per picture."
            )
        pictures, labels = _pictures(X), column_or_1d(np.asarray(y), warn=True)
        check_classification_targets(labels)
        self.classes_, index = np.unique(labels, return_inverse=True)
        own = {name: getattr(self, name) for name in FIELDS} | {"seed": _seed(self.random_state)}
        known = {one.name for one in settings_of(type(recipe_named(self.method)))}
        recipe = recipe_named(self.method, {n: own[n] for n in own if n in known} | dict(self.settings or {}))
        names = [str(label) for label in self.classes_.tolist()]
        samples = samples_of(pictures, [names[i] for i in index])
        self.classifier_: Classifier = recipe.fit(encoder_of(self.encoder), samples, store=self._store)
        # Columns of SeeWhy's probabilities in scikit-learn's order of the classes.
        self._order = [self.classifier_.index_of(name) for name in names]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities ``(n, k)``, one column per class in the order of ``classes_``."""
        check_is_fitted(self, "classifier_")
        return self.classifier_.predict_proba(_pictures(X), store=self._store)[:, self._order]

    def predict(self, X: Any) -> np.ndarray:
        """Return labels ``(n,)``, of the same type as the labels given to :meth:`fit`."""
        check_is_fitted(self, "classifier_")
        return self.classes_[self.predict_proba(X).argmax(1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; a log message says so if the classifier was fitted on some of the pictures."""
        predicted = self.predict(X)
        if (known := self.classifier_.known) is not None:
            views = [read_picture(picture, self.classifier_.encoder.transform) for picture in _pictures(X)]
            small = [miniature(view.pixels, view.original_size) for view in views]
            fresh = np.array([twin is None for twin in known.twins([v.digest for v in views], small, None)])
            if n := int((~fresh).sum()):
                without = float((predicted == np.asarray(y))[fresh].mean()) if fresh.any() else None
                held_out = self.classifier_.measures.get("held_out_accuracy")
                _logger.warning("%s.", too_high(f"{n:,} of these pictures", without, held_out))
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def explain(self, X: Any, **options: Unpack[ExplainKeywords]) -> list[Explanation | Failure]:
        """Explain each picture, with the options of :meth:`seewhy.Classifier.explain`."""
        check_is_fitted(self, "classifier_")
        return self.classifier_.explain(_pictures(X), store=self._store, **options)

    @property
    def _store(self) -> FeatureStore | None:
        return FeatureStore(self.store) if isinstance(self.store, str | Path) else self.store

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def __deepcopy__(self, _memo: dict[int, Any]) -> SeeWhyClassifier:
        """Return a new estimator that shares encoder, store and fitted classifier."""
        return copy(self)

    def __copy__(self) -> SeeWhyClassifier:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle: the encoder by name, and the fitted classifier as its saved files."""
        state = dict(super().__getstate__())
        if isinstance(self.encoder, Encoder):
            state["encoder"] = _named(self.encoder)
        fitted = state.pop("classifier_", None)
        if fitted is not None:
            with working_folder(None) as folder:
                files = fitted.save(folder / "model").iterdir()
                state[_FILES] = {file.name: file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files = state.pop(_FILES, None)
        super().__setstate__(state)
        if files is not None:
            with working_folder(None) as folder:
                for name, data in files.items():
                    write_atomic(folder / name, data)
                self.classifier_ = load(folder)


FIELDS = ("solver", "n_crops", "class_weight", "held_out", "split")
_FILES = "classifier files"


def _named(given: Encoder) -> str:
    with suppress(SeeWhyError):
        if encoder(given.name).fingerprint == given.fingerprint:
            return given.name
    raise InputError(
        f"This SeeWhyClassifier cannot be pickled, because its encoder cannot be loaded by the name {given.name!r}. "
        "Use estimator.classifier_.save(folder) and seewhy.load(folder, encoder=…) instead."
    )


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """Return the seed; a generator gives another one for each fit, and ``None`` is 0."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return 0 if random_state is None else int(check_random_state(random_state).randint(2**31))


def _pictures(X: Any) -> list[Any]:
    array = X if hasattr(X, "ndim") and hasattr(X, "dtype") else None
    if array is not None and array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "OUS":
        X = array[:, 0]
    if array is not None and array.ndim == 2 and array.dtype.kind not in "OUS":
        raise InputError(
            f"X must be file names, or an array (n, h, w) or (n, h, w, 3), got a table with the shape {array.shape}. "
            "Reshape the rows, for example X.reshape(-1, 64, 64)."
        )
    found = rows_of(X)
    if not found:
        raise InputError(f"X must be a non-empty list or array of pictures, got {type(X).__name__}.")
    return found
