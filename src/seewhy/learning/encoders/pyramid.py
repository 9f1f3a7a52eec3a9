"""A feature pyramid on the stages of a trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.hooks import RemovableHandle

from ...encoders.base import Encoder, Layout
from ...encoders.module import Arrangements
from ...encoders.split import example_pixels, freeze, hooked
from ...errors import ModelError
from .delta import halves_of, sizes_of

N_LEVELS = 3
"""Maximum number of levels."""
WIDTH = 128
"""Channels of every level."""


@dataclass(frozen=True)
class Stage:
    """A feature map inside a trunk."""

    layer: str
    kind: str
    width: int
    grid: tuple[int, int]


def stages_of(trunk: nn.Module, layout: Layout, size: tuple[int, int], n_levels: int = N_LEVELS) -> list[Stage]:
    """Return the last feature map of each size, finest first, ending with the trunk's output."""
    trace = Arrangements(trunk, example_pixels(size))
    own = layout.to_grid(trace.output)
    last = (int(own.shape[2]), int(own.shape[3]))
    found: dict[tuple[int, int], Stage] = {}
    for layer, out in trace.outputs.items():
        grid, kind = trace.grid(layer), trace.kind(layer)
        if grid is not None and kind is not None and grid[0] > last[0] and grid[1] > last[1]:
            found[grid] = Stage(layer, kind, out.shape[1 if kind == "nchw" else 3], grid)
    if not found:
        raise ModelError(
            f"A pyramid needs feature maps of several sizes, but all maps of this encoder have {last[0]} x {last[1]} "
            "patches. Use a convolutional network, or train without a pyramid."
        )
    finer = sorted(found.values(), key=lambda stage: stage.grid, reverse=True)
    return [*finer, Stage("", "nchw", own.shape[1], last)][-n_levels:]


class Pyramid(nn.Module):
    """A feature pyramid (FPN, Lin et al. 2017, arXiv:1612.03144)."""

    def __init__(self, trunk: nn.Module, layout: Layout, stages: Sequence[Stage], width: int = WIDTH) -> None:
        super().__init__()
        self.trunk, self.layout, self.stages, self.width = trunk, layout, tuple(stages), width
        self.across = nn.ModuleList(nn.Conv2d(stage.width, width, 1) for stage in stages)
        self.out = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)) for _ in stages
        )

    @classmethod
    def on(cls, encoder: Encoder, width: int = WIDTH) -> Self:
        """Return an untrained pyramid on a copy of an encoder's trunk."""
        stages = stages_of(encoder.trunk, encoder.layout, encoder.transform.input_size, N_LEVELS)
        return cls(halves_of(encoder)[0], encoder.layout, stages, width)

    @classmethod
    def restored(cls, trunk: nn.Module, layout: Layout, facts: Any) -> Self:
        """Build a pyramid from :meth:`facts`, with zero weights."""
        stages = [Stage(s["layer"], s["kind"], s["width"], tuple(s["grid"])) for s in facts["stages"]]
        sizes_of(facts, "width")
        for stage in facts["stages"]:
            sizes_of(stage, "width")
        if not 1 < len(stages) <= 8 or stages[-1].layer:
            raise ValueError(f"its pyramid has {len(stages)} stages")
        for stage in stages[:-1]:
            trunk.get_submodule(stage.layer)
        made = cls(trunk, layout, stages, facts["width"])
        for p in (*made.across.parameters(), *made.out.parameters()):
            nn.init.zeros_(p)
        freeze(made)
        return made

    def levels(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d _h _w"], ...]:
        """Return the maps, finest first."""
        found: dict[str, Tensor] = {}
        with hooked(listen(self.trunk, stage.layer, found) for stage in self.stages if stage.layer):
            last = self.trunk(pixels)
        maps = [Layout(stage.kind).to_grid(found[stage.layer]) for stage in self.stages[:-1]]  # type: ignore[arg-type]
        maps.append(self.layout.to_grid(last))
        level, made = None, []
        for x, across, out in reversed(list(zip(maps, self.across, self.out, strict=True))):
            own = across(x)
            level = own if level is None else own + interpolate(level, size=own.shape[2:], mode="nearest")
            made.append(out(level))
        return tuple(reversed(made))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d gh gw"]:
        return self.levels(pixels)[0]

    def facts(self) -> dict[str, Any]:
        """Return the fields for :meth:`restored`, as JSON."""
        return {"width": self.width, "stages": [asdict(stage) for stage in self.stages]}


def listen(trunk: nn.Module, layer: str, found: dict[str, Tensor]) -> RemovableHandle:
    """Register a hook that stores the output of a layer."""

    def look(_: nn.Module, _given: Any, out: Tensor) -> None:
        found[layer] = out

    return trunk.get_submodule(layer).register_forward_hook(look)
