"""The short way in: one call from names, descriptions or pictures to a classifier, an explanation or a study."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from torch import nn

from .arguments import Count, checked
from .classifiers.base import Classifier
from .descriptions.base import Descriptions, Words
from .encoders.base import Encoder
from .encoders.find import encoder as find
from .encoders.module import from_module
from .keywords import AdaptKeywords, DescribedKeywords, ExplainKeywords, LinearKeywords, ZeroShotKeywords
from .pictures.datasets import pictures_of, samples_of
from .pictures.sources import Many, One
from .progress import Progress
from .storage.features import FeatureStore
from .storage.output import temporary_folder
from .types import Failure

if TYPE_CHECKING:
    from .explanation.base import Explanation
    from .studies.findings import Findings
    from .training.adapt import Adapted

__all__ = ["adapt", "described", "explain", "fit", "from_module", "pretrain", "pretrained", "study", "zero_shot"]


def _encoder(encoder: Encoder | str) -> Encoder:
    return encoder if isinstance(encoder, Encoder) else find(encoder)


@checked
def pretrained(encoder: Encoder | str = "lite0", *, descriptions: Words | None = None) -> Classifier:
    """The encoder's own classes; for the embedded encoders, the 1,000 of ImageNet.

    Args:
        encoder: an encoder or its name (:func:`seewhy.list_encoders`).
        descriptions: of the classes, as words evidence.

    Raises:
        UnknownNameError: there is no such encoder.
        ModelError: it has no classes of its own.
    """
    from .classifiers.pretrained import Pretrained

    return Pretrained().build(_encoder(encoder), None if descriptions is None else Descriptions.given(descriptions))


@checked
def zero_shot(
    labels: Iterable[str], encoder: Encoder | str = "lite0", **parameters: Unpack[ZeroShotKeywords]
) -> Classifier:
    """Classes by name (:class:`seewhy.classifiers.zero_shot.ZeroShot`).

    Args:
        labels: at least two names.
        encoder: one with words, or its name.
        **parameters: those of the recipe.
    """
    from .classifiers.zero_shot import ZeroShot

    return ZeroShot(**parameters).build(_encoder(encoder), list(labels))


@checked
def described(
    descriptions: Words, encoder: Encoder | str = "lite0", **parameters: Unpack[DescribedKeywords]
) -> Classifier:
    """Classes by written descriptions (:class:`seewhy.classifiers.described.Described`).

    Args:
        descriptions: ``{"class": ["text", …], …}``, or the JSON it is in.
        encoder: one with words, or its name.
        **parameters: those of the recipe.
    """
    from .classifiers.described import Described

    return Described(**parameters).build(_encoder(encoder), Descriptions.given(descriptions))


@checked
def fit(
    pictures: Any,
    labels: Any = None,
    encoder: Encoder | str = "lite0",
    *,
    validation: Any = None,
    group: str | Sequence[Any] | None = None,
    descriptions: Words | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[LinearKeywords],
) -> Classifier:
    """A classifier of the user's pictures (:class:`seewhy.classifiers.linear.recipe.Linear`).

    Args:
        pictures: class folders, a table, or samples; pictures alone, with ``labels``; a torch ``Dataset``, a Hugging
            Face ``Dataset`` or a ``DataFrame``; all forms stand in :func:`seewhy.pictures.datasets.samples_of`.
        labels: one per picture, texts or whole numbers, where ``pictures`` are pictures alone. An encoder or its name
            in this place is the encoder.
        encoder: an encoder or its name.
        validation: pictures of the same classes on which to choose and to measure, in any of these forms,
            ``(pictures, labels)`` among them; left out, a part of ``pictures``.
        group: which pictures belong together: a table's column or ``"folder"``, as in
            :func:`seewhy.load_samples`, else one group per picture; left out, those that look like the same
            thing. They are held out together.
        descriptions: of the classes, as words evidence.
        store: where looks are kept between runs; left out, nothing is kept.
        progress: hears of progress and failures.
        **parameters: those of the recipe, for example ``solver="svm"``.

    Raises:
        InputError: what was given holds no pictures with classes.
        DataError: fewer than two classes have a readable picture.
    """
    from .classifiers.linear.recipe import Linear

    if isinstance(labels, str | Encoder):
        labels, encoder = None, labels
    recipe = Linear(**parameters)
    words = None if descriptions is None else Descriptions.given(descriptions)
    samples = samples_of(pictures, labels, group=group)
    fitted = recipe.fit(
        _encoder(encoder),
        samples,
        validation=None if validation is None else samples_of(validation),
        descriptions=words,
        store=store,
        progress=progress,
    )
    return replace(fitted, trust=fitted.measured_trust)


@checked
def adapt(
    pairs: Any,
    encoder: Encoder | str = "lite0",
    *,
    validation: Any = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[AdaptKeywords],
) -> Adapted:
    """Teach an encoder pictures with texts (:class:`seewhy.training.adapt.Adapt`).

    Args:
        pairs: a table, JSONL, a folder, shards, a data frame, a Hugging Face data set or ``[(picture, texts), …]``, as
            :func:`seewhy.load_pairs` takes them.
        encoder: an encoder with words, or its name.
        validation: pairs that ``keep`` is chosen on; left out, a tenth of ``pairs``.
        store: where looks are kept between runs; left out, nothing is kept.
        progress: hears of progress and failures.
        **parameters: those of the method, for example ``train="towers"`` or ``keep=0.3``.

    Returns:
        Its ``encoder`` is one like any other; ``save(folder)`` keeps it, and ``seewhy.encoder(folder)`` brings it back.

    Raises:
        DataError: there are no pairs that can be used, or too few.
        ModelError: the encoder has no words, or none that can be trained.
    """
    from .pictures.pairs import load_pairs
    from .training.adapt import Adapt

    found = load_pairs(pairs)
    chosen_on = None if validation is None else load_pairs(validation).items
    how = Adapt(**parameters)
    return how.fit(_encoder(encoder), found.items, validation=chosen_on, store=store, progress=progress)


@checked
def pretrain(
    pairs: Any,
    encoder: Encoder | str = "new:resnet",
    *,
    validation: Any = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[AdaptKeywords],
) -> Adapted:
    """Train both towers, all of it kept; arguments as for :func:`adapt`.

    Args:
        pairs: pictures with texts.
        encoder: where it begins; ``"new:resnet"`` and ``"new:vit"`` have learnt nothing yet.
        validation: pairs to measure on; left out, a tenth of ``pairs``.
        store: where looks are kept between runs.
        progress: hears of progress and failures.
        **parameters: those of the method.
    """
    settings: AdaptKeywords = {"train": "towers", "keep": 1.0, **parameters}
    return adapt(pairs, encoder, validation=validation, store=store, progress=progress, **settings)


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
    """Explain a picture, or several, in one call (:meth:`seewhy.Classifier.explain`).

    Args:
        picture: a file name, pixels, or several of them (:mod:`seewhy.pictures.sources`).
        classifier: what decides; left out, the embedded encoder with the 1,000 classes of ImageNet, made once.
        store: where looks are kept between runs; left out, nothing is kept.
        **options: those of :class:`seewhy.evidence.explain.ExplainOptions`.
    """
    return (classifier or _default()).explain(picture, store=store, **options)


@checked
def study(
    model: Classifier | Encoder | nn.Module,
    pictures: Many | str | Path,
    *,
    transform: Any = None,
    methods: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    n: Count | None = None,
    masks: str | Path | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Which explanations of this model can be believed? What ``seewhy study faithfulness`` measures.

    Args:
        model: a classifier; or an encoder or a torch network, whose own last layer decides.
        pictures: a folder, or several pictures (:mod:`seewhy.pictures.sources`).
        transform: the preprocessing of a torch network, as :func:`seewhy.from_module` takes it.
        methods: attributions by name; left out, those that need no forward pass of their own; ``rise:50`` is measured
            on 50 pictures at most.
        metrics: by name; left out, the usual ones.
        n: so many of the pictures, drawn at random; left out, all.
        masks: a folder of masks named like the pictures, for metrics of localisation.
        output: folder of the progress, from which a stopped study goes on; left out, a temporary one.
        seed: of the pictures' order and of the resampling.
        progress: hears of progress and failures.

    Returns:
        Tables, ranking and the sentence; displays itself in a notebook, and ``save("study.html")`` writes it.

    Raises:
        UnknownNameError: there is no such method or metric.
        DataError: no picture can be read.
    """
    from .studies.faithfulness import FaithfulnessStudy

    asked = FaithfulnessStudy.of(methods, metrics, masks=None if masks is None else Path(masks), seed=seed)
    if isinstance(model, nn.Module):
        model = from_module(model, transform=transform)
    classifier = model if isinstance(model, Classifier) else pretrained(model)
    many = pictures_of(pictures)
    random.Random(seed).shuffle(many)
    return asked.run(classifier, many[:n], output or temporary_folder(), progress)
