"""Search a folder of pictures by picture, by words, or by both."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.find import saved_encoder
from ..encoders.stream import Encoded
from ..errors import DataError, ForeignFileError, InputError, ModelError
from ..progress import Progress
from ..storage.database import check
from ..storage.features import FeatureStore
from ..storage.output import check_folder, make_folder
from ..storage.parquet_seal import Checked, Verification
from ..storage.reading import reason
from ..undisturbed import undisturbed
from .catalogue import CATALOGUE, FILE, FORMAT, Catalogue
from .search import One, Query, Results, Searching
from .settings import Settings
from .vectors import Column, Nearest, Snapshot, Whitening, columns_of
from .writing import Adding, Change, Entry, append, tidy

SHOWN = 5
"""Largest number of damaged rows that an error lists."""


def _files(catalogue: Catalogue) -> Iterator[Checked]:
    """Check all files of an index and yield one result per file."""
    if damage := catalogue.damage():
        yield Checked(FILE, damage)
        return
    yield Checked(FILE)
    for column in columns_of(catalogue).values():
        yield Checked(column.path.name, _reason(partial(_check_rows, column, catalogue)))
    if (white := catalogue.get("whitening")) is not None:
        yield Checked(white["file"], _reason(partial(Whitening.load, catalogue.folder / white["file"])))


def _check_rows(column: Column, catalogue: Catalogue) -> None:
    n = catalogue.need("n_rows")
    wrong = column.rows(n).check(np.arange(n)).tolist()
    if wrong:
        more = f" and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        named = ", ".join(str(row + 1) for row in wrong[:SHOWN])
        raise DataError(f"row {named}{more} does not match its checksum in {column.sums.name}")


def _reason(read: Callable[[], object]) -> str:
    """Return the reason why a file cannot be read, or an empty string."""
    try:
        read()
    except (DataError, OSError) as error:
        return reason(error)
    return ""


def check_place(folder: str | Path) -> Path:
    """Check that a folder has an index or is free for a new one, and return its path."""
    folder = check_folder(Path(folder))
    if folder.exists() and any(folder.iterdir()) and not check(folder / FILE, CATALOGUE):
        raise ForeignFileError(
            f"{folder} must be a SeeWhy index or a new folder, but it has other files. Give another name."
        )
    return folder


class Index:
    """An index of pictures that can be searched by picture and by words.

    One process may write while others search. When :meth:`add` returns, the added pictures are on disk.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, encoder: Encoder | str | None, engine: str) -> None:
        self.folder = folder
        self.settings = Settings(**catalogue.need("settings"))
        self._catalogue = catalogue
        self._engine = engine
        self._named = encoder
        if isinstance(encoder, Encoder):
            _ = self.encoder  # a wrong one is told at once
        self._snapshot: Snapshot | None = None

    @classmethod
    @undisturbed
    def create(
        cls,
        folder: str | Path,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
        *,
        width: int = 0,
        fingerprint: str = "",
    ) -> Index:
        """Create an index, or open an existing one with the same settings.

        Args:
            folder: folder of the index.
            encoder: encoder of the pictures; ``None`` makes an index for precomputed vectors.
            settings: settings of what the index stores for each picture.
            width: dimension of the precomputed vectors.
            fingerprint: fingerprint of the model that computed the vectors.
        """
        folder, settings = check_place(folder), settings or Settings()
        if encoder is None and width < 1:
            raise InputError("Pass encoder=…, or width=… for precomputed vectors.")
        catalogue = Catalogue(make_folder(folder))
        with catalogue.writing():
            if catalogue.get("format") is None:
                about: dict[str, Any] = {"encoder": None, "fingerprint": fingerprint}
                if encoder is not None:
                    about = {**encoder.describe(), "precision": encoder.engine.precision}
                columns = {n: [w, 1] for n, w in _widths(encoder, settings, width).items()}
                for name, (wide, generation) in columns.items():
                    Column(folder, name, wide, generation).append(0, torch.empty(0, wide))
                empty = {"n_rows": 0, "totals": {"n": 0, "sum": 0}}
                catalogue.set(format=FORMAT, settings=asdict(settings), encoder=about, columns=columns, **empty)
        there, asked = asdict(Settings(**catalogue.need("settings"))), asdict(settings)
        if other := [k for k in asked if there[k] != asked[k]]:
            raise DataError(
                f"The settings of {folder} must be {', '.join(f'{k}={there[k]!r}' for k in other)}, got "
                f"{', '.join(f'{k}={asked[k]!r}' for k in other)}. Use the index's settings, or make another index "
                "with -o."
            )
        catalogue.close()
        return cls.open(folder, encoder)

    @classmethod
    def open(cls, folder: str | Path, encoder: Encoder | str | None = None, *, engine: str = "auto") -> Index:
        """Open an index.

        Args:
            folder: folder of an existing index.
            encoder: encoder or its name; default: the embedded encoder that the index names, loaded when needed.
            engine: engine of the encoder; without a precision, a float32 index stays in float32.
        """
        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise DataError(f"{folder} is not a SeeWhy index. Make one: seewhy index PHOTOS -o {folder}")
        catalogue = Catalogue(folder)
        written = catalogue.get("format")
        if written != FORMAT:
            raise DataError(
                f"The index format of {folder} must be {FORMAT}, got {written!r}. Update SeeWhy (pip install -U "
                "seewhy), or make the index again."
            )
        _ = catalogue.get("columns"), catalogue.get("whitening")  # checks what names of files are made of
        return cls(folder, catalogue, encoder, engine)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the pictures, loaded when first used."""
        about = self._catalogue.need("encoder")
        if about["encoder"] is None and not isinstance(self._named, Encoder):
            raise ModelError(
                f"The index {self.folder} has precomputed vectors and no encoder. Search with a vector instead."
            )
        exact = ":f32" if about.get("precision") == "float32" and ":" not in self._engine else ""
        return saved_encoder(
            {**about, "encoder": about["encoder"] or "vectors made elsewhere"},
            self._named,
            engine=self._engine + exact,
            place=str(self.folder),
            command=f"seewhy search {shlex.quote(str(self.folder))} … --encoder {{}}",
            again="make the index again",
        )

    def add(
        self,
        entries: Iterable[Entry | One],
        *,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> Change:
        """Add pictures that are not in the index yet.

        A picture is identified by the bytes of its file. A copy under another name is skipped, and a renamed file gets
        its new name. If the file of a known name has changed, the new picture replaces the old one.

        Args:
            entries: pictures, or entries with classes.
            store: cache of encoded pictures.
            progress: callback for progress and unreadable pictures.
            total: number of pictures, for the progress bar.
        """
        adding = Adding(self._catalogue, self.encoder, self.settings, store, progress or Progress())
        done = adding.add((e if isinstance(e, Entry) else Entry(e) for e in entries), total)
        tidy(self._catalogue, self.settings)
        return done

    def add_seen(self, seen: Iterable[Encoded], *, progress: Progress | None = None) -> Change:
        """Add pictures that the index's encoder has already encoded."""
        done = Adding(self._catalogue, self.encoder, self.settings, None, progress or Progress()).add_seen(seen)
        tidy(self._catalogue, self.settings)
        return done

    def add_vectors(self, vectors: Float[Tensor, "n d"], names: Sequence[str], labels: Sequence[str] = ()) -> None:
        """Add precomputed vectors to an index without an encoder; vectors with known names are replaced."""
        width = self._catalogue.need("columns")["look"][0]
        if vectors.shape[1] != width or len(names) != len(vectors) or len(set(names)) != len(names):
            raise InputError(
                f"`vectors` must have the shape (n, {width}) and `names` must be n different names, got "
                f"{tuple(vectors.shape)} and {len(set(names))} different names."
            )
        labels = labels or [""] * len(names)
        with self._catalogue.writing():
            append(self._catalogue, {"look": normalize(vectors, dim=1)})
            first = self._catalogue.need("n_rows") - len(names)
            digests = (hashlib.sha256(n.encode("utf-8", "surrogatepass")).hexdigest() for n in names)
            rows = enumerate(zip(names, digests, labels, strict=True), first)
            self._catalogue.put((i, n, d, label, None) for i, (n, d, label) in rows)
        tidy(self._catalogue, self.settings)

    def remove(self, names: Iterable[str | Path]) -> int:
        """Remove pictures by file name or folder; return their number."""
        asked = {one for n in names for one in (str(n), os.path.abspath(n))}
        below = tuple(n.rstrip(os.sep) + os.sep for n in asked if os.path.isabs(n))
        with self._catalogue.writing():
            found = [i.id for i in self._catalogue.items() if i.name in asked or i.name.startswith(below)]
            self._catalogue.remove(found)
        tidy(self._catalogue, self.settings)
        return len(found)

    def remove_missing(self) -> int:
        """Remove pictures whose files no longer exist; return their number."""
        gone = [i.name for i in self._catalogue.items() if os.path.isabs(i.name) and not os.path.exists(i.name)]
        return self.remove(gone) if gone else 0

    def rebuild(self) -> None:
        """Free the space of removed pictures and refit the whitening."""
        tidy(self._catalogue, self.settings, rebuild=True)

    def verify(self) -> Verification:
        """Check every file of the index."""
        with self._catalogue.reading():
            return Verification(str(self.folder), tuple(_files(self._catalogue)))

    def search(
        self,
        query: Query | One,
        *,
        k: int = 10,
        labels: Sequence[str] | None = None,
        collapse: float | None = 0.97,
        levels: int = 3,
    ) -> Results:
        """Find similar pictures.

        Args:
            query: picture, or a :class:`Query` of words and pictures.
            k: number of results, at least 1.
            labels: classes to search in; default: all.
            collapse: cosine similarity, -1 to 1, above which a picture counts as a copy of a result and is listed under
                this result; ``None`` lists all results. The file of the query is never a result.
            levels: number of levels of sub-patches of the query, for an index with ``parts="spatial"``; the paper uses
                3 levels for queries and 4 for the index.
        """
        if k < 1 or (collapse is not None and not -1 <= collapse <= 1):
            raise InputError(
                f"`k` must be at least 1 and `collapse` from -1 to 1 or None, got k={k} and collapse={collapse}."
            )
        asked = query if isinstance(query, Query) else Query(query)
        with self._reading() as snapshot:
            searching = Searching(self._catalogue, snapshot, self.encoder, self.settings)
            return searching.search(asked, k=k, labels=labels, collapse=collapse, levels=levels)

    def nearest(
        self, vector: Float[Tensor, " d"], k: int = 10, *, labels: Sequence[str] | None = None
    ) -> tuple[list[str], Nearest]:
        """Return the names of the ``k`` nearest pictures to a precomputed vector, and their scores and rows."""
        with self._reading() as snapshot:
            rows = None if labels is None else self._catalogue.rows(labels)
            found = snapshot.top("look", normalize(vector, dim=0), k, rows=rows)
            items = self._catalogue.at_rows(found.rows.tolist())
            return [items[r].name for r in found.rows.tolist()], found

    @contextmanager
    def _reading(self) -> Iterator[Snapshot]:
        for _ in range(10):
            with self._catalogue.reading():
                version = self._catalogue.get("version", 0)
                if self._snapshot is None or self._snapshot.version != version:
                    try:
                        self._snapshot = Snapshot.of(self._catalogue, self._snapshot)
                    except FileNotFoundError:  # a writer replaced it between the two looks; the next one finds it
                        continue
                yield self._snapshot
                return
        raise DataError(
            f"A file of the index {self.folder} is missing. Make the index again from the pictures: seewhy index "
            f"PHOTOS -o {self.folder}"
        )

    def vectors(self, column: str = "look") -> Float[Tensor, "n d"]:
        """Return the vectors of a column, in the order of :meth:`names`."""
        with self._reading() as snapshot:
            if column not in snapshot.matrices:
                raise InputError(f"`column` must be one of {', '.join(snapshot.matrices)}, got {column!r}.")
            return torch.from_numpy(np.array(snapshot.matrices[column][snapshot.rows]))

    def names(self) -> list[str]:
        """Return the file names of all pictures, in the order of :meth:`vectors`."""
        with self._reading() as snapshot:
            items = self._catalogue.at_rows(snapshot.rows.tolist())
            return [items[r].name for r in snapshot.rows.tolist()]

    def labels(self) -> dict[str, int]:
        """Return the number of pictures per class; pictures without a class have the empty name."""
        return self._catalogue.labels()

    def describe(self) -> dict[str, Any]:
        """Return the size, settings and encoder of the index."""
        about = self._catalogue.need("encoder")
        return {
            "n": len(self),
            "labels": len([label for label in self.labels() if label]),
            "version": self._catalogue.get("version", 0),
            "encoder": about["encoder"],
            "fingerprint": about["fingerprint"],
            "columns": {n: w for n, (w, _) in self._catalogue.need("columns").items()},
            "settings": asdict(self.settings),
        }

    def __len__(self) -> int:
        return len(self._catalogue)

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}, {len(self)} pictures, {self._catalogue.need('encoder')['encoder']!r})"

    def close(self) -> None:
        self._snapshot = None
        self._catalogue.close()


def _widths(encoder: Encoder | None, settings: Settings, width: int) -> dict[str, int]:
    """Return the names and dimensions of the columns to store."""
    if encoder is None:
        return {"look": width}
    height, wide = encoder.transform.input_size
    with torch.no_grad():
        pooled = encoder.encode(torch.zeros(1, 3, height, wide)).pooled
    found = {"look": pooled.shape[1]}
    if settings.words and encoder.has_text:
        found["words"] = encoder.text.project(pooled).shape[1]
    if settings.parts != "none":
        found["parts"] = (len(settings.views()) - 1) * pooled.shape[1]
    return found
