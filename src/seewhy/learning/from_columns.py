"""Encoders trained on a table's columns: the texts of each picture, and whether the right value is the nearest."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import InnerPart, Part, check_fields
from ..encoders.base import Encoder
from ..encoders.names import filled, names_of, own_sentences
from ..errors import DataError, InputError
from ..pictures.pairs import load_pairs
from ..pictures.samples import Sample, Samples
from ..pictures.shards import shards_of
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.batches import TrainingData
from ..training.loop import Trained
from .encoders.adapted import Adaptation
from .encoders.heads import place
from .objectives.contrastive import Contrastive
from .pooled import PooledSet, Texts, encode_pictures, rows_of
from .way import AGREES, Finished, Way

KEEPS = (0.25, 0.5, 0.75, 1.0)
"""Values of ``keep`` to try if the user gives none."""
LONGEST = 200
"""Most characters of an answer or a class name; a longer value counts as a text."""
FEW = 10
"""With fewer pictures, unique values in most rows do not count as a sign of captions."""
OF_THE_WAY = ("instructions", "label", "text", "keep", "may_forget", "held_out")
"""Settings that the inner training does not take."""
Measures = Mapping[str, tuple[str, Encoder, Sequence[str]]]


@dataclass(frozen=True)
class Columns:
    """Pictures with a value in some column, and the texts of each by the column's role."""

    items: tuple[Sample, ...]
    said: Mapping[str, tuple[Texts, ...]]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Right:
    """The result of one ``keep`` on held-out pictures."""

    keep: float
    right: Mapping[str, float]
    named: float | None

    @property
    def gain(self) -> float:
        """The mean of all measures."""
        return sum(self.right.values()) / max(1, len(self.right))


@dataclass(frozen=True, eq=False)
class Judged:
    """Similarity of pictures to every value of a column, before and after."""

    items: tuple[Sample, ...]
    words: Texts
    own: Int[Tensor, " m"]
    before: Float[Tensor, "m k"]
    after: Float[Tensor, "m k"]

    def right(self, scores: Float[Tensor, "m k"]) -> Float[Tensor, "m 2"]:
        """Return whether each picture's nearest value is its own; with 1 as weight."""
        hits = (scores.argmax(1) == self.own).float()
        return torch.stack([hits, torch.ones_like(hits)], 1)


class Taught(Finished[PooledSet, Right]):
    """A finished training on columns."""


