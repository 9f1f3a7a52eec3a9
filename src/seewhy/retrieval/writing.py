"""Add pictures to an index in transactions, and maintain its whitening and its files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.stream import Encoded, EncodeRequest, encode_stream, file_digest
from ..errors import DataError, InputError
from ..pictures.miniatures import encode_thumbnail
from ..pictures.sources import is_unicode
from ..progress import Progress
from ..storage.features import FeatureStore
from ..storage.folders import remove_inside
from ..types import Failure
from ..undisturbed import undisturbed
from .catalogue import Catalogue, Item
from .search import One
from .settings import Settings
from .vectors import BLOCK, Column, Snapshot, Whitening, columns_of

if TYPE_CHECKING:
    from ..encoders.base import Encoder

T = TypeVar("T")
CHUNK = 128
"""Pictures per transaction."""
DEAD = 0.25
"""Fraction of deleted rows above which the columns are rewritten."""


@dataclass(frozen=True)
class Entry:
    """A picture to add: a file name or pixels, with an optional class and name."""

    source: One
    label: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        """The picture's name in the index: ``name`` or the absolute file name."""
        if self.name:
            return self.name
        if isinstance(self.source, str | Path):
            return os.path.abspath(self.source)
        raise InputError("Pixels in memory need a name. Pass Entry(pixels, name=…).")


@dataclass(frozen=True)
class Change:
    """The numbers of new, changed and unchanged pictures; exact copies count as unchanged."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0

    def __add__(self, other: Change) -> Change:
        return Change(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class _Fresh:
    """An encoded picture that is ready to be written."""

    name: str
    digest: str
    label: str
    vectors: dict[str, Float[Tensor, " d"]]
    thumbnail: bytes | None


@dataclass(frozen=True)
class Adding:
    """The process of adding pictures to an index."""

    catalogue: Catalogue
    encoder: Encoder
    settings: Settings
    store: FeatureStore | None
    progress: Progress

    @undisturbed
    def add(self, entries: Iterable[Entry], total: int | None = None) -> Change:
        """Add pictures, and return how many were new, changed or unchanged."""
        return _in_steps(self.progress.track(entries, "Indexing pictures", total), self._step)

    @undisturbed
    def add_seen(self, encoded: Iterable[Encoded]) -> Change:
        """Add encoded pictures without thumbnails, and return how many were new, changed or unchanged."""
        fresh = (_Fresh(one.name, one.digest, "", self.vectors(one), None) for one in encoded)
        return _in_steps(fresh, self._write)

    def _step(self, chunk: Sequence[Entry]) -> Change:
        named = {e.key: e for e in chunk if is_unicode(e.key)}
        odd = [e.key for e in chunk if not is_unicode(e.key)]
        for key in odd:
            self.progress.failed(Failure(key, "has a name that is not UTF-8, which an index cannot hold; rename it"))
        digests = {name: file_digest(e.source) for name, e in named.items()}
        known = self.catalogue.known("digest", [d for d in digests.values() if d])
        todo, n_changed, n_same = [], 0, len(chunk) - len(odd) - len(named)
        for name, entry in named.items():
            there = known.get(digests[name] or "")
            what = "fresh" if there is None else self._settle(there, name, entry)
            n_changed, n_same = n_changed + (what == "changed"), n_same + (what == "same")
            if what == "fresh":
                todo.append(entry)
        fresh = list(self._look(todo))
        return self._write(fresh) + Change(0, n_changed, n_same, len(todo) - len(fresh) + len(odd))

    def _settle(self, there: Item, name: str, entry: Entry) -> str:
        """Update the name or class of a picture with known bytes; return ``"same"``, ``"changed"`` or ``"fresh"``."""
        if (there.name, there.label) == (name, entry.label):
            return "same"
        with self.catalogue.writing():
            now = self.catalogue.known("digest", [there.digest]).get(there.digest)
            before = self.catalogue.known("name", [name]).get(name)
            if now is None:
                return "fresh"
            is_copy = now.name != name and file_digest(now.name) == now.digest
            if before is not None and before.id != now.id:
                self.catalogue.remove([before.id])
            elif is_copy:
                return "same"
            if not is_copy:
                self.catalogue.change(now.id, name=name, label=entry.label)
        return "changed"

    def _look(self, entries: Sequence[Entry]) -> Iterator[_Fresh]:
        views = self.settings.views()
        request = EncodeRequest(pictures=self.settings.thumbnail > 0, views=lambda _index: views)
        stream = encode_stream(self.encoder, [e.source for e in entries], store=self.store, request=request)
        for entry, one in zip(entries, stream, strict=True):
            if isinstance(one, Failure):
                self.progress.failed(replace(one, image=entry.key))
                continue
            thumbnail = None
            if one.picture is not None:
                picture = Image.fromarray(one.picture.pixels)
                picture.thumbnail((self.settings.thumbnail, self.settings.thumbnail))
                thumbnail = encode_thumbnail(np.asarray(picture), 80)
            yield _Fresh(entry.key, one.digest, entry.label, self.vectors(one), thumbnail)

    def vectors(self, encoded: Encoded) -> dict[str, Float[Tensor, " d"]]:
        """Return a picture's vector for each column that is not derived."""
        rows = {"look": normalize(encoded.pooled[0], dim=0)}
        if self.settings.words and self.encoder.has_text:
            rows["words"] = normalize(self.encoder.text.project(encoded.pooled[:1]), dim=1)[0].detach()
        if self.settings.parts != "none":
            rows["parts"] = normalize(encoded.pooled[1:], dim=1).flatten()
        return rows

    def _write(self, fresh: Sequence[_Fresh]) -> Change:
        """Write vectors and catalogue entries in one transaction."""
        if not fresh:
            return Change()
        with self.catalogue.writing():
            known = self.catalogue.known("digest", [f.digest for f in fresh])
            once = {f.digest: f for f in reversed(fresh) if f.digest not in known}  # keep the first of several copies
            new = [f for f in fresh if once.get(f.digest) is f]
            n_updated = len(self.catalogue.known("name", [f.name for f in new]))
            append(self.catalogue, {c: torch.stack([f.vectors[c] for f in new]) for c in new[0].vectors} if new else {})
            first = self.catalogue.need("n_rows") - len(new)
            self.catalogue.put((first + i, f.name, f.digest, f.label, f.thumbnail) for i, f in enumerate(new))
        return Change(len(new) - n_updated, n_updated, len(fresh) - len(new))


