"""Search an index: compute the query vector, find the nearest rows, compare spatial parts and group copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import DataError, ImageError, InputError, ModelError
from ..explanation.result import HIDDEN, Json, Result
from ..report.blocks import Document
from ..report.paging import Page
from ..results import Count, Doc
from ..spelling import nearest
from ..types import Failure
from ..undisturbed import undisturbed
from .catalogue import Catalogue, Item
from .settings import Settings, n_patches, spatial_distance
from .vectors import Nearest, Snapshot

if TYPE_CHECKING:
    from ..encoders.base import Encoder

One = str | Path | Image.Image | np.ndarray
"""A picture: a file name or pixels in memory."""
N_SPATIAL = 500
"""Number of nearest pictures whose spatial parts are compared."""


@dataclass(frozen=True)
class Query:
    """A query to an index.

    With pictures only, the query vector is

        q = u(mean_i u(x_i) − unlike_weight · mean_j u(z_j))

    where ``u`` scales to unit length, ``x_i`` are the vectors of ``like`` and ``z_j`` those of ``unlike`` (Rocchio's
    formula). If there are pictures in ``unlike``, the mean vector of the index is first subtracted from all vectors.
    With words, the query vector is

        q = u(u(x) + weight · u(y))

    in the space shared with text, where ``x`` is the vector of the pictures and ``y`` the vector of the words (ALIGN,
    Jia et al. 2021, arXiv 2102.05918, section 5.4). The vectors of ``unlike`` and ``without`` are subtracted from the
    sum.

    Attributes:
        like: picture or pictures that results should resemble, as file names or pixels.
        text: words that results should match; may be empty.
        unlike: pictures that results should not resemble.
        without: words that results should not match.
        weight: weight of the words, at least 0, relative to 1 for the pictures (paper: 2); see docs/search.md.
        unlike_weight: weight of ``unlike`` and ``without``, at least 0.
    """

    like: One | Sequence[One] = ()
    text: str = ""
    unlike: One | Sequence[One] = ()
    without: str = ""
    weight: float = 1.0
    unlike_weight: float = 0.5

    def __post_init__(self) -> None:
        if not self.pictures and not self.text.strip():
            raise InputError("A query needs a picture, words, or both. Give --image or --text.")
        if self.weight < 0 or self.unlike_weight < 0:
            raise InputError(
                f"`weight` and `unlike_weight` must be at least 0, got {self.weight} and {self.unlike_weight}."
            )

    @property
    def pictures(self) -> tuple[One, ...]:
        return _several(self.like)

    @property
    def unlike_pictures(self) -> tuple[One, ...]:
        return _several(self.unlike)

    @property
    def has_words(self) -> bool:
        return bool(self.text.strip() or self.without.strip())

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "like": _names(self.pictures), "unlike": _names(self.unlike_pictures)}


def _several(pictures: One | Sequence[One]) -> tuple[One, ...]:
    return (pictures,) if isinstance(pictures, One) else tuple(pictures)


def _names(pictures: Sequence[One]) -> list[str]:
    return [str(p) if isinstance(p, str | Path) else f"picture {i}" for i, p in enumerate(pictures, 1)]


def by_pictures(
    like: Float[Tensor, "a d"], unlike: Float[Tensor, "b d"], weight: float, mean: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """Compute the query vector from pictures."""
    if not len(unlike):
        return normalize(like.mean(0), dim=0)
    wanted, unwanted = (like - mean).mean(0), (unlike - mean).mean(0)
    return normalize(normalize(wanted, dim=0) - weight * normalize(unwanted, dim=0), dim=0)


def composed(
    pictures: tuple[Float[Tensor, "a d"], Float[Tensor, "b d"]],
    words: tuple[Float[Tensor, " d"] | None, Float[Tensor, " d"] | None],
    query: Query,
) -> Float[Tensor, " d"]:
    """Compute the query vector from words, or from words and pictures."""
    nothing = torch.zeros(len(words[0] if words[0] is not None else pictures[0][0]))
    like, unlike = (normalize(p.mean(0), dim=0) if len(p) else nothing for p in pictures)
    text, without = (normalize(w, dim=0) if w is not None else nothing for w in words)
    return normalize(like + query.weight * text - query.unlike_weight * (unlike + query.weight * without), dim=0)


@dataclass(frozen=True)
class Hit(Result):
    """A search result with its JPEG thumbnail, if the index has thumbnails."""

    id: Annotated[Count, Doc("number in the index")]
    image: Annotated[str, Doc("file name")]
    label: Annotated[str, Doc("its class; may be empty")]
    cosine: Annotated[float, Doc("cosine with the query"), Json(digits=6)]
    distance: Annotated[
        float | None, Doc("distance of spatial parts, 0…2, by which results are sorted"), Json(digits=6, optional=True)
    ] = None
    copies: Annotated[tuple[str, ...], Doc("near-duplicates, which are listed only here")] = ()
    thumbnail: Annotated[bytes, HIDDEN] = field(default=b"", repr=False)


@dataclass(frozen=True, repr=False)
class Results(Page):
    """The results of a search, nearest first; docs/search.md describes ``data``."""

    hits: tuple[Hit, ...] = ()

    def document(self) -> Document:
        from ..report.documents import search_document

        return search_document(self.data, self.hits)


@dataclass(frozen=True)
class Searching:
    """A search in a snapshot of an index, inside :meth:`Catalogue.reading`."""

    catalogue: Catalogue
    snapshot: Snapshot
    encoder: Encoder
    settings: Settings

    @undisturbed
    def search(
        self, query: Query, *, k: int, labels: Sequence[str] | None, collapse: float | None, levels: int
    ) -> Results:
        """See :meth:`seewhy.retrieval.Index.search`."""
        rows = self._rows(labels)
        like, unlike = self._encoded(query.pictures, levels), self._encoded(query.unlike_pictures, 0)
        column, vector = self._vector(query, like, unlike)
        own = {s.digest for s in (*like, *unlike)}
        spatial = self.settings.parts != "none" and len(like) == 1 and not unlike and not query.has_words
        n = max(k, N_SPATIAL) if spatial else k
        while True:
            wanted = n + 4 * len(own) + 20
            matches = self.snapshot.top(column, vector, wanted, rows=rows)
            hits = self._hits(matches, own, {} if not spatial else self._distances(like[0], matches.rows, levels))
            vectors = torch.from_numpy(self.snapshot.matrices[column][[item.row for _, item in hits]])
            shown = _collapsed(hits, vectors, collapse, k)
            if len(shown) >= k or len(matches.rows) < wanted:
                break
            n *= 2
        n_searched = len(self.snapshot.rows if rows is None else rows)
        return self._results(query, column, shown[:k], n_searched)

    def _rows(self, labels: Sequence[str] | None) -> Int[np.ndarray, " m"] | None:
        if not len(self.snapshot.rows):
            raise DataError("The index has no pictures. Add some: seewhy index PHOTOS -o IDX")
        if labels is None:
            return None
        known = self.catalogue.labels()
        if strange := [label for label in labels if label not in known]:
            near = nearest(strange[0], known, n=3, cutoff=0.4) or list(known)[:5]
            raise DataError(
                f"No picture of the index has the class {strange[0]!r}. Did you mean {', '.join(map(repr, near))}?"
            )
        return self.catalogue.rows(labels)

    def _encoded(self, pictures: Sequence[Any], levels: int) -> list[Encoded]:
        """Encode the pictures of a query; ``levels`` above 0 adds their spatial parts."""
        views = self.settings.views(levels) if levels > 0 else (None,)
        encoded = []
        for one in encode_stream(self.encoder, pictures, request=EncodeRequest(views=lambda _index: views)):
            if isinstance(one, Failure):
                raise ImageError(one.image, one.error)
            self.snapshot.check_width("look", one.pooled.shape[1])
            encoded.append(one)
        return encoded

    def _vector(
        self, query: Query, like: Sequence[Encoded], unlike: Sequence[Encoded]
    ) -> tuple[str, Float[Tensor, " d"]]:
        """Return the name of the column to search and the query vector."""
        if not query.has_words:
            column, white = self.snapshot.main, self.snapshot.whitening
            ours, others = (self._unit(s, column, white or (lambda pooled: pooled)) for s in (like, unlike))
            mean = self.snapshot.mean(column) if unlike else torch.zeros(ours.shape[1])
            return column, by_pictures(ours, others, query.unlike_weight, mean)
        if "words" not in self.snapshot.matrices:
            raise ModelError(
                f"The index was made with {self.encoder.name!r}, which has no text encoder. Search with a picture, or "
                "index the pictures again with lite0, open_clip:MODEL/PRETRAINED or a CLIP model, hf:ORG/NAME."
            )
        text = self.encoder.text
        ours, others = (self._unit(s, "words", text.project) for s in (like, unlike))
        words = [text.encode_text([t])[0] if t.strip() else None for t in (query.text, query.without)]
        self.snapshot.check_width("words", next(len(vector) for vector in words if vector is not None))
        with torch.no_grad():
            return "words", composed((ours, others), (words[0], words[1]), query)

    def _unit(self, encoded: Sequence[Encoded], column: str, made: Callable[[Tensor], Tensor]) -> Float[Tensor, "n d"]:
        if not encoded:
            return torch.empty(0, self.snapshot.matrices[column].shape[1])
        with torch.no_grad():
            return normalize(made(torch.cat([s.pooled[:1] for s in encoded])), dim=1)

    def _hits(self, matches: Nearest, own: set[str], distances: dict[int, float]) -> list[tuple[Hit, Item]]:
        """Return the results without the files of the query, sorted by distance if parts were compared."""
        items = self.catalogue.at_rows(matches.rows.tolist())
        hits = [
            (Hit(items[r].id, items[r].name, items[r].label, score, distances.get(r)), items[r])
            for r, score in zip(matches.rows.tolist(), matches.scores.clamp(-1, 1).tolist(), strict=True)  # float32
            if items[r].digest not in own
        ]
        if distances:
            hits.sort(key=lambda pair: float("inf") if pair[0].distance is None else pair[0].distance)
        return hits

    def _distances(self, query: Encoded, rows: Int[Tensor, " j"], levels: int) -> dict[int, float]:
        width = query.pooled.shape[1]
        self.snapshot.check_width("parts", (len(self.settings.views()) - 1) * width)
        white = self.snapshot.whitening or (lambda parts: parts)
        n_own = n_patches(levels) if self.settings.parts == "spatial" else len(query.pooled) - 1
        own = white(normalize(query.pooled[1 : 1 + n_own], dim=1))
        distances: dict[int, float] = {}
        for part in rows.split(64):
            parts = torch.from_numpy(self.snapshot.matrices["parts"][part.numpy()]).reshape(len(part), -1, width)
            distances.update(zip(part.tolist(), spatial_distance(own, white(parts)).tolist(), strict=True))
        return distances

    def _results(self, query: Query, column: str, shown: Sequence[Hit], n_searched: int) -> Results:
        pictures = self.catalogue.thumbnails([h.id for h in shown])
        hits = tuple(replace(h, thumbnail=pictures.get(h.id, b"")) for h in shown)
        return Results(
            {
                "query": query.to_json(),
                "n": len(self.snapshot.rows),
                "n_searched": n_searched,
                "column": column,
                "version": self.snapshot.version,
                "encoder": self.encoder.name,
                "fingerprint": self.encoder.fingerprint,
                "hits": [h.to_json() for h in hits],
            },
            hits,
        )


def _collapsed(
    hits: Sequence[tuple[Hit, Item]], vectors: Float[Tensor, "n d"], above: float | None, k: int
) -> list[Hit]:
    """Return up to ``k`` results, with near-duplicates grouped under the first one."""
    if above is None:
        return [hit for hit, _ in hits]
    shown: list[int] = []
    copies: dict[int, list[str]] = {}
    for i, (hit, _) in enumerate(hits):
        near = vectors[shown] @ vectors[i]
        if len(shown) and float(near.max()) > above:
            copies.setdefault(shown[int(near.argmax())], []).append(hit.image)
        elif len(shown) < k:
            shown.append(i)
    return [replace(hits[i][0], copies=tuple(copies.get(i, ()))) for i in shown]
