"""What a table's columns say of pictures, as an encoder sees them, and whether the right value is the nearest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.names import filled
from ..errors import DataError
from ..pictures.pairs import load_pairs
from ..pictures.samples import Sample, Samples
from ..pictures.shards import shards_of
from ..progress import Progress
from ..storage.features import FeatureStore
from .seen_pairs import look_at_pictures, parted

Texts = tuple[str, ...]
LONGEST = 200
"""Signs of an answer or of a class's name; a longer one is no name, but a text."""
FEW = 10
"""Pictures below which it says nothing that most have a value of their own."""


@dataclass(frozen=True)
class ReadColumns:
    """Pictures, and what columns say of each.

    Attributes:
        items: pictures of which one of them says something.
        said: by what a column is for, the texts of each picture; none where its cell is empty.
    """

    items: tuple[Sample, ...]
    said: Mapping[str, tuple[Texts, ...]]

    def __len__(self) -> int:
        return len(self.items)

    def only(self, rows: Sequence[int]) -> ReadColumns:
        """Some of the pictures."""
        return ReadColumns(tuple(self.items[i] for i in rows), _rows_of(self.said, rows))

    def look(self, on: Encoder, store: FeatureStore | None, progress: Progress) -> SeenColumns:
        """See each picture once."""
        kept, digests, pooled = look_at_pictures(on, self.items, store, progress)
        number = {item.image: i for i, item in enumerate(self.items)}
        return SeenColumns(kept, digests, pooled, _rows_of(self.said, [number[item.image] for item in kept]))


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

    def __len__(self) -> int:
        return len(self.items)

    def only(self, keep: Sequence[int]) -> SeenColumns:
        """Some of the pictures."""
        items, digests = tuple(self.items[i] for i in keep), tuple(self.digests[i] for i in keep)
        return SeenColumns(items, digests, self.pooled[list(keep)], _rows_of(self.said, keep))

    def split(self, held_out: float, seed: int) -> tuple[SeenColumns, SeenColumns]:
        """What is trained on and what is held out; see :meth:`.seen_pairs.SeenPairs.split`."""
        own, held = parted(self.items, self.digests, held_out, seed)
        return self.only(own), self.only(held)

    def first(self, name: str) -> list[str]:
        """The first text of each picture, or an empty one."""
        return [texts[0] if texts else "" for texts in self.said[name]]


def _rows_of(said: Mapping[str, tuple[Texts, ...]], rows: Sequence[int]) -> dict[str, tuple[Texts, ...]]:
    return {name: tuple(texts[i] for i in rows) for name, texts in said.items()}


@dataclass(frozen=True, eq=False)
class Judged:
    """How near pictures are to every value of a column, before and after.

    Attributes:
        items: pictures whose own value is known.
        words: the values.
        own: the number of each picture's.
        before: cosines.
        after: the same afterwards.
    """

    items: tuple[Sample, ...]
    words: Texts
    own: Int[Tensor, " m"]
    before: Float[Tensor, "m k"]
    after: Float[Tensor, "m k"]

    def right(self, scores: Float[Tensor, "m k"]) -> Float[Tensor, "m 2"]:
        """Whether each picture's nearest value is its own; and 1 beside it."""
        hits = (scores.argmax(1) == self.own).float()
        return torch.stack([hits, torch.ones_like(hits)], 1)


def read_columns(
    source: Any,
    columns: Mapping[str, str | Sequence[str] | None],
    image: str | None,
    group: str | None,
    progress: Progress,
) -> ReadColumns:
    """What each column says of which picture."""
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if isinstance(source, list | tuple | Samples) or (path is not None and path.is_dir() and not shards_of(path)):
        given = "A list of pictures" if path is None else str(path)
        raise DataError(
            f"{given} has no columns. A table, or shards with JSON, was expected, with a row per picture and the "
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
    said = {name: tuple(one[i].texts if i in one else () for i in items) for name, one in found.items()}
    return ReadColumns(tuple(items.values()), said)


def check_values(name: str, own: SeenColumns, are_names: bool, progress: Progress) -> None:
    """Refuse a column from which nothing can be learnt, and say where captions seem to stand in the place of names."""
    values = own.first(name)
    different = sorted({*values} - {""})
    if len(different) < 2:
        raise DataError(
            f"The column for {name!r} has {len(different)} value{'s' * (len(different) != 1)} in the pictures to train "
            f"on{''.join(f': {value!r}' for value in different)}. Two or more were expected, as one is learnt by being "
            "told from others. Name another column, or give more pictures."
        )
    if not are_names:
        return
    for value, item in zip(values, own.items, strict=True):
        if len(value) > LONGEST:
            raise DataError(
                f"The column for {name!r} holds a text of {len(value)} signs for {item.image}, which begins with "
                f"{value[:30]!r}. Names of at most {LONGEST} signs were expected. Shorten it, or name another column."
            )
    n = sum(map(bool, values))
    if n >= FEW and len(different) > 0.8 * n:
        progress.note(
            f"the column for {name!r} has {len(different)} different values in {n} pictures, such as "
            f"{different[0]!r}: where these are captions, name another column"
        )


@torch.no_grad()
def cosines(
    encoder: Encoder, pooled: Float[Tensor, "n p"], words: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "n k"]:
    """Of pictures, as the encoder's base pools them, with words in every template."""
    image = normalize(encoder.text.project(pooled if encoder.repooled is None else encoder.repooled(pooled)), dim=1)
    text = encoder.encode_text([filled(t, word) for word in words for t in templates])
    return image @ normalize(text.unflatten(0, (len(words), -1)).mean(1), dim=1).T
