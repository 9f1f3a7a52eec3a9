"""How an index is made; kept with it, so that every later addition is made alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..classifiers.linear.jitter import paper_twelve
from ..errors import InputError
from ..types import Crop
from .spatial import sub_patches

Parts = Literal["none", "spatial", "jitter"]


@dataclass(frozen=True)
class Settings:
    """What an index keeps of each picture, and when it searches approximately.

    Attributes:
        parts: ``"spatial"`` keeps overlapping sub-patches of each picture, ``"jitter"`` its crops and mirror images,
            for the distance of Razavian et al. (2014); ``"none"`` keeps the picture as a whole.
        levels: of spatial parts: 1, 5, 14 or 30 parts for 1, 2, 3 or 4. A picture costs a forward pass a part, and
            with 30 parts of 1,280 numbers 150 kB.
        whiten: components of PCA whitening, fitted on the index's own pictures; 0 leaves vectors as they are.
        floor: see :class:`~seewhy.retrieval.whitening.Whitening`.
        power: of the signed power after whitening; the paper's is 2.
        words: keep vectors in the space shared with text too, if the encoder has one.
        thumbnail: longest side in pixels; 0 keeps none.
        approximate_from: pictures from which search is approximate, if the extra ``search`` is installed.
        recall: that the approximate search must reach, of 10.
    """

    parts: Parts = "none"
    levels: int = 4
    whiten: int = 0
    floor: float = 0.1
    power: float = 1.0
    words: bool = True
    thumbnail: int = 160
    approximate_from: int = 200_000
    recall: float = 0.95

    def __post_init__(self) -> None:
        if self.parts not in ("none", "spatial", "jitter"):
            raise InputError(f"The parts are {self.parts!r}. Expected none, spatial or jitter. Take one of them.")
        if min(self.whiten, self.thumbnail, self.floor) < 0 or not 0 < self.recall < 1 or self.approximate_from < 1000:
            raise InputError(
                f"Of whiten={self.whiten}, floor={self.floor}, thumbnail={self.thumbnail}, recall={self.recall} and "
                f"approximate_from={self.approximate_from} one is out of range. Expected 0 or more for three, "
                "a recall between 0 and 1, and approximate search from 1,000 pictures or later."
            )

    def views(self, levels: int | None = None) -> Sequence[Crop | None]:
        """What the encoder is shown of a picture: itself, then its parts."""
        if self.parts == "spatial":
            return [None, *sub_patches(self.levels if levels is None else levels)]
        return [None, *paper_twelve()] if self.parts == "jitter" else [None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
