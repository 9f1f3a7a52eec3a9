"""The maps of several layers of a frozen trunk from one pass, and which layers to take when nobody says."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, fx
from torch.utils._pytree import tree_map_only

from ..encoders.base import Encoder
from ..encoders.split import hooked
from ..errors import ModelError
from .layers import Reached, arranged, find_place, layout_of, run_through

LAST = "last"
"""Stands for the trunk's own output, which every encoded picture has already."""

AT_ONCE = 16
"""Pictures in memory at once."""


class Ear:
    """Keeps what layers give and changes nothing; with ``stop`` the pass ends when all were there."""

    def __init__(self, layers: tuple[str, ...], stop: bool) -> None:
        self.heard: dict[str, Any] = {}
        self.layers, self.stop = layers, stop

    def take(self, name: str, out: Any) -> Any:
        if name in self.heard:
            raise ModelError(f"The layer {name!r} runs more than once for a picture. Name the layer around it.")
        self.heard[name] = tree_map_only(Tensor, Tensor.clone, out)  # what follows may work in place
        if self.stop and len(self.heard) == len(self.layers):
            raise Reached
        return out

    def heard_of(self, name: str) -> Any:
        """What a layer gave."""
        if name not in self.heard:
            raise ModelError(f"The layer {name!r} does not run for these pictures. Name one that does.")
        return self.heard[name]


@torch.no_grad()
def layer_maps(
    encoder: Encoder, pixels: Float[Tensor, "b 3 h w"], layers: tuple[str, ...], features: Tensor | None = None
) -> tuple[list[Float[Tensor, "b _c _h _w"]], Tensor]:
    """One map per layer, channels second, and the trunk's features.

    Where the features of these pixels are known, the pass ends at the last inner layer, and none is made where there
    is no inner layer.
    """
    inner = tuple(name for name in layers if name != LAST)
    maps: dict[str, list[Tensor]] = {name: [] for name in inner}
    made = []
    if inner or features is None:
        trunk = encoder.trunk
        places = {name: find_place(trunk, name, encoder.name) for name in inner}
        device = next((p.device for p in trunk.parameters()), pixels.device)
        for part in pixels.contiguous(memory_format=torch.channels_last).split(AT_ONCE):
            ear = Ear(inner, stop=features is not None)
            with suppress(Reached):
                made.append(run_through(trunk, places, part.to(device), ear))
            for name in inner:
                maps[name].append(ear.heard_of(name))
    whole = features if features is not None else torch.cat(made).to(pixels.device)
    layout = encoder.layout
    grids = {name: arranged(torch.cat(parts).to(pixels.device), pixels, layout, name) for name, parts in maps.items()}
    return [layout.to_grid(whole) if name == LAST else grids[name] for name in layers], whole


class _Run(NamedTuple):
    """One layer during one pass: its name, the sizes of its input map, if it is one, and of its output.

    ``is_output``: it gives what the trunk gives.
    """

    name: str
    before: tuple[int, int] | None
    after: tuple[int, int]
    is_output: bool


@torch.no_grad()
def find_layers(encoder: Encoder, n: int = 3) -> tuple[str, ...]:
    """``n`` layers from one pass over an empty picture, the trunk's output last.

    Where maps shrink on the way, the last output at each of the ``n`` coarsest resolutions (``layer2``, ``layer3``,
    ``layer4`` of a ResNet, the pooling layers of a VGG); where they do not, as in a vision transformer, the last
    blocks. Fewer where there are fewer.
    """
    height, width = encoder.transform.input_size
    pixels = torch.zeros(1, 3, height, width)
    features = encoder.trunk(pixels)
    final = tuple(encoder.layout.to_grid(features).shape[2:])
    every = _runs(encoder, pixels, features)
    runs = [run for run in every if not run.is_output]
    finer = {run.after for run in runs if run.after[0] * run.after[1] > final[0] * final[1]}
    if encoder.layout.kind != "tokens" and finer:
        shrinking = [r for r in every if r.before and r.before[0] * r.before[1] > r.after[0] * r.after[1]]
        inside = [(f"{run.name}.", run.before) for run in shrinking]
        last: dict[tuple[int, int], str] = {}
        for run in runs:
            # What lies within the layer that leaves a resolution is not yet the end of that resolution's stage.
            if run.after in finer and not any(run.name.startswith(p) and run.after == size for p, size in inside):
                last[run.after] = run.name
        coarse = sorted(last, key=lambda grid: grid[0] * grid[1])[: n - 1]
        return (*(last[grid] for grid in reversed(coarse)), LAST)
    blocks = [r.name for r in runs if r.after == final and r.name[-1].isdecimal()]
    depth = min((name.count(".") for name in blocks), default=0)
    outer = [name for name in blocks if name.count(".") == depth]
    return (*outer[max(0, len(outer) - n + 1) :], LAST) if n > 1 else (LAST,)


def _runs(encoder: Encoder, pixels: Tensor, features: Tensor) -> list[_Run]:
    """Every layer that gives a map, in the order in which they end."""
    trunk, size = encoder.trunk, (pixels.shape[2], pixels.shape[3])
    ended: list[tuple[str, Any, Any]] = []
    handles = [
        module.register_forward_hook(lambda _m, args, out, name=name: ended.append((name, args, out)))
        for name, module in trunk.named_modules()
        if name not in ("", "module")
    ]
    with hooked(handles):
        (_Recorder(trunk, ended).run if isinstance(trunk, fx.GraphModule) else trunk)(pixels)
    runs, times = [], [name for name, _, _ in ended]
    for name, args, out in ended:
        after, before = _grid(out, encoder, size), _grid(args, encoder, size)
        if after is not None and times.count(name) == 1:
            same = isinstance(out, Tensor) and out.shape == features.shape and torch.equal(out, features)
            runs.append(_Run(name.removeprefix("module."), before, after, same))
    return runs


class _Recorder(fx.Interpreter):
    """Runs a traced network, and says when a block ends that tracing has dissolved into its parts."""

    def __init__(self, trunk: fx.GraphModule, ended: list[tuple[str, Any, Any]]) -> None:
        super().__init__(trunk)
        self.ended = ended
        self.values: dict[fx.Node, Any] = {}
        self.first: dict[str, fx.Node] = {}
        self.ends: dict[fx.Node, list[str]] = {}
        last: dict[str, fx.Node] = {}
        called = {node.target for node in trunk.graph.nodes if node.op == "call_module"}
        for node in trunk.graph.nodes:
            for path in set(node.meta.get("nn_module_stack", {})) - called - {""}:
                self.first.setdefault(path, node)
                last[path] = node
        for path in sorted(last, key=lambda path: -path.count(".")):
            self.ends.setdefault(last[path], []).append(path)

    def run_node(self, n: fx.Node) -> Any:
        out = self.values[n] = super().run_node(n)
        for path in self.ends.get(n, ()):
            inputs = self.first[path].all_input_nodes
            self.ended.append((path, tuple(self.values[a] for a in inputs[:1]), out))
        return out


def _grid(value: Any, encoder: Encoder, size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of a map; ``None`` for what is none."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    if not isinstance(value, Tensor) or value.ndim not in (3, 4):
        return None
    try:
        grid = layout_of(tuple(value.shape), size, encoder.layout, "").to_grid(value)
    except ModelError:
        return None
    return (grid.shape[2], grid.shape[3])
