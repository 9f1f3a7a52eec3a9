"""Teaching an encoder in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, overload

from ..api import encoder_of
from ..arguments import checked
from ..classifiers.base import Classifier
from ..classifiers.fitting import PictureRecipe
from ..encoders.base import Encoder
from ..errors import InputError
from ..keywords import PretrainKeywords, TeachKeywords
from ..pictures.datasets import samples_of
from ..progress import Progress
from ..storage.features import FeatureStore
from .adapt import Adapt, Adapted
from .by_columns import ByClassesAndCaptions, ByInstructions
from .from_columns import FromColumns, Taught
from .pretrain import Pretrain, Pretrained, is_of_pictures
from .way import Way

FROM_COLUMNS: tuple[type[FromColumns], ...] = (ByInstructions, ByClassesAndCaptions)


def way_of(
    objective: str,
    settings: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    all_of_it: bool = False,
    spelt: Callable[[str], str] = str,
) -> Way[Any, Any]:
    """How an encoder is taught by an objective, with as much as can be trained and kept where ``all_of_it``.

    >>> way_of("siglip", {"keep": 0.3}, {}).keep, type(way_of("prefix", {}, {"label": "kind"})).__name__
    (0.3, 'ByClassesAndCaptions')
    """
    usual: type[Way[Any, Any]] = Pretrain if all_of_it and is_of_pictures(objective) else Adapt
    found = {way.taught_by.name: way for way in FROM_COLUMNS}.get(objective, usual)
    unused = [name for name in settings if name not in found.takes()]
    if unused := unused or [name for name in columns if name not in found.columns]:
        raise InputError(
            f"{spelt(unused[0])} was given with the objective {objective!r}, which has no use for it. An objective "
            "that has, or none of it, was expected. Drop it, or take another objective."
        )
    return found.of(objective, {**(found.all_of_it if all_of_it else {}), **settings}, columns)


@overload
def adapt(pairs: Any, encoder: Encoder | str = "lite0", *, method: None = None, **options: Any) -> Adapted | Taught: ...
@overload
def adapt(
    pairs: Any, encoder: Encoder | str = "lite0", *, method: str | PictureRecipe, **options: Any
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

    With a method, such as :class:`~seewhy.learning.adaptation.word_prompts.CoOp`, classes are learnt by their names.
    Columns are learnt from with ``objective="focallens"`` and ``instructions``
    (:class:`seewhy.learning.by_columns.ByInstructions`), and with ``objective="prefix"`` and ``label``
    (:class:`seewhy.learning.by_columns.ByClassesAndCaptions`).

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
        progress: callback for progress and failures.
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
        from ..studies.forgetting import AdaptingData, adapt_names, recipe_named

        chosen = None if validation is None else samples_of(validation)
        others = {name: samples_of(one) for name, one in (also or {}).items()}
        data = AdaptingData(samples_of(pairs, group=group), chosen, base_to_new, tuple(new_names), others)
        recipe = recipe_named(method, **parameters)
        made = adapt_names(recipe, encoder_of(encoder), data, store=store, progress=progress)
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
        image, text, label, group, validation, store, progress: as for :func:`adapt`.
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
    progress, named = progress or Progress(), {name: column for name, column in columns.items() if column is not None}
    settings: dict[str, Any] = {**parameters}
    way = way_of(settings.pop("objective", "clip"), settings, named, all_of_it=all_of_it)
    if all_of_it and way.stays:
        progress.note(way.stays)
    read = way.read(pairs, named, progress)
    held = None if validation is None else way.read(validation, named, progress)
    return way.fit(encoder_of(encoder), read, validation=held, store=store, progress=progress)
