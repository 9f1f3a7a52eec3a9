"""Pictures with texts, as an encoder sees and reads them: each picture and each text once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder, TextTower, TrainableText
from ..encoders.names import own_vectors, sentence_fingerprint
from ..encoders.paired_heads import place
from ..encoders.stream import encode_stream
from ..errors import DataError
from ..pictures.samples import Sample
from ..progress import Progress
from ..storage.features import FeatureStore, text_key
from .objectives.spans import spans

LONG = 200
"""Signs of a text from which on it may be longer than a words half reads."""
TEXTS = 512
"""Sentences that are encoded, and kept, at once."""


@dataclass(frozen=True, eq=False)
class SeenPairs:
    """Pictures and texts as vectors.

    Attributes:
        items: the pictures that can be read, with their texts.
        digests: of their files.
        pooled: of each.
        texts: each once.
        sentences: their own vectors, as :func:`seewhy.encoders.paired_heads.own_vectors` gives them.
        pairs: one row per pair: which picture, which text.
    """

    items: tuple[Sample, ...]
    digests: tuple[str, ...]
    pooled: Float[Tensor, "p d"]
    texts: tuple[str, ...]
    sentences: Float[Tensor, "m e"]
    pairs: Int[Tensor, "n 2"]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def owner(self) -> Int[Tensor, " n"]:
        """The picture of each pair."""
        return self.pairs[:, 0]

    @property
    def choices(self) -> list[list[int]]:
        """The texts of each picture, by their numbers."""
        found: list[list[int]] = [[] for _ in self.items]
        for picture, text in self.pairs.tolist():
            found[picture].append(text)
        return found

    def only(self, keep: Sequence[int]) -> SeenPairs:
        """Some of the pictures, with their texts."""
        place = torch.full((len(self),), -1)
        place[list(keep)] = torch.arange(len(keep))
        pairs = torch.stack([place[self.pairs[:, 0]], self.pairs[:, 1]], 1)
        pairs = pairs[pairs[:, 0] >= 0]
        used, text = pairs[:, 1].unique(return_inverse=True)
        order = pairs[:, 0].argsort(stable=True)
        return SeenPairs(
            tuple(self.items[i] for i in keep),
            tuple(self.digests[i] for i in keep),
            self.pooled[list(keep)],
            tuple(self.texts[i] for i in used.tolist()),
            self.sentences[used],
            torch.stack([pairs[:, 0], text], 1)[order],
        )

    def split(self, held_out: float, seed: int) -> tuple[SeenPairs, SeenPairs]:
        """What is trained on and what is held out, by groups and by files: copies are never on both sides."""
        own, held = parted(self.items, self.digests, held_out, seed)
        return self.only(own), self.only(held)


def parted(items: Sequence[Sample], digests: Sequence[str], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out; see :meth:`SeenPairs.split`."""
    whole = [item.group or digest for item, digest in zip(items, digests, strict=True)]
    distinct = sorted(set(whole))
    if len(distinct) < 4:
        raise DataError(
            f"{len(distinct)} different picture(s) with texts were given. Four or more were expected, as some are "
            "held out to choose by. Give more pairs."
        )
    random.Random(f"{seed}|pairs").shuffle(distinct)
    held = set(distinct[: max(2, round(held_out * len(distinct)))])
    rows: tuple[list[int], list[int]] = ([], [])
    for i, one in enumerate(whole):
        rows[one in held].append(i)
    return rows


def look_at_pictures(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> tuple[tuple[Sample, ...], tuple[str, ...], Float[Tensor, "p d"]]:
    """Those that can be read, the digests of their files, and what is pooled of each; the others are named."""
    kept, digests, pooled = [], [], []
    stream = encode_stream(encoder, [item.source for item in items], store=store)
    for item, seen in progress.results(items, stream, "Looking"):
        kept.append(item)
        digests.append(seen.digest)
        pooled.append(seen.pooled[0])
    if not kept:
        reason = f"; the first: {progress.failures[0].error}" if progress.failures else ""
        raise DataError(
            f"None of the {len(items)} pictures can be read{reason}. Files of pictures were expected, relative to "
            "their table. Check the column of images."
        )
    return tuple(kept), tuple(digests), torch.stack(pooled)


def look_at_pairs(
    encoder: Encoder, items: Sequence[Sample], store: FeatureStore | None, progress: Progress
) -> SeenPairs:
    """See every picture and read every text, each once; what cannot be read is named and left out."""
    kept, digests, pooled = look_at_pictures(encoder, items, store, progress)
    _say_long(encoder.text, kept, progress)
    numbers: dict[str, int] = {}
    pairs = [(i, numbers.setdefault(t, len(numbers))) for i, item in enumerate(kept) for t in item.texts]
    sentences = read_texts(encoder.text, list(numbers), store, progress)
    return SeenPairs(kept, digests, pooled, tuple(numbers), sentences, torch.tensor(pairs))


def _say_long(tower: TextTower, items: Sequence[Sample], progress: Progress) -> None:
    """A note of texts that are longer than is read."""
    if not isinstance(tower, TrainableText):
        return
    long = [(item.image, text) for item in items for text in item.texts if len(text) > LONG]
    cut = [image for image, text in long if tower.n_cut([text])]
    if cut:
        progress.note(
            f"{len(cut)} text(s) are longer than is read, and what lies beyond is not; the first is of {cut[0]}"
        )


def read_texts(
    tower: TextTower, texts: Sequence[str], store: FeatureStore | None, progress: Progress
) -> Float[Tensor, "m e"]:
    """Sentences → vectors of their own, each found in the store or kept there."""
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


def spanned(encoder: Encoder, seen: SeenPairs, of: str, store: FeatureStore | None, progress: Progress) -> SeenPairs:
    """The same pictures with what an objective compares of their texts, see :func:`~.objectives.spans.spans`."""
    if of == "text":
        return seen
    numbers: dict[str, int] = {}
    said = [spans([seen.texts[j] for j in texts], of) for texts in seen.choices]
    pairs = [(i, numbers.setdefault(t, len(numbers))) for i, texts in enumerate(said) for t in texts]
    sentences = read_texts(encoder.text, list(numbers), store, progress)
    return replace(seen, texts=tuple(numbers), sentences=sentences, pairs=torch.tensor(pairs))


def findings(seen: SeenPairs) -> Float[Tensor, "p f"] | None:
    """1 for what is found in each picture, 0 for the rest: its class, or several with ``|`` between them.

    ``None`` where one of the pictures has none.
    """
    found = [{one.strip() for one in item.label.split("|")} - {""} for item in seen.items]
    if not all(found):
        return None
    names = sorted(set().union(*found))
    return torch.tensor([[float(name in own) for name in names] for own in found])


@torch.no_grad()
def placed(encoder: Encoder, seen: SeenPairs) -> Float[Tensor, "m d"]:
    """Each text as a unit vector among the pictures."""
    return torch.cat([place(encoder.text, part) for part in seen.sentences.split(4096)])


@torch.no_grad()
def joint_vectors(encoder: Encoder, seen: SeenPairs) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
    """Pictures, and the text of each pair, as unit vectors in the space they share."""
    image = normalize(encoder.text.project(seen.pooled), dim=1)
    return image, placed(encoder, seen)[seen.pairs[:, 1]]
