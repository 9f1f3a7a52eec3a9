"""From a question to hits: the query's vector, the nearest rows, copies folded away, parts compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import DataError, ImageError, InputError, ModelError
from ..report.paging import Page
from ..spelling import nearest
from ..storage.folders import inside
from ..types import Failure
from ..undisturbed import undisturbed
from .approximate import Approximate, Calibration, has_faiss
from .catalogue import Catalogue, Item
from .settings import Settings, n_patches, spatial_distance
from .vectors import Column, Rows, Whitening, exact_top

if TYPE_CHECKING:
    from ..encoders.base import Encoder

One = str | Path | Image.Image | np.ndarray
"""One picture: a file name, or pixels in memory."""

NEUTRAL = (
    "a person", "an animal", "a dog", "a bird", "a plant", "a flower", "a tree", "food", "fruit", "a drink",
    "a building", "a room", "furniture", "a tool", "clothing", "a vehicle", "a road", "water", "the sky", "a machine",
    "a toy", "a sign", "a pattern", "an object",
)  # fmt: skip
"""Sentences whose mean stands for that of all words, where the words' mean is to be subtracted."""


@dataclass(frozen=True)
class Query:
    """A question to an index.

    With pictures alone, ``q = u(mean_i u(x_i) − unlike_weight · mean_j u(z_j))`` with ``u`` for unit length, where
    the index's mean picture is first subtracted from both sides if there is something it should not be like
    (Rocchio's formula). With words, ``q = u(u(x) + weight · u(y))`` in the space shared with text (ALIGN, Jia et al.
    2021, arXiv 2102.05918, section 5.4), where words and pictures it should not be like are subtracted.

    Attributes:
        like: pictures, as file names or pixels; one may be given bare.
        text: words; empty for none.
        unlike: pictures it should not be like.
        without: words that should not hold.
        weight: of the words, the pictures' being 1. The paper found 2 best and 1 fine; on groceries with the embedded
            encoder 1 was better than 2 (docs/search.md).
        unlike_weight: of what it should not be like.
        centred: subtract each modality's mean before mixing; words and pictures lie in cones apart.

    Raises:
        InputError: nothing is asked for, or a weight is negative.
    """

    like: One | Sequence[One] = ()
    text: str = ""
    unlike: One | Sequence[One] = ()
    without: str = ""
    weight: float = 1.0
    unlike_weight: float = 0.5
    centred: bool = False

    def __post_init__(self) -> None:
        if not self.pictures and not self.text.strip():
            raise InputError("Nothing was asked for. A picture, words, or both were expected. Give --image or --text.")
        if self.weight < 0 or self.unlike_weight < 0:
            raise InputError(
                f"A weight is below 0 ({self.weight}, {self.unlike_weight}). Expected 0 or more. Raise it."
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
        """What was asked, for pages and JSON; pictures in memory by their place."""
        return {
            "like": [_name(p, i) for i, p in enumerate(self.pictures)],
            "text": self.text,
            "unlike": [_name(p, i) for i, p in enumerate(self.unlike_pictures)],
            "unlike_weight": self.unlike_weight,
            "without": self.without,
            "weight": self.weight,
            "centred": self.centred,
        }


def _several(pictures: One | Sequence[One]) -> tuple[One, ...]:
    return (pictures,) if isinstance(pictures, One) else tuple(pictures)


def _name(picture: One, index: int) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"picture {index + 1}"


def by_pictures(
    like: Float[Tensor, "a d"], unlike: Float[Tensor, "b d"], weight: float, mean: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """The query of pictures alone."""
    if not len(unlike):
        return normalize(like.mean(0), dim=0)
    wanted, unwanted = (like - mean).mean(0), (unlike - mean).mean(0)
    return normalize(normalize(wanted, dim=0) - weight * normalize(unwanted, dim=0), dim=0)


def composed(
    pictures: tuple[Float[Tensor, "a d"], Float[Tensor, "b d"]],
    words: tuple[Float[Tensor, " d"] | None, Float[Tensor, " d"] | None],
    query: Query,
    means: Callable[[], tuple[Float[Tensor, " d"], Float[Tensor, " d"]]],
) -> Float[Tensor, " d"]:
    """The query of words, and of words and pictures."""
    nothing = torch.zeros(len(words[0] if words[0] is not None else pictures[0][0]))
    of_pictures, of_words = means() if query.centred else (nothing, nothing)
    like, unlike = (normalize(p.mean(0) - of_pictures, dim=0) if len(p) else nothing for p in pictures)
    said, unsaid = (normalize(w - of_words, dim=0) if w is not None else nothing for w in words)
    return normalize(like + query.weight * said - query.unlike_weight * (unlike + query.weight * unsaid), dim=0)


@dataclass(frozen=True)
class Hit:
    """One picture that was found."""

    id: int
    image: str
    label: str
    cosine: float
    exact: bool
    distance: float | None = None
    copies: tuple[str, ...] = ()
    thumbnail: bytes = field(default=b"", repr=False)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": self.id,
            "image": self.image,
            "label": self.label,
            "cosine": round(min(1.0, max(-1.0, self.cosine)), 6),  # of 1,280 float32 products, it may end above 1
            "exact": self.exact,
            "copies": list(self.copies),
        }
        return found if self.distance is None else {**found, "distance": round(max(0.0, self.distance), 6)}


@dataclass(frozen=True, repr=False)
class Results(Page):
    """The pictures found, nearest first; ``data`` is the documented JSON (docs/search.md)."""

    hits: tuple[Hit, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every picture was compared."""
        return bool(self.data["exact"])

    def to_html(self) -> str:
        from ..report.search import render_search

        return render_search(self.data, self.hits)


WHITENING = r"whitening-[0-9a-f]+\.safetensors"
APPROXIMATE = r"approximate-[0-9a-f]+\.faiss"
"""Names of an index's files beside its columns."""

N_EXACT = 50_000
"""So few rows are searched exactly even where an approximate index is there: it costs less than 20 ms."""

N_MEAN = 20_000
"""Vectors that a column's mean is taken of."""


@dataclass(frozen=True)
class Nearest:
    """What a search found."""

    scores: Float[Tensor, " j"]
    rows: Int[Tensor, " j"]
    exact: bool


@dataclass(frozen=True)
class Snapshot:
    """One finished step."""

    version: int
    n_rows: int
    rows: Int[np.ndarray, " n"]
    columns: dict[str, Column]
    matrices: dict[str, Rows]
    whitening: Whitening | None
    built: str | None
    approximate: Approximate | None

    @classmethod
    @undisturbed
    def of(cls, catalogue: Catalogue, before: Snapshot | None = None) -> Snapshot:
        """The last finished step; inside :meth:`Catalogue.reading`."""
        shapes, built, whitening = catalogue.need("columns"), catalogue.get("approximate"), catalogue.get("whitening")
        n_rows, folder = catalogue.get("n_rows", 0), catalogue.folder
        columns = {n: Column(folder, n, w, g) for n, (w, g) in shapes.items()}
        return cls(
            catalogue.get("version", 0),
            n_rows,
            catalogue.rows(),
            columns,
            {
                name: column.rows(n_rows, has_sums=catalogue.has_sums).trust(
                    None if before is None else before.matrices.get(name)
                )
                for name, column in columns.items()
            },
            None if whitening is None else _whitening(inside(folder, whitening["file"], WHITENING), columns),
            built and built["column"],
            _load(folder, built, columns),
        )

    def check_width(self, column: str, width: int) -> None:
        """Refuse numbers that are not of a column's rows."""
        own = self.columns[column].width if column in self.columns else 0
        if own != width:
            folder = self.columns["look"].folder
            raise DataError(
                f"The index {folder} has rows of {own} numbers in {column!r}, and its encoder makes {width}. It is "
                "damaged: make it again from the pictures."
            )

    @property
    def main(self) -> str:
        """The column that pictures are searched in."""
        return "look" if self.whitening is None else "whitened"

    def mean(self, column: str) -> Float[Tensor, " d"]:
        """The mean vector of a column, over pictures spread through the index."""
        some = self.rows[np.linspace(0, len(self.rows) - 1, min(len(self.rows), N_MEAN)).astype(np.int64)]
        return torch.from_numpy(np.array(self.matrices[column][some])).mean(0)

    @undisturbed
    def top(
        self,
        column: str,
        query: Float[Tensor, " d"],
        k: int,
        *,
        rows: Int[np.ndarray, " m"] | None = None,
        exact: bool = False,
    ) -> Nearest:
        """The ``k`` nearest."""
        wanted = self.rows if rows is None else rows
        fast = self.approximate if self.built == column else None
        if exact or fast is None or len(wanted) <= N_EXACT:
            every = len(wanted) == self.n_rows
            scores, rows_found = exact_top(self.matrices[column], query[None], k, None if every else wanted)
            found = Nearest(scores[0], rows_found[0], True)
        else:
            found = self._approximately(fast, column, query, k, wanted)
        if not bool(found.scores.isfinite().all()):
            raise DataError(
                f"{self.columns[column].path} holds numbers that are not finite. Make the index again from the "
                "pictures."
            )
        return found

    def _approximately(
        self, fast: Approximate, column: str, query: Float[Tensor, " d"], k: int, wanted: Int[np.ndarray, " m"]
    ) -> Nearest:
        """The covered rows by the approximate index, later ones exactly."""
        covered = fast.calibration.n_rows
        keep = None
        if len(wanted) < self.n_rows:
            keep = np.zeros(covered, bool)
            keep[wanted[wanted < covered]] = True
        scores, found = fast.top(self.matrices[column], query[None], k, keep=keep)
        later = wanted[wanted >= covered]
        if len(later):
            more, at = exact_top(self.matrices[column], query[None], k, later)
            scores, found = torch.cat([scores, more], 1), torch.cat([found, at], 1)
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            found = found.gather(1, order)
        real = (found[0] >= 0).nonzero()[:k, 0]
        return Nearest(scores[0][real], found[0][real], False)


def check_names(catalogue: Catalogue) -> None:
    """See that what an index names as its files are names of files in its folder."""
    for name, (width, generation) in (catalogue.get("columns") or {}).items():
        _ = Column(catalogue.folder, name, width, generation).path
    for key, pattern in (("whitening", WHITENING), ("approximate", APPROXIMATE)):
        if (made := catalogue.get(key)) is not None:
            inside(catalogue.folder, made["file"], pattern)


def _whitening(path: Path, columns: dict[str, Column]) -> Whitening:
    """How ``"whitened"`` was made of ``"look"``, if it can have been."""
    found = Whitening.load(path)
    if "whitened" not in columns or found.matrix.shape != (columns["look"].width, columns["whitened"].width):
        raise DataError(
            f"{path} is of other vectors than those of the index: {tuple(found.matrix.shape)}. Make the index again "
            "from the pictures."
        )
    return found


def _load(folder: Path, built: dict[str, Any] | None, columns: dict[str, Column]) -> Approximate | None:
    """The approximate index, if one was built and its engine is installed; without it every row is compared."""
    if built is None or built["column"] not in columns or not has_faiss():
        return None
    place, width = inside(folder, built["file"], APPROXIMATE), columns[built["column"]].width
    return Approximate.load(place, Calibration(**built["calibration"]), width, built.get("sha256", ""))


N_SPATIAL = 500
"""Pictures whose parts are compared: those nearest as a whole."""


class Searching:
    """One search on one finished step of an index."""

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
