"""Encoded pictures with their texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.encoded_set import EncodedSet, parted
from ..encoders.base import Encoder, TextTower, TrainableText
from ..encoders.names import own_vectors, sentence_fingerprint
from ..pictures.samples import Sample, split
from ..progress import Progress
from ..storage.features import FeatureStore, text_key
from .encoders.heads import place

LONG = 200
"""Length in characters above which a text is checked against the text encoder's limit."""
TEXTS = 512
"""Sentences per batch."""
Texts = tuple[str, ...]
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\s*[\r\n]+\s*")
_ORDINAL = re.compile(r"\W*\d*\W*")


@dataclass(frozen=True, eq=False)
class PooledSet:
    """Pooled vectors of pictures."""

    items: tuple[Sample, ...]
    digests: Texts
    pooled: Float[Tensor, "p d"]
    said: Mapping[str, tuple[Texts, ...]] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def classes(self) -> Texts:
        """Distinct class names; empty if any picture has none."""
        labels = {item.label for item in self.items}
        return () if "" in labels else tuple(sorted(labels))

    def first(self, column: str) -> list[str]:
        """Return the first text of each picture in a column, or an empty string."""
        return [texts[0] if texts else "" for texts in self.said[column]]

    def only(self, rows: Sequence[int]) -> Self:
        own: dict[str, Any] = {"pooled": self.pooled[list(rows)], "said": rows_of(self.said, rows)}
        own |= {name: tuple(getattr(self, name)[i] for i in rows) for name in ("items", "digests")}
        return replace(self, **own, **self._texts_of(rows))

    def _texts_of(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return further fields of a subset."""
        return {}

    def split(self, held_out: float, seed: int, *, by_class: bool = False) -> tuple[Self, Self]:
        """Split into training and held-out pictures, keeping copies and groups together.

        With ``by_class``, the same fraction of every class is held out, if there are classes and no groups.
        """
        if by_class and self.classes and not any(item.group for item in self.items):
            out = split([item.label for item in self.items], self.digests, held_out, seed)
            own, held = ([i for i, flag in enumerate(out) if flag is side] for side in (False, True))
        else:
            own, held = parted(self.items, self.digests, held_out, seed)
        return self.only(own), self.only(held)


@dataclass(frozen=True, eq=False)
class PooledPairs(PooledSet):
    """Pooled vectors of pictures, and vectors of their texts."""

    texts: Texts
    sentences: Float[Tensor, "m e"]
    pairs: Int[Tensor, "k 2"]

    @property
    def owner(self) -> Int[Tensor, " k"]:
        return self.pairs[:, 0]

    @property
    def choices(self) -> list[list[int]]:
        """Return the text indices of each picture."""
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
    return {name: tuple(texts[i] for i in rows) for name, texts in said.items()}


def encode_pictures(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> PooledSet:
    """Encode all readable pictures, and report unreadable pictures."""
    read = EncodedSet.of(encoder, items, store=store, progress=progress)
    return PooledSet(tuple(read.items), read.digests, read.pooled)


def encode_pairs(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> PooledPairs:
    """Encode all readable pictures and their texts, and report unreadable pictures."""
    pictures = encode_pictures(encoder, items, store, progress)
    if isinstance(tower := encoder.text, TrainableText):
        long = [(item.image, text) for item in pictures.items for text in item.texts if len(text) > LONG]
        cut = [image for image, text in long if tower.n_cut([text])]
        if cut:
            progress.note(
                f"{len(cut)} text(s) are too long for the text encoder and are cut, for example the text of {cut[0]}"
            )
    texts = _texts(encoder, [item.texts for item in pictures.items], store, progress)
    return PooledPairs(pictures.items, pictures.digests, pictures.pooled, *texts)


def _texts(
    encoder: Encoder, said: Sequence[Texts], store: FeatureStore | None, progress: Progress
) -> tuple[Texts, Tensor, Tensor]:
    """Return distinct texts, their vectors, and (picture, text) index pairs."""
    numbers: dict[str, int] = {}
    pairs = [(i, numbers.setdefault(text, len(numbers))) for i, texts in enumerate(said) for text in texts]
    return tuple(numbers), read_texts(encoder.text, list(numbers), store, progress), torch.tensor(pairs)


def read_texts(
    tower: TextTower, texts: Sequence[str], store: FeatureStore | None, progress: Progress
) -> Float[Tensor, "m e"]:
    """Return text vectors, from the store where possible."""
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
    """Return the texts, their sentences, or both; each text gives at least one.

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
    """Return the pictures with their texts split as an objective requires."""
    if of == "text":
        return encoded
    said = [spans([encoded.texts[j] for j in texts], of) for texts in encoded.choices]
    texts, sentences, pairs = _texts(encoder, said, store, progress)
    return replace(encoded, texts=texts, sentences=sentences, pairs=pairs)


def findings(encoded: PooledSet) -> Float[Tensor, "p f"] | None:
    """Return a 0/1 matrix of findings from labels such as ``"a|b"``; ``None`` if a label is missing."""
    found = [{name.strip() for name in item.label.split("|")} - {""} for item in encoded.items]
    if not all(found):
        return None
    names = sorted(set().union(*found))
    return torch.tensor([[float(name in own) for name in names] for own in found])


@torch.no_grad()
def placed(encoder: Encoder, encoded: PooledPairs) -> Float[Tensor, "m d"]:
    """Return unit text vectors in the image space."""
    return torch.cat([place(encoder.text, part) for part in encoded.sentences.split(4096)])


@torch.no_grad()
def joint_vectors(encoder: Encoder, encoded: PooledPairs) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
    """Return unit vectors of the pictures, and of the text of each pair, in the joint space."""
    image = normalize(encoder.text.project(encoded.pooled), dim=1)
    return image, placed(encoder, encoded)[encoded.pairs[:, 1]]
