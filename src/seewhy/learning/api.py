"""The functions :func:`adapt` and :func:`pretrain`, and training from table columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self, Unpack, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..api import encoder_of
from ..arguments import checked
from ..bounds import Bound, Count
from ..classifiers.base import Classifier
from ..classifiers.encoded_set import EncodedSet
from ..classifiers.fitting import PictureRecipe
from ..encoders.base import Encoder, Tokenised
from ..encoders.names import filled, own_vectors
from ..errors import DataError, InputError
from ..keywords import PretrainKeywords, TeachKeywords
from ..pictures.datasets import samples_of
from ..progress import Progress
from ..seeded import seeded
from ..storage.features import FeatureStore
from ..training.batches import Batch, TrainingData, gathered
from ..training.loop import Training
from ..training.task import Task
from .adapt import Adapt, Adapted
from .contrast import Contrast, Drawn, PairTask, gathered_pairs
from .encoders.instructed import LAYERS, RANK, Instructed
from .encoders.towers import SOURCES, PrefixedWords, trainable
from .from_columns import Columns, FromColumns, Measures, Taught
from .objectives.contrastive import Contrastive
from .objectives.pairs import FocalLens, Prefix
from .pretrain import Pretrain, Pretrained, is_of_pictures
from .way import Way

Question = tuple[Sequence[str], Sequence[str]]
"""Wordings of an instruction, and the answer for each picture."""


class InstructedTask(PairTask):
    """Contrastive training on vectors of pictures under an instruction and vectors of the answers."""

    def __init__(self, on: Encoder, part: Instructed, objective: Contrastive, n_through: int) -> None:
        super().__init__(objective, "image", "pooled", "asked")
        self.part, self.project, self.n_through = part.requires_grad_(True), on.text.project, n_through

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        instruction, answer, _ = batch["asked"]
        n, each = min(self.n_through, len(batch)), instruction.shape[1]
        asked = instruction.flatten(0, 1)
        image = batch["image"][:n].float().repeat_interleave(each, 0)
        seen = self.part.pooled(image, asked[: n * each])
        pooled = torch.cat([seen, batch["pooled"][n:].repeat_interleave(each, 0)])
        return self.project(self.part.projection(pooled, asked)), answer.flatten(0, 1)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, answer, share = gathered_pairs(*features)
        labels = gathered(batch["asked"][2].flatten())[0]
        return {"loss": self.objective(image, answer, labels, self.state, share=share)}


@dataclass(frozen=True, eq=False)
class Triplets:
    """A sampler of (instruction, answer, answer index) triplets.

    ``known[i]`` lists the known answers of picture ``i`` as (question index, answer index).
    """

    known: Sequence[Sequence[tuple[int, int]]]
    wordings: Sequence[Float[Tensor, "_w e"]]
    answers: Float[Tensor, "k d"]
    n: int

    def drawn(self, index: Sequence[int], draws: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        rows, labels = [], []
        for i, draw in zip(index, draws, strict=True):
            known = [self.known[i][j] for j in draw.permutation(len(self.known[i]))]
            for question, label in (known * self.n)[: self.n]:
                said = self.wordings[question]
                rows.append(said[int(draw.integers(len(said)))])
                labels.append(label)
        number = torch.tensor(labels)
        found = torch.stack(rows), self.answers[number], number
        return found[0].unflatten(0, (-1, self.n)), found[1].unflatten(0, (-1, self.n)), number.view(-1, self.n)


def triplets(on: Encoder, part: Instructed, questions: Sequence[Question], n: int) -> tuple[list[int], Triplets]:
    """Return the indices of the pictures with a known answer, and a sampler of ``n`` questions per picture."""
    given = [len(answers) for _, answers in questions]
    words = sorted({answer for _, answers in questions for answer in answers if answer.strip()})
    if len(set(given)) != 1 or not all(wordings for wordings, _ in questions) or len(words) < 2:
        raise DataError(
            "Every list of answers must have an instruction, all lists must have the same length, and together they "
            f"must have at least 2 different answers, got the lengths {given} and {len(words)} different answers."
        )
    number = {word: i for i, word in enumerate(words)}
    known = [[(k, number[a[i]]) for k, (_, a) in enumerate(questions) if a[i].strip()] for i in range(given[0])]
    with torch.no_grad():
        wordings = [part.read(own_vectors(on.text, said))[0] for said, _ in questions]
    rows = [i for i, several in enumerate(known) if several]
    return rows, Triplets([known[i] for i in rows], wordings, on.encode_text(words).clone(), n)


@dataclass(frozen=True)
class ByInstructions(FromColumns):
    """Training in which each column of a table answers an instruction.

    Args:
        instructions: instruction for each column, in one or more wordings.
        rank: rank of the projection.
        n_layers: number of last convolutions that depend on the instruction; in a vision transformer, the last block
            does.
        n_asked: number of instructions per picture in a batch.
        n_through: number of pictures per batch that pass through the layers that depend on the instruction, at least 0.
            With 0, only the projection is trained, which is fastest.
        lr: highest learning rate.
    """

    taught_by: ClassVar[type[Contrastive]] = FocalLens
    form: ClassVar[str] = Instructed.form
    columns: ClassVar[tuple[str, ...]] = ("image", "group")

    instructions: Mapping[str, Sequence[str]]
    objective: Contrastive = field(default_factory=FocalLens, kw_only=True)
    rank: Count = RANK
    n_layers: Count = LAYERS
    n_asked: Count = 3
    n_through: Annotated[int, Bound(0)] = 16
    _: KW_ONLY
    batch_size: Annotated[int, Bound(2)] = 128
    lr: float = 1.5e-3

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        said = settings.get("instructions") or {}
        instructions = {column: (s,) if isinstance(s, str) else tuple(s) for column, s in said.items()}
        return cls(**{**settings, "instructions": instructions})

    def columns_read(self) -> Mapping[str, str]:
        return {column: column for column in self.instructions}

    def names(self) -> Sequence[str]:
        return list(self.instructions)

    def refuse(self, on: Encoder, read: Any) -> None:
        self.begun(on)

    def begun(self, on: Encoder) -> Instructed:
        with seeded(self.seed):
            return Instructed.before(on, [*self.instructions.values()], rank=self.rank, n_layers=self.n_layers)

    def look(self, on: Encoder, read: Columns, store: FeatureStore | None, progress: Progress) -> EncodedSet:
        return super().look(self.begun(on).below, read, store, progress)

    def prepared(self, on: Encoder, own: EncodedSet, progress: Progress) -> tuple[Instructed, Task, TrainingData]:
        part = self.begun(on)
        questions = [(list(said), own.first(column)) for column, said in self.instructions.items()]
        rows, asked = triplets(on, part, questions, self.n_asked)
        vectors = own.pooled[rows].half()
        columns = {"image": vectors, "pooled": part.measure(vectors), "asked": asked}
        return part, InstructedTask(on, part, self.objective, self.n_through), TrainingData(len(rows), columns)

    def plain(self, on: Encoder, part: Instructed, pooled: Float[Tensor, "n f"]) -> Float[Tensor, "n p"]:
        return part.plain(pooled)

    def training(self, data: TrainingData, on: Encoder) -> Training:
        return Training.cosine(self, data, self.lr, micro_batch=min(self.batch_size, data.n_samples))

    def counts(self, own: EncodedSet, data: TrainingData) -> dict[str, Any]:
        said = {"instructions": [list(wordings) for wordings in self.instructions.values()]}
        n = sum(map(len, data.columns["asked"].known))
        return {**said, "n_triplets": n, "columns": list(self.instructions)}

    def measures(self, after: Encoder) -> Measures:
        said = {column: several[0] for column, several in self.instructions.items()}
        return {f"{column} under '{words}'": (column, after.under(words), ("{}",)) for column, words in said.items()}


def two_kinds(
    on: Encoder, pooled: Tensor, classes: Sequence[str], captions: Sequence[Sequence[str]], objective: Prefix
) -> TrainingData:
    """Return a pair with the class name of each picture that has a class, and a pair with captions of each that has
    captions.

    Equal texts get the same label.
    """
    tower = trainable(on)
    named = [i for i, name in enumerate(classes) if name.strip()]
    captioned = [i for i, several in enumerate(captions) if len(several)]
    if {len(classes), len(captions)} != {len(pooled)} or min(len(named), len(captioned)) < 2:
        raise DataError(
            "Classes and captions must have one entry per picture, and at least 2 of each must not be empty, got "
            f"{len(pooled)} pictures, {len(classes)} classes ({len(named)} not empty) and {len(captions)} "
            f"lists of captions ({len(captioned)} not empty)."
        )
    choices = [[(0, filled(t, classes[i])) for t in tower.templates] for i in named]
    choices += [[(1, caption) for caption in captions[i]] for i in captioned]
    keys: list[tuple[str, ...]] = [("class", classes[i]) for i in named] + [
        ("caption", *captions[i]) for i in captioned
    ]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}

    def made(sample: list[tuple[int, str]]) -> Tokenised:
        return torch.tensor([source for source, _ in sample]), *tower.tokens([text for _, text in sample])

    with torch.no_grad():
        image: Tensor = tower.project(pooled[[*named, *captioned]])
    kinds = torch.tensor([0] * len(named) + [1] * len(captioned))
    columns = {"image": image, "text": Drawn(choices, made), "labels": torch.tensor([number[key] for key in keys])}
    return TrainingData(len(keys), columns, apart=kinds if objective.debiased else None)


@dataclass(frozen=True)
class ByClassesAndCaptions(FromColumns):
    """Training on a column of class names and columns of captions.

    A picture may have a class, captions or both.

    Args:
        label: name of the class column.
        text: names of the caption columns; default: columns named text, caption, title or similar.
        objective: loss. The settings of the loss also include the length of the prefixes, and whether a batch may have
            both class names and captions.
        learn: what to train: ``"words"`` for the prefixes and the text encoder, or ``"prefixes"`` for the prefixes
            only.
        micro_batch: texts per forward pass; lower it if memory runs out.
        prefix_lr: learning rate of the prefixes, as a multiple of ``lr``.
    """

    taught_by: ClassVar[type[Contrastive]] = Prefix
    form: ClassVar[str] = PrefixedWords.form
    columns: ClassVar[tuple[str, ...]] = ("image", "text", "label", "group")

    label: str | None
    text: str | Sequence[str] | None = None
    objective: Prefix = field(default_factory=Prefix, kw_only=True)
    learn: Literal["words", "prefixes"] = "words"
    micro_batch: int | None = None
    prefix_lr: float = 10.0
    _: KW_ONLY
    epochs: Count = 4
    batch_size: Annotated[int, Bound(2)] = 64

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        return cls(columns.get("label"), columns.get("text"), **settings)

    def columns_read(self) -> Mapping[str, str | Sequence[str] | None]:
        return {"class": self.label, "caption": self.text}

    def names(self) -> Sequence[str]:
        return SOURCES[:1]

    def refuse(self, on: Encoder, read: Any) -> None:
        trainable(on)

    def task(self, on: Encoder) -> tuple[PrefixedWords, Contrast]:
        """Return the untrained text encoder with prefixes, and its training task."""
        with seeded(self.seed):
            words = PrefixedWords.before(on, self.objective.n_tokens)
        words.prefix.requires_grad_(True)
        words.words.requires_grad_(self.learn == "words")
        return words, Contrast(nn.Identity(), words, self.objective, column="image", labels=True)

    def prepared(self, on: Encoder, own: EncodedSet, progress: Progress) -> tuple[PrefixedWords, Task, TrainingData]:
        data = two_kinds(on, own.pooled, own.first("class"), own.columns["caption"], self.objective)
        return *self.task(on), data

    def training(self, data: TrainingData, on: Encoder) -> Training:
        prefix = {"part_lr": (("text.prefix", self.prefix_lr),), "part_decay": (("text.prefix", 0.0),)}
        lr = self.lr or trainable(on).tuning_lr
        return Training.cosine(self, data, lr, **prefix)

    def counts(self, own: EncodedSet, data: TrainingData) -> dict[str, Any]:
        n_named = sum(bool(name.strip()) for name in own.first("class"))
        captions = [self.text] if isinstance(self.text, str) else list(self.text or ())
        return {"n_named": n_named, "n_captioned": data.n_samples - n_named, "columns": [self.label, *captions]}

    def measures(self, after: Encoder) -> Measures:
        read = {source: after if source == SOURCES[-1] else after.under(source) for source in SOURCES}
        return {
            f"{self.label}, read as {source}": ("class", encoder, encoder.text.templates)
            for source, encoder in read.items()
        }


FROM_COLUMNS: tuple[type[FromColumns], ...] = (ByInstructions, ByClassesAndCaptions)


def way_of(
    objective: str,
    settings: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    all_of_it: bool = False,
    spelt: Callable[[str], str] = str,
) -> Way[Any, Any]:
    """Return the kind of training that an objective needs.

    With ``all_of_it``, all weights are trained, without interpolation to the original weights.
    """
    usual: type[Way[Any, Any]] = Pretrain if all_of_it and is_of_pictures(objective) else Adapt
    found = {way.taught_by.name: way for way in FROM_COLUMNS}.get(objective, usual)
    unused = [name for name in settings if name not in found.takes()]
    if unused := unused or [name for name in columns if name not in found.columns]:
        raise InputError(
            f"{spelt(unused[0])} has no effect with the objective {objective!r}. Remove it, or use another objective."
        )
    return found.of(objective, {**(found.all_of_it if all_of_it else {}), **settings}, columns)


@overload
def adapt(pairs: Any, encoder: Encoder | str = "lite0", *, method: None = None, **options: Any) -> Adapted | Taught: ...
@overload
def adapt(
    pairs: Any, encoder: Encoder | str = "lite0", *, method: str | PictureRecipe, **options: Any
) -> Classifier: ...
@checked  # type: ignore[misc]  # those above leave the options to this one
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
    new_names: Sequence[str] | None = None,
    also: Mapping[str, Any] | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **parameters: Unpack[TeachKeywords],
) -> Adapted | Taught | Classifier:
    """Adapt an image-text encoder to your pictures.

    The default method trains on pictures with texts (:class:`seewhy.learning.adapt.Adapt`). There are three others:

    * ``method="coop"`` and similar methods learn to classify by class names.
    * ``objective="focallens"`` with ``instructions`` learns from table columns
      (:class:`seewhy.learning.api.ByInstructions`).
    * ``objective="prefix"`` with ``label`` learns from class names and captions
      (:class:`seewhy.learning.api.ByClassesAndCaptions`).

    Args:
        pairs: pictures with texts, as for :func:`seewhy.load_pairs`; a table or shards to learn from columns.
        encoder: image-text encoder, or its name.
        method: method that learns to classify by class names, for example ``"coop"`` or ``CoOp(shots=4)``. ``pairs``
            are then labelled pictures, as for :func:`seewhy.fit`.
        image, text, label, group: names of the columns with pictures, texts, classes and groups; default: columns with
            such names.
        validation: data in the form of ``pairs``, on which ``keep`` is chosen and metrics are computed; default: a
            tenth of ``pairs``.
        base_to_new: whether to train a method on the first half of the classes and evaluate it on the second half.
        new_names: names of classes without pictures, for which a method should stay accurate; default: chosen by the
            method.
        also: labelled pictures of other classes, by name of the set; a method is evaluated on them before and after
            training.
        store: cache for encoded pictures; default: no cache.
        progress: callback for progress and failures.
        **parameters: settings of the method, for example ``train="towers"``, ``keep=0.3``, or
            ``instructions={"colour": "the colour"}``.

    Returns:
        The result of the training. The result's ``encoder`` can be used like any other encoder; ``save(folder)`` writes
        it, and ``seewhy.encoder(folder)`` loads it. :func:`seewhy.studies.adapting.run_report` makes an HTML page of
        the training. With ``method``, the result is a classifier instead, whose ``measures["forgetting"]`` has the
        accuracies before and after.

    Raises:
        DataError: if there are too few usable pictures, or a column is missing.
        ModelError: if the encoder has no text encoder, or its text encoder cannot be trained.
        InputError: if the objective needs columns that were not named, or does not use a parameter.
    """
    if method is not None:
        from ..classifiers.fitting import recipe_named
        from ..studies.forgetting import AdaptingData, adapt_names

        chosen = None if validation is None else samples_of(validation)
        others = {name: samples_of(one) for name, one in (also or {}).items()}
        names = None if new_names is None else tuple(new_names)
        data = AdaptingData(samples_of(pairs, group=group), chosen, base_to_new, names, others)
        recipe = recipe_named(method, parameters)
        made = adapt_names(recipe, encoder_of(encoder), data, store=store, progress=progress)
        return made.with_trust(progress)
    columns = {"image": image, "text": text, "label": label, "group": group}
    return _teach(pairs, encoder, columns, validation, store, progress, parameters)


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
    """Train all weights of an encoder on pictures with texts, or on pictures only.

    Args:
        pairs: pictures with texts, as for :func:`adapt`. For an objective without texts
            (:class:`seewhy.learning.pretrain.Pretrain`): data as for :func:`seewhy.fit`, or a folder of pictures.
        encoder: encoder to start from, or its name; ``"new:resnet"`` and ``"new:vit"`` have random weights.
        image, text, label, group, validation, store, progress: as for :func:`adapt`.
        **parameters: settings of the method.
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
