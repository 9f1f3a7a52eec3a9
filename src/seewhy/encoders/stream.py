"""Encode a stream of pictures, with a cache of features."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..bounds import article, fits
from ..errors import ImageError, InputError
from ..pictures.images import MAX_BYTES, Picture, read_views
from ..pictures.miniatures import miniature
from ..pictures.sources import name_of
from ..storage.features import FeatureStore, look_key, text_key
from ..storage.reading import file_sha256
from ..threads import each_beside, n_threads
from ..types import Crop, Failure
from .base import Encoder

Views = Callable[[int], Sequence[Crop | None]]
"""Function from the index of a picture to its crops; ``None`` is the default crop of the transform."""


_TOO_LARGE = 65520
"""Smallest value that float16 rounds to infinity."""


@dataclass(frozen=True)
class Encoded:
    name: str
    digest: str
    pooled: Float[Tensor, "v d"]
    features: Tensor | None = None
    picture: Picture | None = None
    miniature: UInt8[Tensor, " w"] | None = None


@dataclass(frozen=True)
class EncodeRequest:
    features: Callable[[int], bool] = lambda _index: False
    pictures: Callable[[int], bool] | bool = False
    miniatures: Callable[[str], bool] | bool = False
    """Whether to make the miniature of a picture, or a function from the digest of its file."""
    views: Views = lambda _index: (None,)

    def wants_picture(self, index: int) -> bool:
        return self.pictures(index) if callable(self.pictures) else self.pictures

    def wants_miniature(self, digest: str) -> bool:
        return self.miniatures(digest) if callable(self.miniatures) else self.miniatures


@dataclass(frozen=True)
class _Read:
    """A decoded picture, or its cached features, or both."""

    name: str
    digest: str
    keys: Sequence[bytes]
    pictures: list[Picture]
    known: Encoded | None
    wants_features: bool
    wants_picture: bool = False
    miniature: UInt8[Tensor, " w"] | None = None

    @property
    def views(self) -> list[Picture]:
        """The views that must be encoded."""
        if self.known is None:
            return self.pictures
        return self.pictures[:1] if self.wants_features and self.known.features is None else []


def encode_stream(
    encoder: Encoder,
    sources: Iterable[Any],
    *,
    store: FeatureStore | None = None,
    request: EncodeRequest | None = None,
    batch_size: int = 32,
    workers: int | None = None,
) -> Iterator[Encoded | Failure]:
    """Encode pictures as a stream, in order and with bounded memory.

    Each source yields one result. A picture that cannot be read, or whose features are not finite, yields a
    :class:`Failure`.

    Args:
        encoder: encoder of the pictures.
        sources: file names, pixels, or single views as :class:`Picture`.
        store: cache of features; ``None`` caches nothing.
        request: what to compute for each picture.
        batch_size: pictures per forward pass.
        workers: decoding threads; default: one per core, at most 8.
    """
    request = request or EncodeRequest()
    if encoder.rest is not None and encoder.base is not None:
        asked = replace(request, features=lambda _index: False)
        below = encode_stream(encoder.base, sources, store=store, request=asked, batch_size=batch_size, workers=workers)
        yield from _beyond(encoder, below, request)
        return
    numbered = enumerate(sources)
    if not fits(first := request.views(0), Sequence[Crop | None]) or not len(first):
        given = article(type(first).__name__)
        raise InputError(f"`views` must return a list of crops or None for each picture, got {given}.")
    chunk = max(1, batch_size // len(first))
    pool = ThreadPoolExecutor(workers or min(8, n_threads()))
    ahead: list[list[Future[_Read | Failure]]] = []

    def submit() -> None:
        if chosen := list(islice(numbered, chunk)):
            # Made here: a decoding thread of a stream that is dropped would go on converting, and an exporter swaps the
            # filters of warnings, which all threads share.
            _ = encoder.engine
            ahead.append([pool.submit(_read, encoder, i, s, store, request) for i, s in chosen])

    try:
        submit()
        submit()
        while ahead:
            reads = [future.result() for future in ahead.pop(0)]
            submit()
            yield from each_beside(encoder.engine.name, _encode(encoder, reads, store, request, batch_size))
    finally:
        # Do not wait: a stream that is dropped half-way may be closed by the garbage collector while a thread is
        # being started, which holds the very lock that joining a thread needs.
        pool.shutdown(wait=False, cancel_futures=True)
        if store is not None:
            store.report()


def _beyond(
    encoder: Encoder, below: Iterable[Encoded | Failure], request: EncodeRequest
) -> Iterator[Encoded | Failure]:
    """Apply the encoder's remaining layers to the results of its base encoder."""
    for index, one in enumerate(below):
        if isinstance(one, Failure):
            yield one
            continue
        seen = encoder.beyond(one.pooled)
        features = next(_as_stored(seen.features, [0])) if request.features(index) else None
        yield replace(one, pooled=seen.pooled, features=features)


def file_digest(source: Any) -> str | None:
    """Return the SHA-256 of a picture's file, or ``None`` if the source is not a readable file."""
    try:
        return file_sha256(source, MAX_BYTES) if isinstance(source, str | Path) else None
    except OSError:
        return None


