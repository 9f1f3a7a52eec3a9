"""Vectors of an encoder's cells in the space of the words, and finer maps of its trunk from the same pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention

from ..encoders.base import Encoder, Layout
from ..encoders.split import hooked, weights_digest
from ..errors import ModelError
from ..learning.encoders.pyramid import Stage, listen, stages_of

PLACES = "positional_embedding"
"""Name of the position vectors in a pooling by attention, as in CLIP's residual networks."""


def joint_cells(encoder: Encoder, features: Tensor) -> Float[Tensor, "b d h w"]:
    """Return each cell's vector in the space of the words, from the encoder's head on that cell alone; not of unit
    length.

    MaskCLIP (Zhou et al. 2022, arXiv:2112.01071, section 3.2) takes the last attention's value path, so that a cell
    describes itself alone. Attention over copies of one token is that token's value path. So a head with only one
    cell gives MaskCLIP's form if it pools by attention, and the linear head if it pools by the mean.

    Cost: no pass of the trunk; one pass of the head per cell.
    """
    grid = encoder.layout.to_grid(features)
    b, _, h, w = grid.shape
    flat = grid.permute(0, 2, 3, 1).flatten(0, 2)
    vectors = encoder.text.project(flat if encoder.is_average else _alone(encoder, flat))
    return vectors.unflatten(0, (b, h, w)).permute(0, 3, 1, 2)


