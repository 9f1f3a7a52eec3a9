"""Encoded pictures with their texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.encoded_set import EncodedSet
from ..encoders.base import Encoder, TextTower, TrainableText
from ..encoders.names import own_vectors, sentence_fingerprint
from ..pictures.samples import Sample
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
class PooledPairs(EncodedSet):
    """Encoded pictures, and vectors of their texts."""

    texts: Texts = ()
    sentences: Float[Tensor, "m e"] = None  # type: ignore[assignment]
    pairs: Int[Tensor, "k 2"] = None  # type: ignore[assignment]

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

    def subset(self, index: Sequence[int]) -> Self:
        place = torch.full((len(self),), -1)
        place[list(index)] = torch.arange(len(index))
        pairs = torch.stack([place[self.pairs[:, 0]], self.pairs[:, 1]], 1)
        pairs = pairs[pairs[:, 0] >= 0]
        used, text = pairs[:, 1].unique(return_inverse=True)
        order = pairs[:, 0].argsort(stable=True)
        texts, pairs = tuple(self.texts[i] for i in used.tolist()), torch.stack([pairs[:, 0], text], 1)[order]
        return replace(super().subset(index), texts=texts, sentences=self.sentences[used], pairs=pairs)


def classes_of(items: Sequence[Sample]) -> tuple[str, ...]:
    """Return the distinct class names; empty if any picture has none."""
    labels = {item.label for item in items}
    return () if "" in labels else tuple(sorted(labels))


def encode_pairs(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> PooledPairs:
    """Encode all readable pictures and their texts, and report unreadable pictures."""
    pictures = PooledPairs.of(encoder, items, classes_of(items), store, progress)
    if isinstance(tower := encoder.text, TrainableText):
        long = [(item.image, text) for item in pictures.items for text in item.texts if len(text) > LONG]
        cut = [image for image, text in long if tower.n_cut([text])]
        if cut:
            progress.note(
                f"{len(cut)} text(s) are too long for the text encoder and are cut, for example the text of {cut[0]}"
            )
    return _saying(pictures, [item.texts for item in pictures.items], encoder, store, progress)


def _saying(
    pictures: PooledPairs, said: Sequence[Texts], encoder: Encoder, store: FeatureStore | None, progress: Progress
) -> PooledPairs:
    """Return the pictures with these texts, encoded."""
    numbers: dict[str, int] = {}
    pairs = [(i, numbers.setdefault(text, len(numbers))) for i, texts in enumerate(said) for text in texts]
    vectors = read_texts(encoder.text, list(numbers), store, progress)
    return replace(pictures, texts=tuple(numbers), sentences=vectors, pairs=torch.tensor(pairs))


def read_texts(
    tower: TextTower, texts: Sequence[str], store: FeatureStore | None, progress: Progress
) -> Float[Tensor, "m e"]:
    """Return text vectors, from the store where possible."""
    parts, encode = [], partial(own_vectors, tower)
    chunks = [list(texts[i : i + TEXTS]) for i in range(0, len(texts), TEXTS)]
    for chunk in progress.track(chunks, "Reading texts", len(chunks)):
        keys = [text_key(text, f"{sentence_fingerprint(tower)} sentences") for text in chunk]
        parts.append(encode(chunk) if store is None else store.texts(keys, chunk, encode))
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
    return _saying(encoded, said, encoder, store, progress)


def findings(encoded: EncodedSet) -> Float[Tensor, "p f"] | None:
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