def _keys(encoder: Encoder, digest: str, views: Sequence[Crop | None]) -> list[bytes]:
    # Two precisions of one encoder do not give the same features.
    return [look_key(digest, f"{encoder.looks}:{encoder.engine.precision}", v) for v in views]


def _read(
    encoder: Encoder, index: int, source: Any, store: FeatureStore | None, request: EncodeRequest
) -> _Read | Failure:
    views, wants, shown = request.views(index), request.features(index), request.wants_picture(index)
    name, known, digest, keys = name_of(source, index + 1), None, None, []
    if isinstance(source, Picture):
        name, pictures = source.name, [source]
    else:
        if store is not None and (digest := file_digest(source)) is not None:
            keys = _keys(encoder, digest, views)
            known = _recall(store, name, digest, keys, wants)
            whole = known is not None and (known.features is not None or not wants)
            if whole and not (shown or request.wants_miniature(digest)):
                return _Read(name, digest, keys, [], known, wants)
        try:
            pictures = read_views(source, encoder.transform, views)
        except ImageError as error:
            return Failure(name, error.reason)
    if pictures[0].digest != digest:  # the file was replaced in the meantime
        digest, known = pictures[0].digest, None
        keys = _keys(encoder, digest, views)
    small = None
    if request.wants_miniature(digest):
        small = miniature(pictures[0].pixels, pictures[0].original_size)
    return _Read(name, digest, keys, pictures, known, wants, shown, small)


def _recall(store: FeatureStore, name: str, digest: str, keys: Sequence[bytes], wants: bool) -> Encoded | None:
    """Return the cached vectors of a picture, or ``None`` if one is missing."""
    rows = store.get(keys[:1], features=True) if wants else {}
    rows = {**store.get([k for k in keys if k not in rows]), **rows}
    if any(k not in rows for k in keys):
        return None
    return Encoded(name, digest, torch.stack([rows[k][0] for k in keys]), rows[keys[0]][1])


def _encode(
    encoder: Encoder,
    reads: Sequence[_Read | Failure],
    store: FeatureStore | None,
    request: EncodeRequest,
    batch_size: int,
) -> Generator[Encoded | Failure, None, None]:
    """Encode and cache the pictures that are not cached, and yield all results in order."""
    todo = [r for r in reads if isinstance(r, _Read) and r.views]
    fresh = dict(zip(map(id, todo), _look(encoder, todo, batch_size), strict=True))
    if store is not None:
        store.put(
            (key, seen.pooled[j], seen.features if j == 0 else None)
            for read in todo
            if (seen := fresh[id(read)]).pooled.isfinite().all()
            for j, key in enumerate(read.keys)
        )
        for looked in todo:
            # The vectors the store has under these keys, so that a run that fills it gives what a run that finds it
            # gives: they differ where the picture came before in another batch, which some engines round otherwise.
            seen, rows = fresh[id(looked)], store.get(looked.keys)
            kept = [rows[k][0] if k in rows else seen.pooled[j] for j, k in enumerate(looked.keys)]
            fresh[id(looked)] = replace(seen, pooled=torch.stack(kept))
    for read in reads:
        if isinstance(read, Failure):
            yield read
            continue
        one = fresh[id(read)] if read.views else read.known
        assert one is not None
        if not one.pooled.isfinite().all():
            yield Failure(read.name, "the encoder's features of this picture are not finite; try --engine torch")
        else:
            yield replace(one, picture=read.pictures[0] if read.wants_picture else None, miniature=read.miniature)


def _look(encoder: Encoder, reads: Sequence[_Read], batch_size: int) -> Iterator[Encoded]:
    pixels = [p.pixels for r in reads for p in r.views]
    first = {sum(len(r.views) for r in reads[:i]) for i, r in enumerate(reads) if r.wants_features}
    pooled: list[Tensor] = []
    maps: dict[int, Tensor] = {}
    for start in range(0, len(pixels), batch_size):
        part = encoder.pixels(pixels[start : start + batch_size])
        if not any(start <= i < start + len(part) for i in first):
            pooled.append(encoder.pooled(part))
            continue
        look = encoder.encode(part)
        pooled.append(look.pooled)
        rows = [j for j in range(len(look)) if start + j in first]
        maps.update(zip((start + j for j in rows), _as_stored(look.features, rows), strict=True))
    vectors = torch.cat(pooled) if pooled else torch.empty(0)
    row = 0
    for read in reads:
        known = vectors[row : row + len(read.views)] if read.known is None else read.known.pooled
        yield Encoded(read.name, read.digest, known, maps.get(row))
        row += len(read.views)


def _as_stored(features: Tensor, rows: Sequence[int]) -> Iterator[Tensor]:
    """Yield the features of some rows at the precision of the cache: float16 if they are in its range."""
    low, high = features.aminmax()
    fit = bool(low > -_TOO_LARGE and high < _TOO_LARGE)  # False if a value is NaN
    for row in rows:
        kept = features[row].half()
        yield kept.float() if fit or kept.isfinite().all() else features[row].clone()


def encode_texts(encoder: Encoder, texts: Sequence[str], store: FeatureStore | None = None) -> Float[Tensor, "n d"]:
    """Return unit vectors of texts, with a cache."""
    if store is None:
        return encoder.encode_text(texts)
    keys = [text_key(t, encoder.text.fingerprint) for t in texts]
    return store.texts(keys, texts, encoder.encode_text)