def attended_cells(encoder: Encoder, features: Tensor) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]:
    """Return each cell and the whole picture in the space of the words, by attention pooling with every cell as a
    query.

    Equal to DenseCLIP's ``AttentionPool2d`` (Rao et al. 2022, arXiv:2112.01518), with its positions interpolated to
    the map. If the encoder pools by the mean, cells are those of :func:`joint_cells`, and the whole is their mean.
    """
    grid = encoder.layout.to_grid(features)
    if encoder.is_average:
        cells = joint_cells(encoder, features)
        return cells, cells.mean((2, 3))
    pool: Any = encoder.head
    if not all(hasattr(pool, name) for name in (PLACES, "q_proj", "k_proj", "v_proj", "c_proj", "num_heads")):
        raise ModelError(
            f"The head of {encoder.name!r} cannot let cells attend to one another. Expected a head that pools by "
            "the mean or as CLIP's residual networks do. Leave attended out."
        )
    x = grid.flatten(2).transpose(1, 2)
    places = getattr(pool, PLACES)
    side = round((len(places) - 1) ** 0.5)
    own = places[1:].T.unflatten(1, (side, side))[None]
    stretched = interpolate(own, size=grid.shape[2:], mode="bilinear", align_corners=False)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + torch.cat([places[:1], stretched[0].flatten(1).T])
    q, k, v = (
        layer(x).unflatten(2, (pool.num_heads, -1)).transpose(1, 2) for layer in (pool.q_proj, pool.k_proj, pool.v_proj)
    )
    made = encoder.text.project(pool.c_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
    return made[:, 1:].transpose(1, 2).unflatten(2, tuple(grid.shape[2:])), made[:, 0]


def _alone(encoder: Encoder, cells: Float[Tensor, "n c"]) -> Float[Tensor, "n p"]:
    """Every cell through the head, with no other beside it."""
    kind, prefix = encoder.layout.kind, encoder.layout.prefix
    try:
        if kind == "nchw":
            # Without the positions that it adds: a mean and one cell have none.
            places = {
                name: value.new_zeros(2, value.shape[1])
                for name, value in encoder.head.named_parameters()
                if name.rpartition(".")[2] == PLACES and value.ndim == 2
            }
            pooled = functional_call(encoder.head, places, (cells[:, :, None, None],))
        elif kind == "nhwc":
            pooled = encoder.head(cells[:, None, None, :])
        else:
            # A token for each mark that the head looks for before the patches, and one patch.
            pooled = encoder.head(cells[:, None].expand(-1, prefix + 1, -1))
    except (RuntimeError, IndexError, AssertionError, ValueError) as error:
        raise ModelError(
            f"The head of {encoder.name!r} cannot take a single cell ({' '.join(str(error).split())[:120]}). "
            "Expected a head that does not depend on the cells' places. Choose another encoder."
        ) from error
    if pooled.shape[:1] != cells.shape[:1] or not bool(pooled.isfinite().all()):
        raise ModelError(
            f"The head of {encoder.name!r} returns no finite vector for a single cell. Expected a head that takes "
            "any number of cells. Choose another encoder."
        )
    return pooled


MOST = 4
"""Most maps, including the trunk's last."""


class Packed(nn.Module):
    """Pixels → the trunk's map, with the finer maps of each cell in further channels."""

    def __init__(self, trunk: nn.Module, stages: Sequence[Stage], times: Sequence[int]) -> None:
        super().__init__()
        self.trunk, self.stages, self.times = trunk, tuple(stages), tuple(times)

    def forward(self, pixels: Float[Tensor, "b 3 _y _x"]) -> Float[Tensor, "b c h w"]:
        found: dict[str, Tensor] = {}
        with hooked(listen(self.trunk, stage.layer, found) for stage in self.stages):
            last = self.trunk(pixels)
        finer = [
            pixel_unshuffle(Layout(stage.kind).to_grid(found[stage.layer]), times)  # type: ignore[arg-type]
            for stage, times in zip(self.stages, self.times, strict=True)
        ]
        return torch.cat([last, *finer], 1)


def with_levels(encoder: Encoder, n: int) -> Encoder:
    """Return the encoder with finer maps of its trunk behind the last one: the last map of each size (FPN's C3 and
    C4).

    >>> import seewhy
    >>> with_levels(seewhy.encoder("lite0"), 2).layout.finer
    ((672, 2),)
    """
    if n == 1:
        return encoder
    stages: list[Stage] = []
    times: list[int] = []
    if encoder.layout.kind == "nchw":
        with suppress(ModelError):  # all its maps are of one size
            *finer, last = stages_of(encoder.trunk, encoder.layout, encoder.transform.input_size, n_levels=16)
            for stage in reversed(finer):
                times_down, times_across = (a / b for a, b in zip(stage.grid, last.grid, strict=True))
                if times_down == times_across == int(times_down) and len(stages) < n - 1:
                    stages.append(stage)
                    times.append(int(times_down))
    if not stages:
        return encoder
    made = f"{encoder.fingerprint}:levels:{[stage.layer for stage in stages]}"
    return encoder.but(
        trunk=lambda: Packed(encoder.trunk, stages, times).eval(),
        layout=replace(encoder.layout, finer=tuple((s.width, t) for s, t in zip(stages, times, strict=True))),
        fingerprint=hashlib.sha256(made.encode()).hexdigest(),
    )


CHANNELS = {"nchw": 1, "nhwc": 3, "tokens": 2}
"""The channel axis, by the layout of features."""


class Both(nn.Module):
    """Pixels → the features of two trunks with the same layout, the second's channels after the first's."""

    def __init__(self, first: nn.Module, second: nn.Module, axis: int) -> None:
        super().__init__()
        self.first, self.second, self.axis = first, second, axis

    def forward(self, pixels: Float[Tensor, "b 3 _y _x"]) -> Tensor:
        return torch.cat([self.first(pixels), self.second(pixels)], self.axis)


def with_beside(encoder: Encoder, trunk: nn.Module) -> Encoder:
    """Return the encoder with another trunk of the same layout beside its own, in one engine; every pass costs two."""
    return encoder.but(
        trunk=lambda: Both(encoder.trunk, trunk, CHANNELS[encoder.layout.kind]).eval(),
        fingerprint=weights_digest(trunk.state_dict(), f"{encoder.fingerprint}|beside"),
    )


def unpacked(layout: Layout, features: Tensor) -> list[Float[Tensor, "b _c _h _w"]]:
    """Return the maps: the trunk's last first, then finer and finer."""
    maps = [layout.to_grid(features)]
    if layout.finer:
        behind = features[:, maps[0].shape[1] :].split([c * t * t for c, t in layout.finer], 1)
        maps += [pixel_shuffle(one, t) for one, (_, t) in zip(behind, layout.finer, strict=True)]
    return maps
