"""SeeWhy as a scikit-learn estimator: in pipelines, in ``cross_val_score``, in grid searches. Needs the extra.

``X`` is several pictures (file names, Pillow images, an array ``(n, h, w, 3)`` or ``(n, h, w)``, …), and no table.
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from .api import encoder_of
from .classifiers.linear.recipe import Linear
from .classifiers.saving import load
from .encoders.base import Encoder
from .encoders.find import encoder
from .errors import InputError, MissingExtraError, SeeWhyError
from .keywords import ExplainKeywords
from .pictures.datasets import rows_of, samples_of
from .storage.features import FeatureStore
from .storage.output import working_folder, write_atomic

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d
except ImportError as error:
    raise MissingExtraError("sklearn", "seewhy.sklearn") from error

if TYPE_CHECKING:
    from .classifiers.base import Classifier
    from .explanation.base import Explanation
    from .types import Failure


class SeeWhyClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier on frozen features that explains itself (:class:`seewhy.classifiers.linear.recipe.Linear`).

    Args:
        encoder: an encoder or its name.
        solver: ``"logistic"`` or ``"svm"``.
        n_crops: random crops per picture.
        class_weight: ``"balanced"`` or ``None``.
        held_out: share of the pictures on which the regularisation and the calibration are chosen.
        split: ``"grouped"`` or ``"random"``.
        store: where features are kept; with a store, the folds of a cross-validation encode each picture once.
        random_state: seed of split and crops.

    Attributes:
        classes_: the sorted labels, of the same type as the labels given to :meth:`fit`.
        classifier_: the :class:`seewhy.Classifier`, to be saved and evaluated.

    >>> SeeWhyClassifier(n_crops=2)
    SeeWhyClassifier(n_crops=2)
    """

    def __init__(
        self,
        encoder: Encoder | str = "lite0",
        *,
        solver: str = "logistic",
        n_crops: int = 8,
        class_weight: str | None = None,
        held_out: float = 0.2,
        split: str = "grouped",
        store: FeatureStore | None = None,
        random_state: int | None = 0,
    ) -> None:
        self.encoder, self.store, self.random_state = encoder, store, random_state
        self.solver, self.n_crops, self.class_weight = solver, n_crops, class_weight
        self.held_out, self.split = held_out, split

    def fit(self, X: Any, y: Any) -> SeeWhyClassifier:
        """Fit on ``n`` pictures with one label each."""
        if y is None:
            raise InputError(
                "SeeWhyClassifier requires y to be passed, but the target y is None. Give one label per picture."
            )
        pictures, labels = _pictures(X), column_or_1d(np.asarray(y), warn=True)
        check_classification_targets(labels)
        self.classes_, index = np.unique(labels, return_inverse=True)
        given: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        recipe = Linear(**given, seed=self.random_state or 0)
        names = [str(label) for label in self.classes_.tolist()]
        samples = samples_of(pictures, [names[i] for i in index])
        self.classifier_: Classifier = recipe.fit(encoder_of(self.encoder), samples, store=self.store)
        # Of the classes, in scikit-learn's order, where SeeWhy has each; it sorts names as people do.
        self._order = [self.classifier_.index_of(name) for name in names]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities ``(n, k)``, one column per class in the order of ``classes_``."""
        check_is_fitted(self, "classifier_")
        return self.classifier_.predict_proba(_pictures(X), store=self.store)[:, self._order]

    def predict(self, X: Any) -> np.ndarray:
        """Labels ``(n,)``, of the same type as the labels given to :meth:`fit`."""
        check_is_fitted(self, "classifier_")
        return self.classes_[self.predict_proba(X).argmax(1)]

    def explain(self, X: Any, **options: Unpack[ExplainKeywords]) -> list[Explanation | Failure]:
        """Explain each picture, with the options of :meth:`seewhy.Classifier.explain`."""
        check_is_fitted(self, "classifier_")
        return self.classifier_.explain(_pictures(X), store=self.store, **options)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def __deepcopy__(self, memo: dict[int, Any]) -> SeeWhyClassifier:
        """Another estimator with the same encoder, store and fitted classifier: nothing changes them."""
        new = copy(self)
        memo[id(self)] = new
        return new

    def __copy__(self) -> SeeWhyClassifier:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """The network and its engine are not pickled: an encoder is named, a fitted classifier is its saved files."""
        state = dict(super().__getstate__())
        if isinstance(self.encoder, Encoder):
            state["encoder"] = _named(self.encoder)
        if self.store is not None:
            state["store"] = str(self.store.path)
        fitted = state.pop("classifier_", None)
        if fitted is not None:
            with working_folder(None) as folder:
                files = fitted.save(folder / "model").iterdir()
                state[_FILES] = {file.name: file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files = state.pop(_FILES, None)
        if state["store"] is not None:
            state["store"] = FeatureStore(state["store"])
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
        f"This SeeWhyClassifier cannot be pickled: the name {given.name!r} does not load its encoder again. Expected "
        "an encoder given by its name. Give that name, or save with estimator.classifier_.save(folder) and open with "
        "seewhy.load(folder, encoder=…)."
    )


def _pictures(X: Any) -> list[Any]:
    """Several pictures, never a table of numbers."""
    array = X if hasattr(X, "ndim") else None
    if array is not None and array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "OUS":
        X = array[:, 0]
    if array is not None and array.ndim == 2 and array.dtype.kind not in "OUS":
        raise InputError(
            f"X is a table of numbers with the shape {array.shape}. Expected pictures: file names, or an array (n, h, "
            "w) or (n, h, w, 3). Reshape the rows, for example X.reshape(-1, 64, 64)."
        )
    found = rows_of(X)
    if not found:
        raise InputError(
            f"X is of the type {type(X).__name__}, which holds no pictures. Expected a list or an array of pictures."
        )
    return found
