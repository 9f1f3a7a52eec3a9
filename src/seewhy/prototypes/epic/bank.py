"""EPIC's prototypes as they are kept: the matrix, and for every channel the patches that excite it most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...attributions.base import Explainable
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError
from ...pictures.miniatures import encode_thumbnail
from ...storage.features import FeatureStore
from ..bank import BankPicture, cell_box, check_index
from ..cells import CellPart
from ..fitted import FittedBank
from .rotation import TOLERANCE, Rotation, peaks, strongest

SPARE = 3
"""Candidates a prototype: enough to replace those that are copies of stronger ones."""


@dataclass(frozen=True, eq=False)
class EPICBank(FittedBank):
    """Prototypes of every channel, positive and negative, duplicates left out.

    Each patch's box is the cell at which its channel is strongest, grown by half a cell.

    Attributes:
        channels: channel of each patch; a channel's patches follow each other, strongest picture first.
        signs: 1 for positive prototypes, −1 for negative ones.
        purity: of each patch, the cosine of its features with the channel's direction, −1…1.
        rotation: the matrix and its inverse.
    """

    method = "epic"

    channels: Int[Tensor, " n"]
    signs: Int[Tensor, " n"]
    purity: Float[Tensor, " n"]
    rotation: Rotation

    def of_channel(self, channel: int, sign: int) -> list[int]:
        """Patches of a channel, strongest picture first."""
        return ((self.channels == channel) & (self.signs == sign)).nonzero()[:, 0].tolist()

    def own(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            "matrix": self.rotation.matrix,
            "channels": self.channels.int(),
            "signs": self.signs.to(torch.int8),
            "purity": self.purity.half(),
        }
        if self.rotation.form == "invertible":
            tensors["inverse"] = self.rotation.inverse
        return tensors, {"form": self.rotation.form}

    @classmethod
    def given(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
        matrix = tensors["matrix"]
        inverse = tensors.get("inverse", matrix.T)
        if matrix.ndim != 2 or len({*matrix.shape, *inverse.shape}) != 1 or not matrix.is_floating_point():
            raise ValueError(f"its matrix is {matrix.dtype} {tuple(matrix.shape)}")
        rotation = Rotation(matrix, inverse, facts["form"])
        if not rotation.error < TOLERANCE:
            raise ValueError(f"its matrix times its inverse is off by {rotation.error:.1e}")
        check_index("the prototypes' channels", tensors["channels"], len(matrix))
        return {"rotation": rotation}

    def check(self, model: Explainable) -> None:
        if len(self.rotation.matrix) != (width := model.head.weight.shape[1]):
            raise ValueError(f"a matrix {tuple(self.rotation.matrix.shape)} for {width} channels")

    def spoken(self) -> dict[str, Any]:
        """The prototypes of each channel by file name, digest and box."""
        pictures = [{"image": p.name, "sha256": p.digest, "class": p.label} for p in self.pictures]
        rows = zip(*(x.tolist() for x in (self.channels, self.signs, self.owner, self.pixel_boxes)), strict=True)
        channels: dict[str, list[list[Any]]] = {}
        for channel, sign, owner, box in rows:
            channels.setdefault(f"{'+' if sign > 0 else '-'}{channel}", []).append([owner, box])
        return {"pictures": pictures, "prototypes": channels}

    def lines(self) -> list[str]:
        m = self.measures
        held, likeness, share = m["held_out"], m["likeness"], m["top_4_share"]
        low, high = held["gain_interval"]
        lines = [
            f"fitted to {m['n_fitted']} of {m['n_pictures']} pictures by {m['optimiser']}",
            f"logits change by {m['logit_difference']:.0e} of the largest at most; "
            f"{m['decisions_kept']:.0%} of the decisions stay",
            f"purity on {held['n']} pictures held out: {held['purity']:.3f}, before {held['before']:.3f}, random "
            f"rotation {held['random']:.3f}; gain {held['gain']:+.4f} (95 % {low:+.4f} to {high:+.4f})",
            f"the strongest 4 channels are {share['fitted']:.1%} of what speaks for a decision, "
            f"before {share['before']:.1%}",
        ]
        if likeness is not None:
            lines.append(
                f"prototypes shown for held-out pictures carry the predicted class {likeness['precision']:.0%} of the "
                f"time (chance {likeness['chance']:.0%})"
            )
        return lines


class Entry(NamedTuple):
    """A picture to choose prototypes from: file name, SHA-256 of its bytes, index of its class."""

    name: str
    digest: str
    label: int


def without_copies(
    candidates: Int[Tensor, "k c"], unit: Float[Tensor, "n d"], m: int, duplicate: float
) -> Int[Tensor, "k m"]:
    """The first ``m`` candidates of each row that are no copies of earlier ones; −1 where they run out.

    ``unit`` are pooled vectors of unit length, and ``duplicate`` the cosine from which two count as one.
    """
    chosen = torch.full((len(candidates), m), -1)
    for k, row in enumerate(candidates):
        near = (unit[row] @ unit[row].T >= duplicate).tolist()
        kept: list[int] = []
        for i in range(len(row)):
            if len(kept) < m and not any(near[i][j] for j in kept):
                kept.append(i)
        chosen[k, : len(kept)] = row[kept]
    return chosen


def collect(
    model: Explainable,
    rotation: Rotation,
    maps: CellPart,
    entries: Sequence[Entry],
    n_kept: int,
    duplicate: float,
    store: FeatureStore | None,
) -> EPICBank:
    """The bank of a rotation: ``n_kept`` prototypes of each channel and sign, from cells of these pictures."""
    unit = normalize(maps.pooled, dim=1)
    rows = [_patches(rotation, maps, unit, sign, n_kept, duplicate) for sign in (1, -1)]
    channels, owner, cells, purity, signs = (torch.cat(parts) for parts in zip(*rows, strict=True))
    order = torch.argsort(channels * 2 + (signs < 0).long(), stable=True)
    channels, owner, cells, purity, signs = (v[order] for v in (channels, owner, cells, purity, signs))
    used = owner.unique().tolist()
    place = {picture: i for i, picture in enumerate(used)}
    n, (height, width) = len(maps[0]), model.encoder.transform.input_size
    grid_rows = round((n * height / width) ** 0.5)
    grid = (grid_rows, n // grid_rows)
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
        cells[at.channels, at.ranks] = at.cells
        purity[at.channels, at.ranks] = own / rotation.length(at.vectors)
    channel = torch.arange(len(of))[:, None].expand_as(of)[there]
    return channel, of[there], cells[there], purity[there], torch.full_like(channel, sign)


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
        originals.append([seen.picture.to_original(tuple(box)) for box in boxes.tolist()])
    return tuple(pictures), torch.tensor(originals)
