"""Finer maps of a trunk beside its last one, from the same pass: packed behind its channels, they go where it goes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ..encoders.base import Encoder, Layout
from ..encoders.pyramid import Stage, listen, stages_of
from ..encoders.split import hooked
from ..errors import ModelError

MOST = 4
"""Maps at most, the trunk's last among them."""


class Packed(nn.Module):
    """Pixels → the trunk's map; behind it in each cell's channels, what finer maps have there.

    Args:
        trunk: pixels → a map.
        stages: finer maps inside it, the coarsest first.
        times: how much finer each is.
    """

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
    """The encoder with finer maps of its trunk behind its last one: the last map of each size (FPN's C3 and C4).

    Example:
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
    return Encoder(
        name=encoder.name,
        transform=encoder.transform,
        trunk=lambda: Packed(encoder.trunk, stages, times).eval(),
        head=encoder.head,
        layout=replace(encoder.layout, finer=tuple((s.width, t) for s, t in zip(stages, times, strict=True))),
        fingerprint=hashlib.sha256(made.encode()).hexdigest(),
        classifier=encoder.classifier,
        classes=encoder.classes,
        text=(lambda: encoder.text) if encoder.has_text else None,
        module=lambda: encoder.module,
        engine=encoder.engine_asked,
    )


def unpacked(layout: Layout, features: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
    """The maps, the trunk's last first and then finer and finer."""
    maps = [layout.to_grid(features)]
    if layout.finer:
        behind = features[:, maps[0].shape[1] :].split([c * t * t for c, t in layout.finer], 1)
        maps += [pixel_shuffle(one, t) for one, (_, t) in zip(behind, layout.finer, strict=True)]
    return maps
