"""Image-text embeddings of single grid cells, and feature maps from several stages of an encoder."""

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
"""Name of the position embeddings in CLIP's attention pooling."""


def joint_cells(encoder: Encoder, features: Tensor) -> Float[Tensor, "b d h w"]:
    """Return the image-text embedding of each grid cell, not normalised.

    MaskCLIP (Zhou et al. 2022, arXiv:2112.01071, section 3.2) uses the value path of the last attention layer. Here,
    the head is applied to one grid cell at a time, which gives the same embedding and also works for a head that
    averages.

    The head runs once per grid cell; the trunk does not run.
    """
    grid = encoder.layout.to_grid(features)
    b, _, h, w = grid.shape
    flat = grid.permute(0, 2, 3, 1).flatten(0, 2)
    vectors = encoder.text.project(flat if encoder.is_average else _alone(encoder, flat))
    return vectors.unflatten(0, (b, h, w)).permute(0, 3, 1, 2)


def attended_cells(encoder: Encoder, features: Tensor) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]:
    """Return the image-text embeddings of each grid cell and of the picture, by attention pooling.

    The result equals that of DenseCLIP's ``AttentionPool2d`` (Rao et al. 2022, arXiv:2112.01518) with interpolated
    position embeddings. If the encoder pools by the mean, the picture's embedding is the mean of the result of
    :func:`joint_cells`.
    """
    grid = encoder.layout.to_grid(features)
    if encoder.is_average:
        cells = joint_cells(encoder, features)
        return cells, cells.mean((2, 3))
    pool: Any = encoder.head
    if not all(hasattr(pool, name) for name in (PLACES, "q_proj", "k_proj", "v_proj", "c_proj", "num_heads")):
        raise ModelError(
            f"The head of {encoder.name!r} has no attention between grid cells. Choose an encoder that pools by the "
            "mean or by CLIP's attention pooling, or set attended=false."
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
    """Apply the head to each grid cell separately."""
    kind, prefix = encoder.layout.kind, encoder.layout.prefix
    try:
        if kind == "nchw":
            # Without position embeddings, because a mean and a single cell have no position.
            places = {
                name: value.new_zeros(2, value.shape[1])
                for name, value in encoder.head.named_parameters()
                if name.rpartition(".")[2] == PLACES and value.ndim == 2
            }
            pooled = functional_call(encoder.head, places, (cells[:, :, None, None],))
        elif kind == "nhwc":
            pooled = encoder.head(cells[:, None, None, :])
        else:
            # One token for each prefix token that the head expects, and one patch.
            pooled = encoder.head(cells[:, None].expand(-1, prefix + 1, -1))
    except (RuntimeError, IndexError, AssertionError, ValueError) as error:
        raise ModelError(
            f"The head of {encoder.name!r} cannot process a single grid cell ({' '.join(str(error).split())[:120]}). "
            "Choose another encoder."
        ) from error
    if pooled.shape[:1] != cells.shape[:1] or not bool(pooled.isfinite().all()):
        raise ModelError(
            f"The head of {encoder.name!r} returned a non-finite vector or a wrong shape for a single grid cell. "
            "Choose another encoder."
        )
    return pooled


MOST = 4
"""Largest number of feature maps, including the last."""


class Packed(nn.Module):
    """A trunk whose output also contains feature maps of earlier stages, packed into channels."""

    def __init__(self, trunk: nn.Module, stages: Sequence[tuple[Stage, int]]) -> None:
        super().__init__()
        self.trunk, self.stages = trunk, tuple(stages)

    def forward(self, pixels: Float[Tensor, "b 3 _y _x"]) -> Float[Tensor, "b c h w"]:
        found: dict[str, Tensor] = {}
        with hooked(listen(self.trunk, stage.layer, found) for stage, _ in self.stages):
            last = self.trunk(pixels)
        finer = [
            pixel_unshuffle(Layout(stage.kind).to_grid(found[stage.layer]), times)  # type: ignore[arg-type]
            for stage, times in self.stages
        ]
        return torch.cat([last, *finer], 1)


def with_levels(encoder: Encoder, n: int) -> Encoder:
    """Return the encoder with ``n`` feature maps, the last of each resolution (C3 and C4 of FPN).

    >>> import seewhy
    >>> with_levels(seewhy.encoder("lite0"), 2).layout.finer
    ((672, 2),)
    """
    if n == 1:
        return encoder
    stages: list[tuple[Stage, int]] = []
    if encoder.layout.kind == "nchw":
        with suppress(ModelError):  # all its maps have the same size
            *finer, last = stages_of(encoder.trunk, encoder.layout, encoder.transform.input_size, n_levels=16)
            for stage in reversed(finer):
                times_down, times_across = (a / b for a, b in zip(stage.grid, last.grid, strict=True))
                if times_down == times_across == int(times_down) and len(stages) < n - 1:
                    stages.append((stage, int(times_down)))
    if not stages:
        return encoder
    made = f"{encoder.fingerprint}:levels:{[stage.layer for stage, _ in stages]}"
    return encoder.but(
        trunk=lambda: Packed(encoder.trunk, stages).eval(),
        layout=replace(encoder.layout, finer=tuple((s.width, t) for s, t in stages)),
        fingerprint=hashlib.sha256(made.encode()).hexdigest(),
    )


CHANNELS = {"nchw": 1, "nhwc": 3, "tokens": 2}
"""Channel axis of each feature layout."""


class Both(nn.Module):
    """A module that concatenates the features of two trunks along the channel axis."""

    def __init__(self, first: nn.Module, second: nn.Module, axis: int) -> None:
        super().__init__()
        self.first, self.second, self.axis = first, second, axis

    def forward(self, pixels: Float[Tensor, "b 3 _y _x"]) -> Tensor:
        return torch.cat([self.first(pixels), self.second(pixels)], self.axis)


def with_beside(encoder: Encoder, trunk: nn.Module) -> Encoder:
    """Return the encoder with a second trunk, whose features are concatenated to those of the first."""
    return encoder.but(
        trunk=lambda: Both(encoder.trunk, trunk, CHANNELS[encoder.layout.kind]).eval(),
        fingerprint=weights_digest(trunk.state_dict(), f"{encoder.fingerprint}|beside"),
    )


def unpacked(layout: Layout, features: Tensor) -> list[Float[Tensor, "b _c _h _w"]]:
    """Return the feature maps, from the coarsest to the finest."""
    maps = [layout.to_grid(features)]
    if layout.finer:
        behind = features[:, maps[0].shape[1] :].split([c * t * t for c, t in layout.finer], 1)
        maps += [pixel_shuffle(one, t) for one, (_, t) in zip(behind, layout.finer, strict=True)]
    return maps
