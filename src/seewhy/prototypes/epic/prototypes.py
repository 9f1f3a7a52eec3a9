"""Collecting EPIC's prototypes: the strongest pictures of every channel, without copies, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...attributions.base import Explainable
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError
from ...pictures.miniatures import encode_thumbnail
from ...storage.features import FeatureStore
from ..bank import BankPicture, cell_box
from ..cells import CellPart
from .bank import EPICBank
from .purity import FLOOR, peaks, strongest
from .rotation import Rotation

SPARE = 3
"""Candidates a prototype: enough to replace those that are copies of stronger ones."""


@dataclass(frozen=True)
class Entry:
    """A picture to choose prototypes from.

    Attributes:
        name: file name.
        digest: SHA-256 of its bytes.
        label: index of its class.
    """

    name: str
    digest: str
    label: int


def without_copies(
    candidates: Int[Tensor, "k c"], unit: Float[Tensor, "n d"], m: int, duplicate: float
) -> Int[Tensor, "k m"]:
    """The first ``m`` candidates of each row that are no copies of earlier ones; −1 where they run out."""
    found = torch.full((len(candidates), m), -1)
    for k, row in enumerate(candidates):
        near = (unit[row] @ unit[row].T >= duplicate).tolist()
        kept: list[int] = []
        for i in range(len(row)):
            if len(kept) < m and not any(near[i][j] for j in kept):
                kept.append(i)
        found[k, : len(kept)] = row[kept]
    return found


def collect(
    model: Explainable,
    rotation: Rotation,
    maps: CellPart,
    entries: Sequence[Entry],
    n_kept: int,
    duplicate: float,
    store: FeatureStore | None,
) -> EPICBank:
    """The bank of a rotation."""
    unit = normalize(maps.pooled, dim=1)
    rows = [_patches(rotation, maps, unit, sign, n_kept, duplicate) for sign in (1, -1)]
    channels, owner, cells, purity, signs = (torch.cat(parts) for parts in zip(*rows, strict=True))
    order = torch.argsort(channels * 2 + (signs < 0).long(), stable=True)
    channels, owner, cells, purity, signs = (v[order] for v in (channels, owner, cells, purity, signs))
    used = owner.unique().tolist()
    place = {picture: i for i, picture in enumerate(used)}
    grid = _grid(model, maps)
    boxes = torch.tensor([cell_box(divmod(cell, grid[1]), grid) for cell in range(grid[0] * grid[1])])
    pictures, originals = _read(model, [entries[i] for i in used], boxes, store)
    mine = torch.tensor([place[i] for i in owner.tolist()])
    return EPICBank(pictures, unit[used], mine, boxes[cells], originals[mine, cells], channels, signs, purity, rotation)


def _patches(
    rotation: Rotation, maps: CellPart, unit: Tensor, sign: int, n_kept: int, duplicate: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Channel, picture, cell, purity and sign of each prototype, a channel after the other, strongest first."""
    of = without_copies(strongest(maps.pooled, rotation.matrix, SPARE * n_kept, sign), unit, n_kept, duplicate)
    there = of >= 0
    cells, purity = torch.zeros_like(of), torch.zeros(of.shape)
    for at in peaks(maps, rotation.matrix, of.clamp(min=0), sign):
        own = sign * (at.vectors * rotation.matrix[at.channels]).sum(1)
        length = at.vectors if rotation.form == "orthogonal" else at.vectors @ rotation.matrix.T
        cells[at.channels, at.ranks] = at.cells
        purity[at.channels, at.ranks] = own / length.norm(dim=1).clamp(min=FLOOR)
    channel = torch.arange(len(of))[:, None].expand_as(of)[there]
    return channel, of[there], cells[there], purity[there], torch.full_like(channel, sign)


def _grid(model: Explainable, maps: CellPart) -> tuple[int, int]:
    """Rows and columns of the cells; square unless the input is not."""
    n = len(maps[0])
    height, width = model.encoder.transform.input_size
    rows = round((n * height / width) ** 0.5)
    return rows, n // rows


def _read(
    model: Explainable, entries: Sequence[Entry], boxes: Float[Tensor, "s 4"], store: FeatureStore | None
) -> tuple[tuple[BankPicture, ...], Int[Tensor, "p s 4"]]:
    """Thumbnails, and every cell's box on the upright originals."""
    pictures, originals = [], []
    stream = encode_stream(model.encoder, [e.name for e in entries], store=store, request=EncodeRequest(pictures=True))
    for entry, seen in zip(entries, stream, strict=True):
        if not isinstance(seen, Encoded) or seen.picture is None or seen.digest != entry.digest:
            raise DataError(f"{entry.name} changed while prototypes were fitted. Leave it as it is, and run again.")
        pictures.append(BankPicture(entry.name, entry.digest, entry.label, encode_thumbnail(seen.picture.pixels)))
        view = seen.picture
        originals.append([view.to_original(tuple(box)) for box in boxes.tolist()])
    return tuple(pictures), torch.tensor(originals)