@dataclass(frozen=True, kw_only=True)
class FromColumns(Way[PooledSet, Right]):
    """Trains an encoder on a table; the method says which columns it reads, and what it learns from them.

    Args:
        objective: loss to train with.
        weight_decay: weight decay of everything but biases, the temperature and prefixes, from 0.
        seed: seed for weights, order and drawn texts.
        keep: share of what was learnt to keep, 0 (the encoder as it was) to 1 (all); default: chosen on
            held-out pictures, within ``may_forget``.
        may_forget: most agreement with the encoder's own classes that a chosen ``keep`` may cost, 0 to 1; lower
            it to forget less.
        held_out: share of the pictures to hold out, 0 to 1; settings are chosen and figures measured on them.
    """

    taught_by: ClassVar[type[Contrastive]]
    form: ClassVar[str]
    all_of_it: ClassVar[Mapping[str, Any]] = {"keep": 1.0}
    stays: ClassVar[str] = "pictures stay as the encoder sees them: their tower is not trained by this objective"
    result: ClassVar[type[Finished[Any, Any]]] = Taught

    objective: Contrastive
    weight_decay: float = 0.1
    seed: int = 0
    keep: Part | None = None
    may_forget: Part = 0.1
    held_out: InnerPart = 0.1

    def __post_init__(self) -> None:
        if not next(iter(self.columns_read().values()), None):
            raise InputError(needs(self.taught_by))
        check_fields(self, "adapt")

    @abstractmethod
    def columns_read(self) -> Mapping[str, str | Sequence[str] | None]:
        """Return the columns to read, by role: a column, several, or those that usually hold texts."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return those columns that hold answers or names, not captions."""

    def plain(self, on: Encoder, part: Any, pooled: Float[Tensor, "n f"]) -> Float[Tensor, "n p"]:
        """Return pictures as the encoder pools them, from the encoded ones."""
        return pooled

    @abstractmethod
    def measures(self, after: Encoder) -> Measures:
        """Return measure → its column, the encoder that answers, and the templates of an answer."""

    @abstractmethod
    def counts(self, own: PooledSet, data: TrainingData) -> dict[str, Any]:
        """Return what a card says about the columns."""

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> Columns:
        return read_columns(source, self.columns_read(), columns.get("image"), columns.get("group"), progress)

    def n_texts(self, read: Columns | PooledSet) -> int:
        return len({text for several in read.said.values() for texts in several for text in texts})

    def some(self, read: Columns, n: int) -> Columns:
        rows: set[int] = set()
        for several in read.said.values():  # each column says something of some
            known = [i for i, texts in enumerate(several) if texts]
            part = max(2, n // len(read.said))
            rows |= set(known[:: max(1, len(known) // part)][:part])
        return Columns(tuple(read.items[i] for i in sorted(rows)), rows_of(read.said, sorted(rows)))

    def look(self, on: Encoder, read: Columns, store: FeatureStore | None, progress: Progress) -> PooledSet:
        pictures = encode_pictures(on, read.items, store, progress)
        number = {item.image: i for i, item in enumerate(read.items)}
        return replace(pictures, said=rows_of(read.said, [number[item.image] for item in pictures.items]))

    def check(self, own: PooledSet, progress: Progress) -> None:
        for name in own.said:
            check_values(name, own, name in self.names(), progress)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the inner training."""
        return {name: value for name, value in asdict(self).items() if name not in OF_THE_WAY}

    def seal(self, own: PooledSet) -> list[Any]:
        return [self.settings(), dict(self.columns_read()), dict(own.said)]

    def keeps(self) -> Sequence[float]:
        return KEEPS

    def measured(
        self, on: Encoder, part: Any, own: PooledSet, chosen_on: PooledSet, held: PooledSet, progress: Progress
    ) -> Callable[[float], Right]:
        def measured(keep: float) -> Right:
            judged = self.judge(on, part, keep, own, held, chosen_on)
            right = {name: round(float(j.right(j.after)[:, 0].mean()), 4) for name, j in judged.items()}
            return Right(keep, right, right.pop(AGREES, None))

        return measured

    def told(self, own: PooledSet, data: TrainingData, done: Trained) -> dict[str, Any]:
        sizes = {"n_pictures": len(own), "n_texts": self.n_texts(own), "loss": round(done.history[-1]["loss"], 4)}
        given = {**self.settings(), "objective": self.objective.name, "train": self.form}
        return {**given, **self.counts(own, data), **sizes}

    def judge(
        self, on: Encoder, part: Any, keep: float, own: PooledSet, chosen_on: PooledSet, held: PooledSet
    ) -> dict[str, Judged]:
        """Return the measures on held-out pictures for this ``keep``, beside those of the original encoder."""
        after, found = Adaptation(on, part, keep).encoder(), {}
        plain = self.plain(on, part, held.pooled)
        for measure, (column, encoder, templates) in self.measures(after).items():
            words = sorted({*own.first(column), *held.first(column), *chosen_on.first(column)} - {""})
            given = held.first(column)
            rows = [i for i, answer in enumerate(given) if answer]
            if rows:
                pooled, right = held.pooled[rows], torch.tensor([words.index(given[i]) for i in rows])
                before = cosines(on, plain[rows], words, on.text.templates)
                now = cosines(encoder, pooled, words, templates) if keep else before
                found[measure] = Judged(tuple(held.items[i] for i in rows), tuple(words), right, before, now)
        if (own_classes := agreement(on, after, replace(held, pooled=plain))) is not None:
            found[AGREES] = own_classes
        return found


def read_columns(
    source: Any, columns: Mapping[str, Any], image: str | None, group: str | None, progress: Progress
) -> Columns:
    """Return the value of each column for each picture."""
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if isinstance(source, list | tuple | Samples) or (path is not None and path.is_dir() and not shards_of(path)):
        given = "A list of pictures" if path is None else str(path)
        raise DataError(
            f"{given} has no columns. Expected a table, or shards with JSON, with one row per picture and the "
            f"columns {', '.join(str(c) for c in columns.values() if c)}. Give one."
        )
    found: dict[str, dict[str, Sample]] = {}
    notes: dict[str, list[str]] = {}
    for name, column in columns.items():
        samples = load_pairs(source, image=image, text=column, group=group)
        for note in samples.notes:
            notes.setdefault(note, []).append(name)
        found[name] = {item.image: item for item in samples.items}
    for note, names in notes.items():
        progress.note(note if len(names) == len(columns) else f"{', '.join(names)}: {note}")
    items = {image: item for several in found.values() for image, item in several.items()}
    said = {name: tuple(known[i].texts if i in known else () for i in items) for name, known in found.items()}
    return Columns(tuple(items.values()), said)


def check_values(name: str, own: PooledSet, are_names: bool, progress: Progress) -> None:
    """Refuse a column that teaches nothing, and note a column of names that seems to hold captions."""
    values = own.first(name)
    different = sorted({*values} - {""})
    if len(different) < 2:
        raise DataError(
            f"The column for {name!r} has {len(different)} value{'s' * (len(different) != 1)} in the pictures to "
            f"train on{''.join(f': {value!r}' for value in different)}. Expected at least 2: there must be "
            "something to distinguish. Name another column, or give more pictures."
        )
    if not are_names:
        return
    for value, item in zip(values, own.items, strict=True):
        if len(value) > LONGEST:
            raise DataError(
                f"The column for {name!r} holds a text of {len(value)} characters for {item.image}; it begins with "
                f"{value[:30]!r}. Expected names of at most {LONGEST} characters. Shorten it, or name another column."
            )
    n = sum(map(bool, values))
    if n >= FEW and len(different) > 0.8 * n:
        progress.note(
            f"the column for {name!r} has {len(different)} different values in {n} pictures, such as "
            f"{different[0]!r}; if these are captions, name another column"
        )


@torch.no_grad()
def cosines(
    encoder: Encoder, pooled: Float[Tensor, "n p"], words: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "n k"]:
    """Return cosines of pictures, as the encoder's base pools them, with words in every template."""
    image = normalize(encoder.text.project(encoder.beyond(pooled).pooled), dim=1)
    text = encoder.encode_text([filled(t, word) for word in words for t in templates])
    return image @ normalize(text.unflatten(0, (len(words), -1)).mean(1), dim=1).T


def needs(objective: type[Contrastive]) -> str:
    """Return the error for an objective without the columns it needs, with how to name them."""
    return (
        f"The objective {objective.name!r} needs {objective.needs}, and no columns were named. Expected columns of "
        f"a table. Give {objective.options}."
    )


@torch.no_grad()
def agreement(on: Encoder, after: Encoder, held: PooledSet) -> Judged | None:
    """Return whether the class with the nearest name is the prediction of the encoder's last layer; ``None`` without
    names.
    """
    if on.classifier is None or len(on.classes) != on.classifier.out_features:
        return None
    own, names = on.classifier(held.pooled).argmax(1), names_of(on)

    def scores(encoder: Encoder) -> Tensor:
        tower = encoder.text
        text = place(on.text, own_sentences(on.text, names)) if tower is on.text else tower.encode_text(names)
        return normalize(tower.project(held.pooled), dim=1) @ text.T

    before = scores(on)
    return Judged(held.items, tuple(names), own, before, before if after.text is on.text else scores(after))
