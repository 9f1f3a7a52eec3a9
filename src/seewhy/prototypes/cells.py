"""Features of grid cells; their mean over the cells is the pooled feature vector."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..attributions.base import Explainable
from ..encoders.base import Encoder
from ..encoders.split import FromLayer
from ..errors import DataError, InputError
from ..storage.cache import cache_dir
from ..storage.folders import remove_inside

Unpooled = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b d h w"]]
"""A function from feature maps to maps whose spatial mean is the pooled vector."""

TOLERANCE = 1e-4
"""Largest relative difference between the mean of the grid cells and the pooled vector."""


def _pooled_norm(norm: nn.LayerNorm, grid: Tensor) -> Tensor:
    """Apply a layer norm that follows pooling to each grid cell instead.

        x = (z - mean(p)) / sqrt(var(p) + eps) * gamma + beta

    - ``z``: the features of a grid cell.
    - ``p``: the pooled vector, the mean of ``z`` over grid cells.
    - ``gamma``, ``beta`` and ``eps``: the parameters of the layer norm.
    - ``x``: the result; its mean over grid cells is the layer norm of ``p``.
    """
    pooled = grid.mean((2, 3), keepdim=True)
    centre = pooled.mean(1, keepdim=True)
    return _affine((grid - centre) * (pooled.var(1, keepdim=True, unbiased=False) + norm.eps).rsqrt(), norm)


def _cell_norm(norm: nn.LayerNorm, grid: Tensor) -> Tensor:
    """Apply a layer norm that precedes pooling."""
    return _affine(layer_norm(grid.movedim(1, -1), (grid.shape[1],), eps=norm.eps).movedim(-1, 1), norm)


def _each_cell(encoder: Encoder, grid: Tensor) -> Tensor:
    """Apply a head that transforms each grid cell before pooling (DenseNet)."""
    cells = grid.flatten(2).transpose(1, 2).flatten(0, 1)
    alone = cells[:, None, None] if encoder.layout.kind == "nhwc" else cells[:, :, None, None]
    return encoder.head(alone).unflatten(0, (len(grid), -1)).transpose(1, 2).unflatten(2, grid.shape[2:])


def _affine(cells: Float[Tensor, "b c h w"], norm: nn.LayerNorm) -> Float[Tensor, "b c h w"]:
    if norm.weight is not None:
        cells = cells * norm.weight[:, None, None]
    return cells if norm.bias is None else cells + norm.bias[:, None, None]


def unpooled(encoder: Encoder, features: Tensor) -> Unpooled:
    """Return a function from an encoder's features to grid cells, after a check on ``features``."""
    with torch.no_grad():
        grid, pooled = encoder.layout.to_grid(features), encoder.head(features)
        for candidate in _candidates(encoder, grid.shape[1]):
            try:
                ours = candidate(grid).mean((2, 3))
            except RuntimeError:  # a head that needs the whole map
                continue
            least = TOLERANCE * pooled.abs().max().clamp(min=1e-12)
            if ours.shape == pooled.shape and bool((ours - pooled).abs().max() <= least):
                return candidate
    raise InputError(
        "EPIC needs an encoder that pools by the mean, with or without a layer norm, got "
        f"{type(encoder.head).__name__} of {encoder.name!r}. Use --like nearest."
    )


def _candidates(encoder: Encoder, width: int) -> Iterator[Unpooled]:
    yield lambda grid: grid
    for norm in encoder.head.modules():
        if isinstance(norm, nn.LayerNorm) and tuple(norm.normalized_shape) == (width,):
            yield partial(_pooled_norm, norm)
            yield partial(_cell_norm, norm)
    if encoder.layout.kind != "tokens" and not isinstance(encoder.head, FromLayer):  # else it runs the whole network
        yield partial(_each_cell, encoder)


def cells_of(model: Explainable, features: Tensor) -> Float[Tensor, "b d h w"]:
    with torch.no_grad():
        return unpooled(model.encoder, features)(model.encoder.layout.to_grid(features))


class CellMaps:
    """Grid cells ``(n, s, d)`` of many pictures in a temporary memory-mapped file."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        path = cache_dir("cells") / f"{secrets.token_hex(8)}.f16"
        self._cells = np.memmap(path, np.float16, "w+", shape=shape)
        self.pooled: Float[Tensor, "n d"] = torch.zeros(shape[0], shape[2])
        # A mapped file without a name is freed by the system, also when the program is killed.
        with contextlib.suppress(DataError):
            remove_inside(path)

    def __setitem__(self, index: int, cells: Float[Tensor, "s d"]) -> None:
        if not bool(cells.abs().max() < torch.finfo(torch.float16).max):
            raise InputError(
                f"Features must be below 65,504 (half precision), but picture {index + 1} exceeds this. Scale the "
                "features down."
            )
        half = cells.half()
        self._cells[index] = half.numpy()
        self.pooled[index] = half.float().mean(0)

    def __getitem__(self, index: int) -> Float[Tensor, "s d"]:
        return torch.from_numpy(self._cells[index].astype(np.float32))

    def __len__(self) -> int:
        return len(self._cells)

    def part(self, indices: Sequence[int]) -> CellPart:
        """Return a view of some of the pictures."""
        return CellPart(self, list(indices))


class CellPart:
    """Some of the pictures of :class:`CellMaps`, with the same methods."""

    def __init__(self, whole: CellMaps, indices: list[int]) -> None:
        self._whole = whole
        self.indices = indices
        self.pooled: Float[Tensor, "n d"] = whole.pooled[indices]

    def __getitem__(self, index: int) -> Float[Tensor, "s d"]:
        return self._whole[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)
