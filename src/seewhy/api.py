"""The short way in: one call from names, descriptions or pictures to a classifier, an explanation or a study."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from torch import nn

from .arguments import Count, checked
from .classifiers.base import Classifier
from .classifiers.fitting import PictureRecipe
from .descriptions.base import Descriptions, Words
from .encoders.base import Encoder
from .encoders.find import encoder as find
from .encoders.module import from_module
from .keywords import (
    DescribedKeywords,
    ExplainKeywords,
    LinearKeywords,
    PretrainKeywords,
    TeachKeywords,
    ZeroShotKeywords,
)
from .pictures.datasets import pictures_of, samples_of
from .pictures.sources import Many, One
from .progress import Progress
from .storage.features import FeatureStore
from .storage.output import temporary_folder
from .types import Failure

if TYPE_CHECKING:
    from .explanation.base import Explanation
    from .learning.adapt import Adapted
    from .learning.from_columns import Taught
    from .learning.pretrain import Pretrained
    from .studies.findings import Findings

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
    return fitted.with_trust(progress)


@overload
def adapt(
    pairs: Any,
    encoder: Encoder | str = "lite0",
    *,
    method: None = None,
    image: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    validation: Any = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[TeachKeywords],
) -> Adapted | Taught: ...
@overload
def adapt(
    pairs: Any,
    encoder: Encoder | str = "lite0",
    *,
    method: str | PictureRecipe,
    group: str | None = None,
    validation: Any = None,
    base_to_new: bool = False,
    new_names: Sequence[str] = (),
    also: Mapping[str, Any] | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[TeachKeywords],
) -> Classifier: ...
@checked
def adapt(
    pairs: Any,
    encoder: Encoder | str = "lite0",
    *,
    method: str | PictureRecipe | None = None,
    image: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    validation: Any = None,
    base_to_new: bool = False,
    new_names: Sequence[str] = (),
    also: Mapping[str, Any] | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[TeachKeywords],
) -> Adapted | Taught | Classifier:
    """Teach an encoder pictures with texts (:class:`seewhy.learning.adapt.Adapt`), a table's columns, or a few classes.

    With a method, classes are learnt by their names from labelled pictures, for example by
    :class:`seewhy.learning.adaptation.prompt_learning.coop.CoOp`.

    Columns are learnt from with ``objective="focallens"`` and ``instructions``
    (:class:`seewhy.learning.instructed.ByInstructions`), and with ``objective="prefix"`` and ``label``
    (:class:`seewhy.learning.prefixed.ByClassesAndCaptions`).

    Args:
        pairs: a table, JSONL, a folder, shards, a data frame, a Hugging Face data set or ``[(picture, texts), …]``, as
            :func:`seewhy.load_pairs` takes them; to learn from columns, something that has them.
        encoder: an encoder with words, or its name.
        method: what learns classes by their names: ``"coop"``, or ``CoOp(shots=4)``; of what ``fit`` takes.
        image: the column of pictures; left out, the one called image, picture, file or alike.
        text: the columns of texts; left out, those called text, caption, title or alike.
        label: the column of classes, for an objective that uses them.
        group: the column that says which pictures belong together.
        validation: the same as ``pairs``, to choose ``keep`` and to measure on; left out, a tenth of ``pairs``.
        base_to_new: with a method: learn the first half of the classes, and measure the rest by name.
        new_names: with a method: names to learn for without pictures; none is read unless given.
        also: with a method: pictures of other classes by a name for each set, told by name before and after.
        store: where looks are kept between runs; left out, nothing is kept.
        progress: hears of progress and failures.
        **parameters: those of the method, for example ``train="towers"``, ``keep=0.3``, or
            ``instructions={"colour": "the colour"}``.

    Returns:
        Its ``encoder`` is one like any other; ``save(folder)`` keeps it, and ``seewhy.encoder(folder)`` brings it back.
        :func:`seewhy.studies.adapting.run_report` makes the page of the run.
        With a method, a classifier like any other; ``measures["forgetting"]`` is what was gained and lost.

    Raises:
        DataError: there is nothing that can be used, too little, or no such column.
        ModelError: the encoder has no words, or none that can be trained.
        InputError: the objective needs columns that were not named, or has no use for a parameter.
    """
    if method is not None:
        from .studies.learning_names import AdaptingData, adapt_names, recipe_named

        chosen = None if validation is None else samples_of(validation)
        others = {name: samples_of(one) for name, one in (also or {}).items()}
        data = AdaptingData(samples_of(pairs, group=group), chosen, base_to_new, tuple(new_names), others)
        recipe = recipe_named(method, **parameters)
        made = adapt_names(recipe, _encoder(encoder), data, store=store, progress=progress)
        return made.with_trust(progress)
    columns = {"image": image, "text": text, "label": label, "group": group}
    taught: Adapted | Taught = _teach(pairs, encoder, columns, validation, store, progress, parameters)
    return taught


@checked
def pretrain(
    pairs: Any,
    encoder: Encoder | str = "new:resnet",
    *,
    image: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    validation: Any = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[PretrainKeywords],
) -> Adapted | Pretrained | Taught:
    """Train an encoder, all of it kept, on pictures with texts or, by objectives without words, on pictures alone.

    An objective that learns from columns trains what it trains there, the words half or a head: pictures stay as the
    encoder sees them, which is said.

    Args:
        pairs: pictures with texts, as for :func:`adapt`; by an objective that needs no words
            (:class:`seewhy.learning.pretrain.Pretrain`) class folders, a table, a folder of pictures, pictures, or
            what :func:`fit` takes.
        encoder: where it begins; ``"new:resnet"`` and ``"new:vit"`` have learnt nothing yet.
        image: the column of pictures.
        text: the columns of texts.
        label: the column of classes.
        group: the column that says which pictures belong together.
        validation: pairs to measure on; left out, a tenth of ``pairs``.
        store: where looks are kept between runs.
        progress: hears of progress and failures.
        **parameters: those of the method.
    """
    columns = {"image": image, "text": text, "label": label, "group": group}
    return _teach(pairs, encoder, columns, validation, store, progress, parameters, all_of_it=True)


def _teach(
    pairs: Any,
    encoder: Encoder | str,
    columns: Mapping[str, Any],
    validation: Any,
    store: FeatureStore | None,
    progress: Progress | None,
    parameters: TeachKeywords | PretrainKeywords,
    *,
    all_of_it: bool = False,
) -> Any:
    from .learning.ways import way_of

    progress, named = progress or Progress(), {name: column for name, column in columns.items() if column is not None}
    settings: dict[str, Any] = {**parameters}
    way = way_of(settings.pop("objective", "clip"), settings, named, all_of_it=all_of_it)
    if all_of_it and way.stays:
        progress.note(way.stays)
    read = way.read(pairs, named, progress)
    held = None if validation is None else way.read(validation, named, progress)
    return way.fit(_encoder(encoder), read, validation=held, store=store, progress=progress)


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
