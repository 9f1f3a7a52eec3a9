"""Shortcuts that build a classifier from names, descriptions or pictures, or explain a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from .arguments import checked
from .classifiers.base import Classifier
from .descriptions.base import Descriptions, Words
from .encoders.base import Encoder
from .encoders.find import encoder as find
from .encoders.module import from_module
from .keywords import DescribedKeywords, ExplainKeywords, LinearKeywords, ZeroShotKeywords
from .pictures.answers import Answers, load_answers
from .pictures.datasets import samples_of
from .pictures.sources import Many, One
from .progress import Progress
from .storage.features import FeatureStore
from .types import Failure

if TYPE_CHECKING:
    from .classifiers.multi_output import MultiOutput
    from .explanation.base import Explanation

__all__ = ["described", "explain", "fit", "fit_multi", "from_module", "pretrained", "zero_shot"]


def encoder_of(encoder: Encoder | str) -> Encoder:
    return encoder if isinstance(encoder, Encoder) else find(encoder)


@checked
def pretrained(encoder: Encoder | str = "lite0", *, descriptions: Words | None = None) -> Classifier:
    """Load a classifier for the classes that an encoder was trained on.

    The embedded encoders were trained on the 1,000 classes of ImageNet.

    Args:
        encoder: an encoder or its name (:func:`seewhy.list_encoders`).
        descriptions: texts that describe the classes; explanations show them as evidence. Default: none.

    Raises:
        UnknownNameError: the encoder does not exist.
        ModelError: the encoder has no classes.
    """
    from .classifiers.unfitted import Pretrained

    return Pretrained().build(encoder_of(encoder), None if descriptions is None else Descriptions.given(descriptions))


@checked
def zero_shot(
    labels: Iterable[str], encoder: Encoder | str = "lite0", **parameters: Unpack[ZeroShotKeywords]
) -> Classifier:
    """Make a zero-shot classifier from class names (:class:`seewhy.classifiers.unfitted.ZeroShot`).

    Args:
        labels: at least two class names.
        encoder: an image-text encoder, or its name.
        **parameters: fields of :class:`seewhy.classifiers.unfitted.ZeroShot`.
    """
    from .classifiers.unfitted import ZeroShot

    return ZeroShot(**parameters).build(encoder_of(encoder), list(labels))


@checked
def described(
    descriptions: Words, encoder: Encoder | str = "lite0", **parameters: Unpack[DescribedKeywords]
) -> Classifier:
    """Make a classifier from descriptions of classes (:class:`seewhy.classifiers.unfitted.Described`).

    Args:
        descriptions: ``{"class": ["text", …], …}``, or a JSON file of this form.
        encoder: an image-text encoder, or its name.
        **parameters: fields of :class:`seewhy.classifiers.unfitted.Described`.
    """
    from .classifiers.unfitted import Described

    return Described(**parameters).build(encoder_of(encoder), Descriptions.given(descriptions))


@checked
def fit(
    pictures: Any,
    labels: Any = None,
    encoder: Encoder | str = "lite0",
    *,
    method: str = "linear",
    settings: Mapping[str, Any] | None = None,
    validation: Any = None,
    group: str | Sequence[Any] | None = None,
    descriptions: Words | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[LinearKeywords],
) -> Classifier:
    """Fit a classifier on your pictures, by default a linear one on the frozen encoder.

    Args:
        pictures: class folders, a table, samples, pictures to go with ``labels``, a torch ``Dataset``, a Hugging Face
            ``Dataset`` or a ``DataFrame``; see :func:`seewhy.pictures.datasets.samples_of`.
        labels: class name or integer of each picture, if ``pictures`` has none. The second positional argument may also
            be the encoder.
        encoder: an encoder or its name.
        method: name of the method, such as ``"linear"``, or ``"fine_tune"`` to train the whole network.
        settings: more settings of the method, for example ``{"epochs": 4}``.
        validation: labelled pictures of the same classes, on which settings are chosen and metrics computed. They have
            one of the forms of ``pictures``, or are a tuple ``(pictures, labels)``. Default: a held-out share of
            ``pictures``.
        group: a column of the table, ``"folder"`` as in :func:`seewhy.load_samples`, or a list with the group of each
            picture. All pictures of a group are held out together. Default: groups of pictures that look alike.
        descriptions: texts that describe the classes; explanations show them as evidence. Default: none.
        store: cache of features between runs; default: no cache.
        progress: progress reporter.
        **parameters: fields of :class:`seewhy.classifiers.linear.recipe.Linear`, for example ``solver="svm"``; other
            methods take those that they have, such as ``seed``.

    Raises:
        InputError: the data has no labelled pictures.
        DataError: fewer than two classes have a readable picture.
    """
    from .classifiers.fitting import recipe_named

    if isinstance(labels, str | Encoder):
        labels, encoder = None, labels
    recipe = recipe_named(method, {**parameters, **(settings or {})})
    words = None if descriptions is None else Descriptions.given(descriptions)
    samples = samples_of(pictures, labels, group=group)
    progress = progress or Progress()
    with progress.doing("Loading the encoder"):
        looking = encoder_of(encoder)
    fitted = recipe.fit(
        looking,
        samples,
        validation=None if validation is None else samples_of(validation),
        descriptions=words,
        store=store,
        progress=progress,
    )
    return fitted.with_trust(progress)


@checked
def fit_multi(
    pictures: Any,
    answers: Any = None,
    encoder: Encoder | str = "lite0",
    *,
    names: Sequence[str] | None = None,
    questions: Sequence[str] = (),
    method: str = "linear",
    settings: Mapping[str, Any] | None = None,
    validation: Answers | None = None,
    aim: str = "f1",
    store: FeatureStore | None = None,
    progress: Progress | None = None,
) -> MultiOutput:
    """Fit a model that makes several decisions about each picture, from one look at it.

    For each label, the threshold is chosen on held-out pictures; precision, recall and F1 are measured on these with
    thresholds that were chosen on other folds of them. A picture with an unknown answer is left out of that decision.

    Args:
        pictures: answers, a table (both: :func:`seewhy.load_answers`), or pictures to go with ``answers``.
        answers: the labels of each picture, a matrix of 0 and 1, or a dictionary from questions to answers; see
            :meth:`seewhy.Answers.of_pictures`.
        encoder: an encoder or its name.
        names: the labels; for a matrix, those of its columns.
        questions: columns of the table that each answer a question, in place of labels.
        method: name of a method that leaves the encoder frozen, or ``fine_tune``, which trains one network for all
            decisions and keeps it if it is better than the frozen one.
        settings: settings of the method.
        validation: pictures to choose settings and thresholds on and to measure on; default: a held-out share.
        aim: what the thresholds of labels are chosen for: ``"f1"``, ``"precision=0.9"`` or ``"recall=0.9"``.
        store: cache of features between runs; default: a temporary one.
        progress: progress reporter.

    Raises:
        DataError: no decision has two answers with enough readable pictures.
        InputError: the method trains a network for each decision, or ``aim`` has another form.
    """
    from .classifiers.fit_answers import fit_answers
    from .classifiers.fitting import recipe_named

    if isinstance(pictures, str | PathLike):
        pictures = load_answers(Path(pictures), questions=questions, names=names)
    elif not isinstance(pictures, Answers):
        pictures = Answers.of_pictures(pictures, answers, names)
    progress = progress or Progress()
    with progress.doing("Loading the encoder"):
        looking = encoder_of(encoder)
    return fit_answers(
        looking,
        pictures,
        recipe_named(method, settings),
        validation=validation,
        aim=aim,
        store=store,
        progress=progress,
    )


@cache
def _default() -> Classifier:
    return pretrained()


@overload
def explain(  # type: ignore[overload-overlap]
    picture: One,
    classifier: Classifier | None = None,
    *,
    store: FeatureStore | None = None,
    **options: Unpack[ExplainKeywords],
) -> Explanation: ...
@overload
def explain(
    picture: Many,
    classifier: Classifier | None = None,
    *,
    store: FeatureStore | None = None,
    **options: Unpack[ExplainKeywords],
) -> list[Explanation | Failure]: ...
@checked
def explain(
    picture: One | Many,
    classifier: Classifier | None = None,
    *,
    store: FeatureStore | None = None,
    **options: Unpack[ExplainKeywords],
) -> Explanation | list[Explanation | Failure]:
    """Explain one picture or several (:meth:`seewhy.Classifier.explain`).

    Args:
        picture: a file name, pixels, or several of them (:mod:`seewhy.pictures.sources`).
        classifier: the classifier; default: the embedded encoder with the 1,000 classes of ImageNet.
        store: cache of features between runs; default: no cache.
        **options: options of :class:`seewhy.evidence.explain.ExplainOptions`.
    """
    return (classifier or _default()).explain(picture, store=store, **options)
