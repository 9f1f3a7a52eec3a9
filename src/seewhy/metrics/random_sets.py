"""Random sets of pixels, and what a model loses without them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from .base import Case, Maps, Of, read_in_batches


def random_sets(n_sets: int, size: int, shape: tuple[int, int], seed: int) -> Callable[[Tensor], Bool[Tensor, "b h w"]]:
    """Indices → masks of exactly ``size`` cells each, drawn without repeats; the same index, the same mask."""
    n_cells = shape[0] * shape[1]

    def make(index: Tensor) -> Tensor:
        masks = torch.zeros(len(index), n_cells, dtype=torch.bool)
        for row, i in enumerate(index.tolist()):
            generator = torch.Generator().manual_seed(seed * n_sets + i)
            masks[row, torch.randperm(n_cells, generator=generator)[:size]] = True
        return masks.unflatten(1, shape)

    return make


def enlarged(masks: Bool[Tensor, "b gh gw"], size: tuple[int, int]) -> Bool[Tensor, "b h w"]:
    """Cells as blocks of pixels."""
    if tuple(masks.shape[1:]) == tuple(size):
        return masks
    return interpolate(masks[:, None].float(), size=size, mode="nearest")[:, 0] > 0.5


def losses(
    case: Case,
    maps: Maps,
    make: Callable[[Tensor], Tensor],
    n_sets: int,
    fill: Float[Tensor, "3 h w"],
    *,
    of: Of,
    batch_size: int,
) -> tuple[Float[Tensor, "m n"], Float[Tensor, " n"]]:
    """What each map says lies in each set, and what the output loses without it; one forward pass a set."""
    size = (case.pixels.shape[1], case.pixels.shape[2])
    read = case.reader(of)
    claims = []

    def without(index: Tensor) -> Tensor:
        masks = enlarged(make(index), size)
        claims.append(torch.einsum("bhw,mhw->mb", masks.double(), maps.double()))
        return torch.where(masks[:, None], fill, case.pixels)

    left = read_in_batches(read, without, n_sets, batch_size)
    return torch.cat(claims, 1).float(), read(case.pixels[None]) - left
