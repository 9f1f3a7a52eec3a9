"""The settings of an index, which are stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Checked, Natural, NotNegative
from ..classifiers.linear.jitter import paper_twelve
from ..errors import InputError
from ..types import Crop


def sub_patches(levels: int) -> list[Crop]:
    """Return the crops of overlapping sub-patches: ``i²`` crops at each level ``i = 1 … levels``.

    The side of a crop at level ``i`` is ``2 / (i + 1)`` of the picture's side, and neighbouring crops overlap by half;
    the paper gives no size. Level 1 is the whole picture.

    Example:
        >>> [tuple(round(v, 2) for v in crop.box) for crop in sub_patches(2)][1:3]
        [(0.0, 0.0, 0.67, 0.67), (0.33, 0.0, 1.0, 0.67)]
    """
    if levels < 1:
        raise InputError(
            f"`levels` must be at least 1, got {levels}. The paper uses 4 levels for the pictures of the index and 3 "
            "for the query."
        )
    crops = []
    for level in range(1, levels + 1):
        side = 2 / (level + 1)
        starts = [0.0] if level == 1 else [i * (1 - side) / (level - 1) for i in range(level)]
        crops += [Crop((left, top, min(left + side, 1.0), min(top + side, 1.0))) for top in starts for left in starts]
    return crops


def n_patches(levels: int) -> int:
    """Return the number of sub-patches for a number of levels: 1, 5, 14, 30, …"""
    return levels * (levels + 1) * (2 * levels + 1) // 6


def spatial_distance(query: Float[Tensor, "a d"], references: Float[Tensor, "n b d"]) -> Float[Tensor, " n"]:
    """Compute the spatial distance of unit vectors, from 0 to 2.

        D(q, r) = 1/A Σ_a min_b ‖f_a(q) − f_b(r)‖

    where ``f_a(q)`` are the vectors of the ``A`` parts of the query, and ``f_b(r)`` those of the parts of a reference
    picture.

    Example:
        >>> spatial_distance(torch.eye(2), torch.eye(2)[None]).tolist()
        [0.0]
    """
    cosine = torch.einsum("ad,nbd->nab", query, references)
    return (2 - 2 * cosine).clamp(min=0).sqrt().amin(2).mean(1)


Parts = Literal["none", "spatial", "jitter"]


@dataclass(frozen=True)
class Settings(Checked):
    """What an index stores for each picture.

    Attributes:
        parts: ``"spatial"`` stores overlapping sub-patches; ``"jitter"`` stores crops and mirror images, for the
            distance of Razavian et al. (2014); ``"none"`` stores only the whole picture.
        levels: number of levels of sub-patches; 1, 2, 3 or 4 levels have 1, 5, 14 or 30 sub-patches. Each sub-patch
            takes a forward pass, and 30 vectors of 1,280 numbers take 150 kB.
        whiten: number of components of PCA whitening, fitted to the index's pictures; 0 disables it.
        floor: fraction of the largest variance that the whitening adds to each variance; see
            :class:`~seewhy.retrieval.vectors.Whitening`.
        power: exponent of the signed power after whitening; the paper uses 2.
        words: whether to store vectors in the space shared with text, if the encoder has a text encoder.
        thumbnail: longest side of stored thumbnails in pixels; 0 stores none.
    """

    noun = "the index"

    parts: Parts = "none"
    levels: int = 4
    whiten: Natural = 0
    floor: NotNegative = 0.1
    power: float = 1.0
    words: bool = True
    thumbnail: Natural = 160

    def views(self, levels: int | None = None) -> Sequence[Crop | None]:
        """Return the crops of a picture to encode; ``None`` is the whole picture."""
        if self.parts == "spatial":
            return [None, *sub_patches(self.levels if levels is None else levels)]
        return [None, *paper_twelve()] if self.parts == "jitter" else [None]
