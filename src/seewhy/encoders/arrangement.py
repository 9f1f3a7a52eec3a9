"""How a layer arranges its output: told by the layers that make and take it, then by the picture's proportions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .base import Layout
from .hooks import hooked

Kind = Literal["nchw", "nhwc"]

MOST_PREFIX_TOKENS = 16

OF_MAPS = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle, nn.Dropout2d,
)  # fmt: skip
"""Layers whose channels are always the second axis."""


@dataclass
class Trace:
    """What every layer took and gave in one pass over one picture, in the order in which layers finished."""

    size: tuple[int, int] = (0, 0)
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    outputs: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def last_linear(self, module: nn.Module) -> str | None:
        """The linear layer whose output is the network's output, itself."""
        for name, out in reversed(self.outputs.items()):
            if isinstance(module.get_submodule(name), nn.Linear) and out is self.output:
                return name if self.calls[name] == 1 else None
        return None

    def n_tokens(self) -> set[int]:
        """Lengths of the rows of tokens ``(1, t, d)``."""
        return {out.shape[1] for out in self.outputs.values() if out.ndim == 3 and len(out) == 1 and out.shape[1] > 1}


def watch(module: nn.Module, pixels: Tensor) -> Trace:
    """One pass with every layer listened to.

    Raises:
        ModelError: the network gives no tensor.
    """
    trace = Trace((pixels.shape[2], pixels.shape[3]))
    handles = []
    for name, layer in module.named_modules():
        if not name:
            continue

        def look(_: nn.Module, args: tuple[object, ...], out: object, name: str = name) -> None:
            trace.calls[name] = trace.calls.get(name, 0) + 1
            if isinstance(out, Tensor):
                trace.outputs.pop(name, None)
                trace.outputs[name] = out
            if args and isinstance(args[0], Tensor):
                trace.inputs[name] = args[0]

        handles.append(layer.register_forward_hook(look))
    with hooked(handles), torch.no_grad():
        trace.output = module(pixels)
    if not isinstance(trace.output, Tensor):
        raise ModelError(
            f"{type(module).__name__} gives a {type(trace.output).__name__}. A tensor was expected. "
            "Wrap it in a module that returns its logits."
        )
    return trace


class Arrangements:
    """The kinds of all maps of one trace.

    Args:
        module: the network.
        trace: of one picture.
    """

    def __init__(self, module: nn.Module, trace: Trace) -> None:
        self.trace = trace
        self._layers = dict(module.named_modules())
        self._n_tokens = trace.n_tokens()
        self._takers: dict[int, list[str]] = {}
        self._makers: dict[tuple[int, ...], list[str]] = {}
        for name, x in trace.inputs.items():
            self._takers.setdefault(id(x), []).append(name)
        for name, out in trace.outputs.items():
            self._makers.setdefault(tuple(out.shape), []).append(name)

    def kind(self, name: str) -> Kind | None:
        """Which axis of ``(1, ?, ?, ?)`` holds the channels of a layer's output; ``None`` for what is no map."""
        out = self.trace.outputs[name]
        if out.ndim != 4 or len(out) != 1:
            return None
        kind = next(self._votes(name, out), None) or self._by_proportion(out)
        # Of each head one row a token: (1, heads, t, d) or (1, heads, t, t).
        heads = out.shape[2] in self._n_tokens and (kind == "nhwc" or out.shape[2] == out.shape[3])
        return None if heads or is_attention(out) else kind

    def _votes(self, name: str, out: Tensor) -> Iterator[Kind]:
        """What layers that take this very tensor say, then those that make it, then those that make its like."""
        for taker in self._takers.get(id(out), ()):
            yield from _vote(self._layers[taker], out)
        makers = list(reversed(self._makers[tuple(out.shape)]))
        makers.sort(key=lambda n: (self.trace.outputs[n] is not out, n != name and not n.startswith(f"{name}.")))
        for maker in makers:
            yield from _vote(self._layers[maker], out)

    def _by_proportion(self, out: Tensor) -> Kind | None:
        """The kind whose grid is nearer to the picture's proportions, if one is near and they are not alike."""
        height, width = self.trace.size
        shapes: dict[Kind, tuple[int, int]] = {"nchw": tuple(out.shape[2:]), "nhwc": tuple(out.shape[1:3])}  # type: ignore[dict-item]
        off = {kind: abs(h * width - w * height) for kind, (h, w) in shapes.items()}
        best: Kind = "nchw" if off["nchw"] < off["nhwc"] else "nhwc"
        near = math.prod(shapes[best]) > 1 and is_proportional(shapes[best], self.trace.size)
        return best if near and off["nchw"] != off["nhwc"] else None

    def grid(self, name: str) -> tuple[int, int] | None:
        """Height and width of a map of more than one cell."""
        kind, shape = self.kind(name), self.trace.outputs[name].shape
        if kind is None:
            return None
        height, width = shape[2:] if kind == "nchw" else shape[1:3]
        return (height, width) if height * width > 1 else None

    def layout(self, layer: str, name: str, stem: tuple[tuple[int, int], int] | None) -> Layout:
        """Layout of a layer the user chose."""
        out = self.trace.outputs.get(layer)
        if out is None or self.trace.calls[layer] != 1:
            raise ModelError(
                f"The layer {layer!r} of {name} runs {self.trace.calls.get(layer, 0)} times or gives no single tensor. "
                "A layer that runs once and gives one tensor was expected. Choose the layer around it."
            )
        if (kind := self.kind(layer)) is not None:
            return Layout(kind)
        found = self._tokens(out, stem) if out.ndim == 3 and len(out) == 1 else None
        if found is not None:
            return found
        raise ModelError(
            f"The layer {layer!r} of {name} gives {tuple(out.shape)} for a picture of {self.trace.size[0]} x "
            f"{self.trace.size[1]}, and neither the layers around it nor these numbers tell its places. A map "
            "(b, c, h, w) or (b, h, w, c), or tokens (b, t, d) that fill a grid, was expected. Choose another layer, "
            "or pass layout=Layout('nchw'), Layout('nhwc') or Layout('tokens', grid=(h, w), prefix=n)."
        )

    def _tokens(self, out: Tensor, stem: tuple[tuple[int, int], int] | None) -> Layout | None:
        """Tokens that fill the grid the network says, that of a map, or the picture's proportions."""
        n = out.shape[1]
        if stem is not None and n == math.prod(stem[0]) + stem[1]:
            return Layout("tokens", *stem)
        grids = {g: n - math.prod(g) for name in self.trace.outputs if (g := self.grid(name)) is not None}
        fitting = {g: prefix for g, prefix in grids.items() if 0 <= prefix <= MOST_PREFIX_TOKENS}
        if fitting:
            grid = min(fitting, key=lambda g: fitting[g])
            return Layout("tokens", grid, fitting[grid])
        return tokens_by_proportion(n, self.trace.size)


