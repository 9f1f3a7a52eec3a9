"""Purity: how alone a channel is at the place where it is strongest (EPIC, arXiv 2505.12897)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

FLOOR = 1e-8
"""Smallest length a vector is divided by, as in the paper's code."""


class Maps(Protocol):
    """Cells of pictures; the mean over the cells of each is ``pooled``."""

    @property
    def pooled(self) -> Float[Tensor, "n d"]: ...

    def __getitem__(self, index: int, /) -> Float[Tensor, "s d"]: ...

    def __len__(self) -> int: ...


def strongest(
    pooled: Float[Tensor, "n d"], rotation: Float[Tensor, "k d"], m: int, sign: int = 1
) -> Int[Tensor, "k m"]:
    """The ``m`` pictures that excite each channel most, strongest first: a channel's prototypes.

    ``act(I, k) = Σ_hw (U Z)_k`` is the mean times the number of cells, so the pooled vectors are enough.

    Args:
        pooled: mean of each picture's cells.
        rotation: ``U``, or some of its rows.
        m: pictures a channel; all where there are fewer.
        sign: 1 for positive prototypes, −1 for negative ones (smallest activation).
    """
    return (sign * pooled @ rotation.T).topk(min(m, len(pooled)), dim=0).indices.T


@dataclass(frozen=True)
class Peaks:
    """Where channels are strongest on one picture.

    Attributes:
        picture: its index.
        channels: rows of the rotation that have it among their prototypes.
        ranks: its place among the prototypes of each.
        cells: where each is strongest, as an index into the picture's cells.
        vectors: the cells' features before the rotation.
    """

    picture: int
    channels: Int[Tensor, " p"]
    ranks: Int[Tensor, " p"]
    cells: Int[Tensor, " p"]
    vectors: Float[Tensor, "p d"]


def peaks(maps: Maps, rotation: Float[Tensor, "k d"], of: Int[Tensor, "k m"], sign: int = 1) -> Iterator[Peaks]:
    """Picture by picture, the cell at which each channel that has it as a prototype is strongest.

    Args:
        maps: cells.
        rotation: ``U``, or some of its rows.
        of: prototypes of each row, as :func:`strongest` gives them.
        sign: −1 takes the lowest cell.
    """
    flat = of.reshape(-1)
    order = flat.argsort(stable=True)
    start = 0
    for picture, count in enumerate(torch.bincount(flat, minlength=len(maps)).tolist()):
        if not count:
            continue
        pairs = order[start : start + count]
        start += count
        channels, ranks = pairs // of.shape[1], pairs % of.shape[1]
        cells = maps[picture]
        at = (sign * cells @ rotation[channels].T).argmax(0)
        yield Peaks(picture, channels, ranks, at, cells[at])


def purity(
    maps: Maps,
    rotation: Float[Tensor, "d d"],
    of: Int[Tensor, "d m"],
    *,
    orthogonal: bool = True,
    sign: int = 1,
) -> Float[Tensor, "d m"]:
    """``p_k / ‖p‖`` with ``p = U Z[:, h*, w*]`` at the cell where channel ``k`` is strongest; −1…1.

    1: nothing but channel ``k`` is active there. For an orthogonal ``U`` the length of ``p`` is that of ``Z`` itself,
    so that ``U`` need not be applied to all of it.
    """
    found = torch.zeros(of.shape)
    for at in peaks(maps, rotation, of, sign):
        own = sign * (at.vectors * rotation[at.channels]).sum(1)
        length = (at.vectors if orthogonal else at.vectors @ rotation.T).norm(dim=1)
        found[at.channels, at.ranks] = own / length.clamp(min=FLOOR)
    return found


def mean_unit_peaks(
    maps: Maps,
    rotation: Float[Tensor, "k d"],
    of: Int[Tensor, "k m"],
    weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "k d"]:
    """Row ``k`` of ``A``: the mean unit feature at the peaks of channel ``k``'s prototypes.

    With prototypes and peaks held, the mean purity of an orthogonal ``U`` is ``<U, A> / d``.
    """
    by_rank = torch.full(of.shape[1:], 1 / of.shape[1]) if weights is None else weights
    mean = torch.zeros(rotation.shape)
    for at in peaks(maps, rotation, of):
        unit = at.vectors / at.vectors.norm(dim=1, keepdim=True).clamp(min=FLOOR)
        mean.index_add_(0, at.channels, unit * by_rank[at.ranks][:, None])
    return mean
