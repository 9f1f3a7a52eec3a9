"""Pictures and their texts as an encoder's vectors, each computed once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.encoded_set import parted
from ..encoders.base import Encoder, TextTower, TrainableText
from ..encoders.names import own_vectors, sentence_fingerprint
from ..encoders.stream import encode_stream
from ..errors import DataError
from ..pictures.samples import Sample, split
from ..progress import Progress
from ..storage.features import FeatureStore, text_key
from .encoders.heads import place

LONG = 200
"""Characters above which a text may be longer than the text half's limit."""
TEXTS = 512
"""Sentences that are encoded, and stored, at once."""
Texts = tuple[str, ...]
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\s*[\r\n]+\s*")
_ORDINAL = re.compile(r"\W*\d*\W*")


@dataclass(frozen=True, eq=False)
class PooledSet:
    """Readable pictures as an encoder pools them."""

    items: tuple[Sample, ...]
    digests: Texts
    pooled: Float[Tensor, "p d"]
    said: Mapping[str, tuple[Texts, ...]] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def classes(self) -> Texts:
        """The pictures' class names, if every picture has one; none otherwise."""
        labels = {item.label for item in self.items}
        return () if "" in labels else tuple(sorted(labels))

    def first(self, column: str) -> list[str]:
        """Return the first text of each picture, or an empty one."""
        return [texts[0] if texts else "" for texts in self.said[column]]

    def only(self, rows: Sequence[int]) -> Self:
        """Return a subset of the pictures."""
        own: dict[str, Any] = {"pooled": self.pooled[list(rows)], "said": rows_of(self.said, rows)}
        own |= {name: tuple(getattr(self, name)[i] for i in rows) for name in ("items", "digests")}
        return replace(self, **own, **self._texts_of(rows))

    def _texts_of(self, rows: Sequence[int]) -> dict[str, Any]:
        """What else is kept of some of them."""
        return {}

    def split(self, held_out: float, seed: int, *, by_class: bool = False) -> tuple[Self, Self]:
        """Split into training and held-out pictures, without copies or groups on both sides.

        With ``by_class`` a share of every class is held out, if there are classes and no groups.
        """
        if by_class and self.classes and not any(item.group for item in self.items):
            out = split([item.label for item in self.items], self.digests, held_out, seed)
            own, held = ([i for i, flag in enumerate(out) if flag is side] for side in (False, True))
        else:
            own, held = parted(self.items, self.digests, held_out, seed)
        return self.only(own), self.only(held)


@dataclass(frozen=True, eq=False)
class PooledPairs(PooledSet):
    """Pictures and texts as vectors."""

    texts: Texts
    sentences: Float[Tensor, "m e"]
    pairs: Int[Tensor, "k 2"]

    @property
    def owner(self) -> Int[Tensor, " k"]:
        """Return the picture of each pair."""
        return self.pairs[:, 0]

    @property
    def choices(self) -> list[list[int]]:
        """Return the texts of each picture, by their numbers."""
        found: list[list[int]] = [[] for _ in self.items]
        for picture, text in self.pairs.tolist():
            found[picture].append(text)
        return found

    def _texts_of(self, rows: Sequence[int]) -> dict[str, Any]:
        place = torch.full((len(self),), -1)
        place[list(rows)] = torch.arange(len(rows))
        pairs = torch.stack([place[self.pairs[:, 0]], self.pairs[:, 1]], 1)
        pairs = pairs[pairs[:, 0] >= 0]
        used, text = pairs[:, 1].unique(return_inverse=True)
        order = pairs[:, 0].argsort(stable=True)
        return {
            "texts": tuple(self.texts[i] for i in used.tolist()),
            "sentences": self.sentences[used],
            "pairs": torch.stack([pairs[:, 0], text], 1)[order],
        }


def rows_of(said: Mapping[str, tuple[Texts, ...]], rows: Sequence[int]) -> dict[str, tuple[Texts, ...]]:
    """Return the texts of some pictures."""
    return {name: tuple(texts[i] for i in rows) for name, texts in said.items()}