def _vote(layer: Any, x: Tensor) -> Iterator[Kind]:
    """Where one layer has its channels in a map."""
    if isinstance(layer, OF_MAPS):
        yield "nchw"
    elif isinstance(layer, nn.Linear):
        yield "nhwc"
    elif hasattr(layer, "normalized_shape"):
        width = tuple(layer.normalized_shape)[-1]
        axes = [axis for axis in (1, 3) if x.shape[axis] == width]
        if len(axes) == 1:  # norms of maps are written as layer norms too
            yield "nchw" if axes == [1] else "nhwc"
        elif type(layer) is nn.LayerNorm:
            yield "nhwc"


def is_attention(out: Tensor) -> bool:
    """Whether these are weights ``(b, heads, t, t)``, which look like a map where ``t`` patches make up a square."""
    square = out.ndim == 4 and out.shape[2] == out.shape[3] > 1
    return square and not bool((out < 0).any()) and bool(((out.float().sum(3) - 1).abs() < 1e-3).all())


def is_proportional(grid: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Whether a grid has the picture's proportions, but for rounding."""
    return abs(grid[0] * picture[1] - grid[1] * picture[0]) <= max(picture)


def tokens_by_proportion(n: int, picture: tuple[int, int]) -> Layout | None:
    """Tokens behind the fewest others that fill a grid of exactly the picture's proportions."""
    height, width = picture
    for prefix in range(min(MOST_PREFIX_TOKENS + 1, n)):
        rows = round(math.sqrt((n - prefix) * height / width))
        columns = (n - prefix) // max(rows, 1)
        if rows * columns == n - prefix > 1 and rows * width == columns * height:
            return Layout("tokens", (rows, columns), prefix)
    return None


def stem_of(module: nn.Module) -> tuple[tuple[int, int], int] | None:
    """Grid and tokens before it, as timm's networks say them; ``None`` where a network does not."""
    for part in module.modules():
        grid = getattr(getattr(part, "patch_embed", None), "grid_size", None)
        prefix = getattr(part, "num_prefix_tokens", None)
        if isinstance(grid, tuple) and len(grid) == 2 and isinstance(prefix, int):
            return (int(grid[0]), int(grid[1])), prefix
    return None