def _in_steps(stream: Iterable[T], step: Callable[[list[T]], Change]) -> Change:
    source, done = iter(stream), Change()
    while chunk := list(islice(source, CHUNK)):
        done += step(chunk)
    return done


@undisturbed
def append(catalogue: Catalogue, vectors: dict[str, Float[Tensor, "n d"]]) -> None:
    """Append rows to every column, inside :meth:`Catalogue.writing`."""
    if not vectors:
        return
    first, whitening, rows = catalogue.get("n_rows", 0), catalogue.get("whitening"), dict(vectors)
    if whitening is not None:
        rows["whitened"] = Whitening.load(catalogue.folder / whitening["file"])(vectors["look"])
    columns = columns_of(catalogue)
    for name, column in columns.items():
        if name not in rows or rows[name].shape[1] != column.width:
            raise DataError(
                f"The index {catalogue.folder} is damaged: its vectors in {name!r} have the dimension {column.width}, "
                "but the vectors of its encoder have another. Make the index again from the pictures."
            )
    for name, column in columns.items():
        column.append(first, rows[name])
    catalogue.set(n_rows=first + len(rows["look"]))


@undisturbed
def tidy(catalogue: Catalogue, settings: Settings, *, rebuild: bool = False) -> None:
    """Remove deleted rows and refit the whitening if necessary, or always with ``rebuild``."""
    n_rows, n = catalogue.get("n_rows", 0), len(catalogue)
    if n_rows > n and (rebuild or n_rows - n > DEAD * n_rows):
        clear(catalogue)
    fitted = (catalogue.get("whitening") or {}).get("n", 0)
    if settings.whiten and n >= 3 and (rebuild or n >= 2 * fitted):
        whiten(catalogue, settings)


def whiten(catalogue: Catalogue, settings: Settings) -> None:
    """Fit whitening to the present pictures and rewrite the whitened column."""
    with catalogue.writing():
        now = Snapshot.of(catalogue)
        white = Whitening.fit(now.spread("look"), settings.whiten, settings.floor, settings.power)
        before, shapes = catalogue.get("whitening"), catalogue.need("columns")
        generation = shapes["whitened"][1] + 1 if "whitened" in shapes else now.columns["look"].generation
        column = Column(catalogue.folder, "whitened", white.matrix.shape[1], generation)
        for start in range(0, now.n_rows, BLOCK):
            block = np.array(now.matrices["look"][start : start + BLOCK])
            column.append(start, white(torch.from_numpy(block)))
        name = f"whitening-{secrets.token_hex(4)}.safetensors"
        white.save(catalogue.folder / name)
        shapes["whitened"] = [column.width, generation]
        catalogue.set(columns=shapes, whitening={"file": name, "n": len(now.rows)})
    if before is not None:
        remove_inside(catalogue.folder / before["file"])
        now.columns["whitened"].drop()


def clear(catalogue: Catalogue) -> None:
    """Rewrite every column without the deleted rows."""
    with catalogue.writing():
        now = Snapshot.of(catalogue)
        shapes = catalogue.need("columns")
        for name, column in now.columns.items():
            fresh = replace(column, generation=column.generation + 1)
            for start in range(0, len(now.rows), BLOCK):
                part = now.rows[start : start + BLOCK]
                fresh.append(start, torch.from_numpy(np.array(now.matrices[name][part])))
            if not len(now.rows):
                fresh.append(0, torch.empty(0, column.width))
            shapes[name] = [fresh.width, fresh.generation]
        catalogue.move(now.rows.tolist())
        catalogue.set(columns=shapes, n_rows=len(now.rows))
    for column in now.columns.values():
        column.drop()
