"""Encoders taught by a table's columns: answers to instructions, or names of classes beside captions."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.adapted import Adaptation
from ..encoders.base import Encoder
from ..encoders.prefixed import SOURCES
from ..encoders.templates import filled
from ..encoders.tuned_towers import trainable
from ..errors import DataError, InputError
from ..objectives.contrastive import Contrastive
from ..objectives.focallens import FocalLens
from ..objectives.prefix import Prefix
from ..pictures.pairs import load_pairs
from ..pictures.samples import Sample, Samples
from ..pictures.shards import shards_of
from ..progress import Progress
from ..storage.features import FeatureStore
from .instructed import Asked, Instruct, triplets
from .loop import Trained
from .prefixed import Prefixing, two_kinds
from .seen_pairs import look_at_pictures, parted

HELD_OUT = 0.1
"""Part of the pictures that what was learnt is measured on."""
Texts = tuple[str, ...]
Named = tuple[tuple[Sample, ...], Float[Tensor, "n 2"], Float[Tensor, "n 2"]]


@dataclass(frozen=True, eq=False)
class SeenColumns:
    """Pictures as an encoder pools them, and what columns say of each.

    Attributes:
        items: the pictures that can be read.
        digests: of their files.
        pooled: of each.
        said: by what a column is for, the texts of each picture; none where its cell is empty.
    """

    items: tuple[Sample, ...]
    digests: Texts
    pooled: Float[Tensor, "n p"]
    said: Mapping[str, tuple[Texts, ...]]

    def only(self, rows: Sequence[int]) -> SeenColumns:
        """Some of the pictures."""
        said = {name: tuple(texts[i] for i in rows) for name, texts in self.said.items()}
        items, digests = tuple(self.items[i] for i in rows), tuple(self.digests[i] for i in rows)
        return SeenColumns(items, digests, self.pooled[list(rows)], said)

    def first(self, name: str) -> list[str]:
        """The first text of each picture, or an empty one."""
        return [texts[0] if texts else "" for texts in self.said[name]]


@dataclass(frozen=True, eq=False)
class Taught:
    """A finished training.

    Attributes:
        adaptation: the encoder and what was trained.
        done: its steps.
        named: measure → held-out pictures with an answer, and for each whether the nearest of all answers is its own,
            and 1; before and after.
        n_held: pictures held out.
    """

    adaptation: Adaptation
    done: Trained
    named: Mapping[str, Named]
    n_held: int


class FromColumns(ABC):
    """How an encoder is taught by a table; the method says which columns, and trains."""

    objective: ClassVar[type[Contrastive]]

    @abstractmethod
    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        """What is read, by what it is for: a column, several, or those that texts usually have."""

    @abstractmethod
    def answers(self) -> Sequence[str]:
        """Those of them that must have two different values."""

    @abstractmethod
    def check(self, on: Encoder) -> None:
        """Refuse an encoder that cannot be taught so, before anything is looked at."""

    @abstractmethod
    def train(
        self, on: Encoder, own: SeenColumns, progress: Progress, checkpoint: tuple[Path, str] | None
    ) -> tuple[Adaptation, Trained]:
        """Train on what was seen."""

    @abstractmethod
    def measures(self, after: Encoder) -> Mapping[str, tuple[str, Encoder, Sequence[str]]]:
        """Measure → the column it asks for, the encoder that answers, and the templates of an answer."""

    def settings(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return asdict(self)  # type: ignore[call-overload]

    def fit(
        self,
        on: Encoder,
        source: Any,
        *,
        image: str | None = None,
        group: str | None = None,
        keep: float = 1.0,
        seed: int = 0,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Taught:
        """Read the table, look, train, and measure on a tenth that was held out.

        Args:
            on: the encoder, with words; it stays as it is.
            source: a table, JSONL, shards, a data frame or a Hugging Face data set.
            image: the column of pictures; left out, the one called image, picture, file or alike.
            group: the column that says which pictures belong together.
            keep: how much of what was learnt is kept, 0 to 1.
            seed: of what is held out.
            store: where looks are kept.
            progress: hears of progress, notes and failures.
            checkpoint: where to keep what a stopped run goes on from; the caller deletes it when the result is safe.

        Raises:
            DataError: there is no such column, one has a single value, or too few pictures can be read.
            ModelError: the encoder has no words, or none that can be trained.
            InputError: the loss is not finite.
        """
        progress = progress or Progress()
        self.check(on)
        seen = look_at_columns(on, read_columns(source, self.columns(), image, group, progress), store, progress)
        own, held = map(seen.only, parted(seen.items, seen.digests, HELD_OUT, seed))
        for name in self.answers():
            check_differs(name, own.first(name))
        seal = json.dumps([self.settings(), on.fingerprint, own.digests, dict(own.said)])
        adaptation, done = self.train(on, own, progress, None if checkpoint is None else (checkpoint, seal))
        adaptation = replace(adaptation, keep=keep, trained_on=tuple(dict.fromkeys(own.digests)))
        named: dict[str, Named] = {}
        for measure, (column, after, templates) in self.measures(adaptation.encoder()).items():
            words = sorted({*seen.first(column)} - {""})
            asked = [(i, words.index(answer)) for i, answer in enumerate(held.first(column)) if answer]
            if asked:
                before = named_right(on, held.pooled, asked, words, on.text.templates)
                right = named_right(after, held.pooled, asked, words, templates)
                named[measure] = tuple(held.items[i] for i, _ in asked), before, right
        return Taught(adaptation, done, named, len(held.items))


@dataclass(frozen=True)
class ByInstructions(FromColumns):
    """Each column answers an instruction.

    Args:
        instructions: column → the instruction, in one wording or several.
        how: the training.
    """

    objective: ClassVar[type[Contrastive]] = FocalLens

    instructions: Mapping[str, Sequence[str]]
    how: Instruct = field(default_factory=Instruct)

    def __post_init__(self) -> None:
        if not self.instructions:
            raise InputError(needs(self.objective))

    def columns(self) -> Mapping[str, str]:
        return {column: column for column in self.instructions}

    def answers(self) -> Sequence[str]:
        return list(self.instructions)

    def check(self, on: Encoder) -> None:
        _ = on.text

    def train(
        self, on: Encoder, own: SeenColumns, progress: Progress, checkpoint: tuple[Path, str] | None
    ) -> tuple[Adaptation, Trained]:
        asked = [Asked(list(said), own.first(column)) for column, said in self.instructions.items()]
        data = triplets(on, own.pooled, asked)
        head, done = self.how.trained(on, own.pooled, data, progress, checkpoint)
        told = {**self.how.provenance(data, asked, done), "columns": list(self.instructions)}
        return Adaptation(on, head, 1.0, told), done

    def measures(self, after: Encoder) -> Mapping[str, tuple[str, Encoder, Sequence[str]]]:
        said = {column: several[0] for column, several in self.instructions.items()}
        return {f"{column} under '{words}'": (column, after.under(words), ("{}",)) for column, words in said.items()}


@dataclass(frozen=True)
class ByClassesAndCaptions(FromColumns):
    """One column names classes, others are captions; a picture may have either or both.

    Args:
        label: the column of classes.
        text: the columns of captions; left out, those called text, caption, title or alike.
        how: the training.
    """

    objective: ClassVar[type[Contrastive]] = Prefix

    label: str | None
    text: Sequence[str] | None = None
    how: Prefixing = field(default_factory=Prefixing)

    def __post_init__(self) -> None:
        if not self.label:
            raise InputError(needs(self.objective))

    def columns(self) -> Mapping[str, str | Sequence[str] | None]:
        return {"class": self.label, "caption": self.text}

    def answers(self) -> Sequence[str]:
        return SOURCES

    def check(self, on: Encoder) -> None:
        trainable(on)

    def train(
        self, on: Encoder, own: SeenColumns, progress: Progress, checkpoint: tuple[Path, str] | None
    ) -> tuple[Adaptation, Trained]:
        classes = own.first("class")
        data = two_kinds(on, own.pooled, classes, own.said["caption"], self.how.objective)
        words, done = self.how.trained(on, data, progress, checkpoint)
        told = {**self.how.provenance(data, classes, done), "columns": [self.label, *(self.text or ())]}
        return Adaptation(on, words, 1.0, told), done

    def measures(self, after: Encoder) -> Mapping[str, tuple[str, Encoder, Sequence[str]]]:
        read = {source: after if source == SOURCES[-1] else after.under(source) for source in SOURCES}
        return {
            f"{self.label}, read as {source}": ("class", encoder, encoder.text.templates)
            for source, encoder in read.items()
        }


def needs(objective: type[Contrastive]) -> str:
    """What an objective was not given, and how to give it."""
    return (
        f"The objective {objective.name!r} needs {objective.needs}, and none was named. Columns of a table were "
        f"expected. Give {objective.options}."
    )


def read_columns(
    source: Any,
    columns: Mapping[str, str | Sequence[str] | None],
    image: str | None,
    group: str | None,
    progress: Progress,
) -> dict[str, dict[str, Sample]]:
    """What each column says of which picture.

    Raises:
        DataError: there is no such column, or nothing has columns.
    """
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if isinstance(source, list | tuple | Samples) or (path is not None and path.is_dir() and not shards_of(path)):
        given = "A list of pictures" if path is None else str(path)
        raise DataError(
            f"{given} has no columns. A table, or shards with JSON, was expected, with a row per picture and the "
            f"columns {', '.join(str(c) for c in columns.values() if c)}. Give one."
        )
    found = {}
    for name, column in columns.items():
        samples = load_pairs(source, image=image, text=column, group=group)
        for note in samples.notes:
            progress.note(f"{name}: {note}")
        found[name] = {item.image: item for item in samples.items}
    return found


def look_at_columns(
    on: Encoder, read: Mapping[str, Mapping[str, Sample]], store: FeatureStore | None, progress: Progress
) -> SeenColumns:
    """See each picture of which some column says something, once."""
    items = {image: item for several in read.values() for image, item in several.items()}
    kept, digests, pooled = look_at_pictures(on, list(items.values()), store, progress)
    said = {
        name: tuple(several[item.image].texts if item.image in several else () for item in kept)
        for name, several in read.items()
    }
    return SeenColumns(kept, digests, pooled, said)


def check_differs(name: str, values: Sequence[str]) -> None:
    """Raises:
    DataError: all values that are there are the same.
    """
    different = sorted({*values} - {""})
    if len(different) < 2:
        raise DataError(
            f"The column for {name!r} has {len(different)} value{'s' * (len(different) != 1)} in the pictures to train "
            f"on{''.join(f': {value!r}' for value in different)}. Two or more were expected, as one is learnt by being "
            "told from others. Name another column, or give more pictures."
        )


@torch.no_grad()
def named_right(
    encoder: Encoder,
    pooled: Float[Tensor, "n p"],
    asked: Sequence[tuple[int, int]],
    words: Sequence[str],
    templates: Sequence[str],
) -> Float[Tensor, "m 2"]:
    """Whether the nearest of all words is the right one, for rows with the number of the right one; and 1 beside it."""
    seen = pooled[[i for i, _ in asked]]
    image = normalize(encoder.text.project(seen if encoder.repooled is None else encoder.repooled(seen)), dim=1)
    text = encoder.encode_text([filled(t, word) for word in words for t in templates])
    text = normalize(text.unflatten(0, (len(words), -1)).mean(1), dim=1)
    right = ((image @ text.T).argmax(1) == torch.tensor([n for _, n in asked])).float()
    return torch.stack([right, torch.ones_like(right)], 1)
