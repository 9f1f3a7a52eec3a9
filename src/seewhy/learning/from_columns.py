"""Training of encoders on table columns."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import check_fields
from ..classifiers.encoded_set import EncodedSet
from ..encoders.base import Encoder
from ..encoders.names import filled, names_of, own_sentences
from ..errors import DataError, InputError
from ..pictures.pairs import load_pairs
from ..pictures.samples import Sample, Samples
from ..pictures.shards import shards_of
from ..progress import Progress
from ..results import Doc, Share
from ..storage.features import FeatureStore
from ..training.batches import TrainingData
from ..training.loop import Trained
from .encoders.adapted import Adaptation, Keep, Named
from .encoders.heads import place
from .objectives.contrastive import Contrastive
from .pooled import Texts
from .way import AGREES, Finished, Way

KEEPS = (0.25, 0.5, 0.75, 1.0)
"""Default values of ``keep`` to try."""
LONGEST = 200
"""Maximum length of an answer or a class name, in characters."""
FEW = 10
"""Minimum number of pictures for the check that a column holds captions."""
OF_THE_WAY = ("instructions", "label", "text", "keep", "may_forget", "held_out")
"""Settings that the training loop does not take."""
Measures = Mapping[str, tuple[str, Encoder, Sequence[str]]]


@dataclass(frozen=True)
class Columns:
    """Pictures with the texts of each column."""

    items: tuple[Sample, ...]
    columns: Mapping[str, Sequence[Texts]]

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, index: Sequence[int]) -> dict[str, list[Texts]]:
        return {name: [texts[i] for i in index] for name, texts in self.columns.items()}


@dataclass(frozen=True)
class Right:
    """Held-out results for one value of ``keep``."""

    keep: Keep
    right: Annotated[Mapping[str, Share], Doc("accuracy of the nearest value on held-out pictures, for each metric")]
    named: Named

    @property
    def gain(self) -> float:
        return sum(self.right.values()) / max(1, len(self.right))


@dataclass(frozen=True, eq=False)
class Judged:
    """The similarity of each picture to each value of a column, before and after training."""

    items: tuple[Sample, ...]
    words: Texts
    own: Int[Tensor, " m"]
    before: Float[Tensor, "m k"]
    after: Float[Tensor, "m k"]

    def right(self, scores: Float[Tensor, "m k"]) -> Float[Tensor, "m 2"]:
        """Return a row ``(hit, 1)`` per picture; ``hit`` is 1 if the nearest value of the column is the correct one."""
        hits = (scores.argmax(1) == self.own).float()
        return torch.stack([hits, torch.ones_like(hits)], 1)


class Taught(Finished[EncodedSet, Right]):
    """The result of a training on table columns."""


@dataclass(frozen=True, kw_only=True)
class FromColumns(Way[EncodedSet, Right]):
    """Training of an encoder on table columns.

    Args:
        objective: loss to train with.
    """

    taught_by: ClassVar[type[Contrastive]]
    form: ClassVar[str]
    all_of_it: ClassVar[Mapping[str, Any]] = {"keep": 1.0}
    stays: ClassVar[str] = "this objective does not train the image encoder"
    result: ClassVar[type[Finished[Any, Any]]] = Taught

    objective: Contrastive

    def __post_init__(self) -> None:
        if not next(iter(self.columns_read().values()), None):
            raise InputError(needs(self.taught_by))
        check_fields(self, "adapt")

    @abstractmethod
    def columns_read(self) -> Mapping[str, str | Sequence[str] | None]:
        """Return the names of the columns to read, by role."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return the columns with answers or class names, without captions."""

    def plain(self, on: Encoder, part: Any, pooled: Float[Tensor, "n f"]) -> Float[Tensor, "n p"]:
        """Return pooled vectors of the original encoder, from stored features."""
        return pooled

    @abstractmethod
    def measures(self, after: Encoder) -> Measures:
        """Return the column, encoder and text templates of each metric."""

    @abstractmethod
    def counts(self, own: EncodedSet, data: TrainingData) -> dict[str, Any]:
        """Return entries about the columns for the training record."""

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> Columns:
        return read_columns(source, self.columns_read(), columns.get("image"), columns.get("group"), progress)

    def n_texts(self, read: Columns | EncodedSet) -> int:
        return len({text for several in read.columns.values() for texts in several for text in texts})

    def some(self, read: Columns, n: int) -> Columns:
        rows: set[int] = set()
        for several in read.columns.values():  # each column says something of some
            known = [i for i, texts in enumerate(several) if texts]
            part = max(2, n // len(read.columns))
            rows |= set(known[:: max(1, len(known) // part)][:part])
        return Columns(tuple(read.items[i] for i in sorted(rows)), read.rows(sorted(rows)))

    def look(self, on: Encoder, read: Columns, store: FeatureStore | None, progress: Progress) -> EncodedSet:
        pictures = EncodedSet.of(on, read.items, store=store, progress=progress)
        number = {item.image: i for i, item in enumerate(read.items)}
        return replace(pictures, columns=read.rows([number[item.image] for item in pictures.items]))

    def check(self, own: EncodedSet, progress: Progress) -> None:
        for name in own.columns:
            check_values(name, own, name in self.names(), progress)

    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in OF_THE_WAY}

    def seal(self, own: EncodedSet) -> list[Any]:
        return [self.settings(), dict(self.columns_read()), dict(own.columns)]

    def keeps(self) -> Sequence[float]:
        return KEEPS

    def measured(
        self, on: Encoder, part: Any, own: EncodedSet, chosen_on: EncodedSet, held: EncodedSet, progress: Progress
    ) -> Callable[[float], Right]:
        def measured(keep: float) -> Right:
            judged = self.judge(on, part, keep, own, held, chosen_on)
            right = {name: round(float(j.right(j.after)[:, 0].mean()), 4) for name, j in judged.items()}
            return Right(keep, right, right.pop(AGREES, None))

        return measured

    def told(self, own: EncodedSet, data: TrainingData, done: Trained) -> dict[str, Any]:
        sizes = {"n_pictures": len(own), "n_texts": self.n_texts(own), "loss": round(done.history[-1]["loss"], 4)}
        given = {**self.settings(), "objective": self.objective.name, "train": self.form}
        return {**given, **self.counts(own, data), **sizes}

    def judge(
        self, on: Encoder, part: Any, keep: float, own: EncodedSet, chosen_on: EncodedSet, held: EncodedSet
    ) -> dict[str, Judged]:
        """Return the metrics on held-out pictures, before and after training."""
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
        if (own_classes := agreement(on, after, held.items, plain)) is not None:
            found[AGREES] = own_classes
        return found


def read_columns(
    source: Any, columns: Mapping[str, Any], image: str | None, group: str | None, progress: Progress
) -> Columns:
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if isinstance(source, list | tuple | Samples) or (path is not None and path.is_dir() and not shards_of(path)):
        given = "A list of pictures" if path is None else str(path)
        raise DataError(
            f"{given} has no columns. Give a table, or shards with JSON, with one row per picture and the "
            f"columns {', '.join(str(c) for c in columns.values() if c)}."
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


def check_values(name: str, own: EncodedSet, are_names: bool, progress: Progress) -> None:
    """Check that a column has at least two values, and warn if a column of names seems to hold captions."""
    values = own.first(name)
    different = sorted({*values} - {""})
    if len(different) < 2:
        raise DataError(
            f"The column for {name!r} must have at least 2 different values in the training pictures, got "
            f"{len(different)}{''.join(f' ({value!r})' for value in different)}. Give another column, or add pictures."
        )
    if not are_names:
        return
    for value, item in zip(values, own.items, strict=True):
        if len(value) > LONGEST:
            raise DataError(
                f"The column for {name!r} must have values of at most {LONGEST} characters, got {len(value)} for "
                f"{item.image}: {value[:30]!r}… Shorten the value, or name another column."
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
    """Return cosines of pictures with words, averaged over templates."""
    image = normalize(encoder.text.project(encoder.beyond(pooled).pooled), dim=1)
    text = encoder.encode_text([filled(t, word) for word in words for t in templates])
    return image @ normalize(text.unflatten(0, (len(words), -1)).mean(1), dim=1).T


def needs(objective: type[Contrastive]) -> str:
    """Return the error message for an objective without the columns that it needs."""
    return (
        f"The objective {objective.name!r} needs {objective.needs}, but no columns were named. Name columns of the "
        f"table: {objective.options}."
    )


@torch.no_grad()
def agreement(on: Encoder, after: Encoder, items: Sequence[Sample], pooled: Float[Tensor, "n p"]) -> Judged | None:
    """Return, for each picture, whether the nearest class name is the prediction; ``None`` without class names."""
    if on.classifier is None or len(on.classes) != on.classifier.out_features:
        return None
    own, names = on.classifier(pooled).argmax(1), names_of(on)

    def scores(encoder: Encoder) -> Tensor:
        tower = encoder.text
        text = place(on.text, own_sentences(on.text, names)) if tower is on.text else tower.encode_text(names)
        return normalize(tower.project(pooled), dim=1) @ text.T

    before = scores(on)
    return Judged(tuple(items), tuple(names), own, before, before if after.text is on.text else scores(after))