def encode_pictures(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> PooledSet:
    """Encode the readable pictures; the others are named."""
    kept, digests, pooled = [], [], []
    stream = encode_stream(encoder, [item.source for item in items], store=store)
    for item, encoded in progress.results(items, stream, "Looking at pictures"):
        kept.append(item)
        digests.append(encoded.digest)
        pooled.append(encoded.pooled[0])
    if not kept:
        reason = f"; the first: {progress.failures[0].error}" if progress.failures else ""
        raise DataError(
            f"None of the {len(items)} pictures can be read{reason}. Expected files of pictures, with paths "
            "relative to their table. Check the column of images."
        )
    return PooledSet(tuple(kept), tuple(digests), torch.stack(pooled))


def encode_pairs(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> PooledPairs:
    """Encode every picture and every text once; unreadable pictures are named and left out."""
    pictures = encode_pictures(encoder, items, store, progress)
    if isinstance(tower := encoder.text, TrainableText):
        long = [(item.image, text) for item in pictures.items for text in item.texts if len(text) > LONG]
        cut = [image for image, text in long if tower.n_cut([text])]
        if cut:
            progress.note(
                f"{len(cut)} text(s) are longer than the text encoder reads, and their ends are ignored; the "
                f"first is of {cut[0]}"
            )
    texts = _texts(encoder, [item.texts for item in pictures.items], store, progress)
    return PooledPairs(pictures.items, pictures.digests, pictures.pooled, *texts)


def _texts(
    encoder: Encoder, said: Sequence[Texts], store: FeatureStore | None, progress: Progress
) -> tuple[Texts, Tensor, Tensor]:
    """Each text once, its vector, and which picture has which."""
    numbers: dict[str, int] = {}
    pairs = [(i, numbers.setdefault(text, len(numbers))) for i, texts in enumerate(said) for text in texts]
    return tuple(numbers), read_texts(encoder.text, list(numbers), store, progress), torch.tensor(pairs)


def read_texts(
    tower: TextTower, texts: Sequence[str], store: FeatureStore | None, progress: Progress
) -> Float[Tensor, "m e"]:
    """Encode sentences to vectors of their own; each comes from the store or is added to it."""
    parts = []
    chunks = [list(texts[i : i + TEXTS]) for i in range(0, len(texts), TEXTS)]
    for chunk in progress.track(chunks, "Reading texts", len(chunks)):
        keys = [text_key(text, f"{sentence_fingerprint(tower)} sentences") for text in chunk]
        known = {} if store is None else store.get_texts(keys)
        missing = {k: t for k, t in zip(keys, chunk, strict=True) if k not in known}
        if missing:
            fresh = dict(zip(missing, own_vectors(tower, list(missing.values())).clone(), strict=True))
            if store is not None:
                store.put_texts(fresh.items())
            known |= fresh
        parts.append(torch.stack([known[k] for k in keys]))
    return torch.cat(parts)


def spans(texts: Sequence[str], of: str = "text") -> tuple[str, ...]:
    """Return the spans that may be drawn from the texts of a picture: whole texts, their sentences, or both; at least
    one per text.

    >>> spans(["1. No effusion. A nodule of 2.5 cm."], "sentence")
    ('No effusion.', 'A nodule of 2.5 cm.')
    """
    if of == "text":
        return tuple(texts)
    found: dict[str, None] = {}
    for text in texts:
        parts = [part.strip() for part in _ENDS.split(text) if not _ORDINAL.fullmatch(part)] or [text.strip()]
        if of == "both":
            found[text.strip()] = None
        found |= dict.fromkeys(parts)
    return tuple(found)


def spanned(
    encoder: Encoder, encoded: PooledPairs, of: str, store: FeatureStore | None, progress: Progress
) -> PooledPairs:
    """Return the same pictures with the spans of their texts that an objective compares."""
    if of == "text":
        return encoded
    said = [spans([encoded.texts[j] for j in texts], of) for texts in encoded.choices]
    texts, sentences, pairs = _texts(encoder, said, store, progress)
    return replace(encoded, texts=texts, sentences=sentences, pairs=pairs)


def findings(encoded: PooledSet) -> Float[Tensor, "p f"] | None:
    """Return 1 for each picture's findings, its class or several separated by ``|``; ``None`` if a picture has none."""
    found = [{name.strip() for name in item.label.split("|")} - {""} for item in encoded.items]
    if not all(found):
        return None
    names = sorted(set().union(*found))
    return torch.tensor([[float(name in own) for name in names] for own in found])


@torch.no_grad()
def placed(encoder: Encoder, encoded: PooledPairs) -> Float[Tensor, "m d"]:
    """Return each text as a unit vector in the space of the pictures."""
    return torch.cat([place(encoder.text, part) for part in encoded.sentences.split(4096)])


@torch.no_grad()
def joint_vectors(encoder: Encoder, encoded: PooledPairs) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
    """Return pictures, and the text of each pair, as unit vectors in the space they share."""
    image = normalize(encoder.text.project(encoded.pooled), dim=1)
    return image, placed(encoder, encoded)[encoded.pairs[:, 1]]
