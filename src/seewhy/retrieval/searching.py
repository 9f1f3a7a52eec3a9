"""From a question to hits: the query's vector, the nearest rows, copies folded away, parts compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import DataError, ImageError, ModelError
from ..spelling import nearest
from ..types import Failure
from ..undisturbed import undisturbed
from .catalogue import Catalogue, Item
from .query import NEUTRAL, Query, by_pictures, composed
from .results import Hit, Results
from .settings import Settings
from .snapshot import Nearest, Snapshot
from .spatial import n_patches, spatial_distance

if TYPE_CHECKING:
    from ..encoders.base import Encoder

N_SPATIAL = 500
"""Pictures whose parts are compared: those nearest as a whole."""


class Searching:
    """One search on one finished step of an index.

    Args:
        catalogue: of the index, inside :meth:`Catalogue.reading`.
        snapshot: the step.
        encoder: what looks at the query.
        settings: of the index.
    """

    def __init__(self, catalogue: Catalogue, snapshot: Snapshot, encoder: Encoder, settings: Settings) -> None:
        self.catalogue = catalogue
        self.snapshot = snapshot
        self.encoder = encoder
        self.settings = settings

    @undisturbed
    def search(
        self,
        query: Query,
        *,
        k: int,
        labels: Sequence[str] | None,
        exact: bool,
        collapse: float | None,
        levels: int,
    ) -> Results:
        """See :meth:`seewhy.retrieval.Index.search`."""
        rows = self._rows(labels)
        like, unlike = self._seen(query.pictures, levels), self._seen(query.unlike_pictures, 0)
        column, vector = self._vector(query, like, unlike)
        own = {s.digest for s in (*like, *unlike)}
        spatial = self.settings.parts != "none" and len(like) == 1 and not unlike and not query.has_words
        # Words lie apart from the pictures on which the approximate search was calibrated.
        exact = exact or query.has_words
        n = max(k, N_SPATIAL) if spatial else k
        while True:
            wanted = n + 4 * len(own) + 20
            found = self.snapshot.top(column, vector, wanted, rows=rows, exact=exact)
            hits = self._hits(found, own, {} if not spatial else self._distances(like[0], found.rows, levels))
            shown = _collapsed(hits, self._vectors(column, hits), collapse, k)
            if len(shown) >= k or len(found.rows) < wanted:
                break
            n *= 2
        return self._results(query, column, found, shown[:k], len(self.snapshot.rows if rows is None else rows))

    def _rows(self, labels: Sequence[str] | None) -> Int[np.ndarray, " m"] | None:
        if not len(self.snapshot.rows):
            raise DataError("The index is empty. Add pictures with: seewhy index PHOTOS -o IDX")
        if labels is None:
            return None
        known = self.catalogue.labels()
        strange = [label for label in labels if label not in known]
        if strange:
            near = nearest(strange[0], known, n=3, cutoff=0.4) or list(known)[:5]
            raise DataError(
                f"No picture of the index has the class {strange[0]!r}. Did you mean {', '.join(map(repr, near))}?"
            )
        return self.catalogue.rows_of(labels)

    def _seen(self, pictures: Sequence[Any], levels: int) -> list[Encoded]:
        """The query's pictures, with their parts where parts will be compared."""
        views = self.settings.views(levels) if levels > 0 else (None,)
        found = []
        for seen in encode_stream(self.encoder, pictures, request=EncodeRequest(views=lambda _index: views)):
            if isinstance(seen, Failure):
                raise ImageError(seen.image, seen.error)
            self.snapshot.check_width("look", seen.pooled.shape[1])
            found.append(seen)
        return found

    def _vector(
        self, query: Query, like: Sequence[Encoded], unlike: Sequence[Encoded]
    ) -> tuple[str, Float[Tensor, " d"]]:
        """The column to search, and the query in it."""
        if not query.has_words:
            column, white = self.snapshot.main, self.snapshot.whitening
            of, other = (self._unit(s, column, white or _as_they_are) for s in (like, unlike))
            mean = self.snapshot.mean(column) if unlike else torch.zeros(of.shape[1])
            return column, by_pictures(of, other, query.unlike_weight, mean)
        if "words" not in self.snapshot.matrices:
            raise ModelError(
                f"The index was made with {self.encoder.name!r} without words, so it cannot be searched by them. "
                "Index the pictures with an image-text encoder: lite0, open_clip:MODEL/PRETRAINED or a CLIP under hf:."
            )
        text = self.encoder.text
        of, other = (self._unit(s, "words", text.project) for s in (like, unlike))
        said = [text.encode_text([t])[0] if t.strip() else None for t in (query.text, query.without)]
        self.snapshot.check_width("words", next(len(one) for one in said if one is not None))

        def means() -> tuple[Tensor, Tensor]:
            return self.snapshot.mean("words"), text.encode_text(NEUTRAL).mean(0)

        with torch.no_grad():
            return "words", composed((of, other), (said[0], said[1]), query, means)

    def _unit(self, seen: Sequence[Encoded], column: str, made: Callable[[Tensor], Tensor]) -> Float[Tensor, "n d"]:
        """Unit vectors of pictures in a column; there may be none."""
        if not seen:
            return torch.empty(0, self.snapshot.matrices[column].shape[1])
        with torch.no_grad():
            return normalize(made(torch.cat([s.pooled[:1] for s in seen])), dim=1)

    def _hits(self, found: Nearest, own: set[str], distances: dict[int, float]) -> list[tuple[Hit, Item]]:
        """Hits in order: of distance where parts were compared, else as found; without the query's own file."""
        items = self.catalogue.at_rows(found.rows.tolist())
        hits = [
            (Hit(items[r].id, items[r].name, items[r].label, score, found.exact, distances.get(r)), items[r])
            for r, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
            if items[r].digest not in own
        ]
        if distances:
            hits.sort(key=lambda pair: float("inf") if pair[0].distance is None else pair[0].distance)
        return hits

    def _distances(self, query: Encoded, rows: Int[Tensor, " j"], levels: int) -> dict[int, float]:
        """Distances between parts, by row."""
        width = query.pooled.shape[1]
        self.snapshot.check_width("parts", (len(self.settings.views()) - 1) * width)
        matrix = self.snapshot.matrices["parts"]
        n_own = n_patches(levels) if self.settings.parts == "spatial" else len(query.pooled) - 1
        asked = normalize(query.pooled[1 : 1 + n_own], dim=1)
        white = self.snapshot.whitening
        asked = asked if white is None else white(asked)
        found: dict[int, float] = {}
        for part in rows.split(64):
            parts = torch.from_numpy(matrix[part.numpy()]).reshape(len(part), -1, width)
            parts = parts if white is None else white(parts)
            found.update(zip(part.tolist(), spatial_distance(asked, parts).tolist(), strict=True))
        return found

    def _vectors(self, column: str, hits: Sequence[tuple[Hit, Item]]) -> Float[Tensor, "n d"]:
        return torch.from_numpy(self.snapshot.matrices[column][[item.row for _, item in hits]])

    def _results(self, query: Query, column: str, found: Nearest, shown: Sequence[Hit], n_searched: int) -> Results:
        pictures = self.catalogue.thumbnails([h.id for h in shown])
        hits = tuple(replace(h, thumbnail=pictures.get(h.id, b"")) for h in shown)
        fast = None if found.exact else self.snapshot.approximate
        return Results(
            {
                "query": query.to_json(),
                "n": len(self.snapshot.rows),
                "n_searched": n_searched,
                "exact": found.exact,
                "recall": None if fast is None else fast.calibration.recall,
                "column": column,
                "version": self.snapshot.version,
                "encoder": self.encoder.name,
                "fingerprint": self.encoder.fingerprint,
                "hits": [h.to_json() for h in hits],
            },
            hits,
        )


def _as_they_are(pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return pooled


def _collapsed(
    hits: Sequence[tuple[Hit, Item]], vectors: Float[Tensor, "n d"], above: float | None, k: int
) -> list[Hit]:
    """Near-duplicates of a hit listed under it instead of beside it."""
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
