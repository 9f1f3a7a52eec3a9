"""Activations and gradients of inner layers.

The forward pass up to a layer runs without gradients. Only the layers after it are differentiated.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from ..clusters import grouped
from ..encoders.base import Encoder, Layout
from ..encoders.engines import PRECISIONS, Engine, make_engine
from ..encoders.module import MOST_PREFIX_TOKENS, is_attention, is_proportional, tokens_by_proportion
from ..encoders.split import Reached, check_places, cut_by_graph, hooked
from ..errors import EngineError, ModelError, UnknownNameError
from .base import EncoderOutput, Explainable, TargetFunction, feature_gradient

CHUNK = 4
"""Batch size with gradients; four pictures fit in a CPU's cache."""
Place = nn.Module | fx.Node
"""A layer, or its last node in a traced graph."""
LAST = "last"
"""Name for the trunk's output."""
AT_ONCE = 16
"""Batch size without gradients."""
_orders: WeakKeyDictionary[Encoder, dict[str, ModelError | None]] = WeakKeyDictionary()
_log = logging.getLogger("seewhy")
_cuts: WeakKeyDictionary[Encoder, dict[str, InnerCut | None]] = WeakKeyDictionary()


def layer_and_gradient(
    model: Explainable, look: EncoderOutput, target: TargetFunction, layer: str | None
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c gh gw"]]:
    """Return a layer's activations and ``∂ target / ∂ activations``; ``layer=None`` takes the last feature map."""
    if layer is None:
        return model.encoder.layout.to_grid(look.features), feature_gradient(model, look, target)
    leaves, features = layer_leaves(model, look, layer)
    with torch.enable_grad():
        score = target(model.head(model.encoder.head(torch.cat(features).to(look.pooled.device)))).sum()
        gradients = slopes_of(score, leaves, layer)
    return to_grid(leaves, model.encoder, look, layer), to_grid(gradients, model.encoder, look, layer)


def layer_leaves(model: Explainable, look: EncoderOutput, layer: str | None) -> tuple[list[Tensor], list[Tensor]]:
    """Return a layer's outputs as autograd leaves, in chunks, and the trunk's features that are computed from them."""
    if layer is None:
        leaf = look.features.detach().clone().requires_grad_()
        return [leaf], [leaf]
    return _cut(model.encoder, look, layer)


def slopes_of(score: Tensor, leaves: list[Tensor], layer: str | None, again: bool = False) -> list[Tensor]:
    """Compute the gradient of a scalar at the leaves; ``again=True`` makes the gradient differentiable."""
    slopes = torch.autograd.grad(score, leaves, allow_unused=True, create_graph=again)
    gradients = [g for g in slopes if g is not None]
    if len(gradients) < len(leaves):
        raise ModelError(f"The prediction does not depend on the layer {layer!r}. Name an earlier layer.")
    return gradients


def bends_of(slopes: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Compute the Hessian-vector product ``H A``, where ``A`` are the leaves."""
    if not any(slope.requires_grad for slope in slopes):
        return [torch.zeros_like(leaf) for leaf in leaves]
    pairs = [(slope, leaf.detach()) for slope, leaf in zip(slopes, leaves, strict=True) if slope.requires_grad]
    outputs, vectors = zip(*pairs, strict=True)
    bends = torch.autograd.grad(outputs, leaves, vectors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if bend is None else bend for leaf, bend in zip(leaves, bends, strict=True)]


def layer_alone(model: Explainable, look: EncoderOutput, layer: str | None) -> Float[Tensor, "b c h w"]:
    """Compute a layer's activations without gradients."""
    if layer is None:
        return model.encoder.layout.to_grid(look.features)
    return to_grid(_cut(model.encoder, look, layer, stop=True)[0], model.encoder, look, layer)


def _cut(encoder: Encoder, look: EncoderOutput, layer: str, stop: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Return the layer's outputs as autograd leaves, in chunks, and the trunk's features computed from them."""
    pixels = look.pixels_for(layer)
    cut = inner_cut(encoder, layer)
    if cut is not None:
        fronts = [part.requires_grad_(not stop) for part in cut.front(pixels).split(CHUNK)]
        with torch.enable_grad():
            return fronts, [] if stop else [cut.tail(part) for part in fronts]
    trunk = encoder.trunk
    device = next((p.device for p in trunk.parameters()), pixels.device)
    place = find_place(trunk, layer, encoder.name)
    leaves: list[Tensor] = []
    features: list[Tensor] = []
    for part in pixels.contiguous(memory_format=torch.channels_last).split(CHUNK):
        taps = Taps((layer,), cut=True, stop=stop)
        with suppress(Reached), torch.no_grad():
            features.append(run_through(trunk, {layer: place}, part.to(device), taps))
        leaves.append(taps.only(layer))
    return leaves, features


class InnerCut(NamedTuple):
    """A trunk that is split at a layer into an engine without gradients and a differentiable torch module."""

    front: Engine
    tail: nn.Module


def inner_cut(encoder: Encoder, layer: str) -> InnerCut | None:
    """Return the trunk split at a layer into a converted and a torch part.

    Return ``None`` if the trunk runs in torch, or cannot be split or converted at the layer.
    """
    if encoder.engine.name == "torch":
        return None
    known = _cuts.setdefault(encoder, {})
    if layer not in known:
        known[layer] = _made(encoder, layer)
    return known[layer]


def _made(encoder: Encoder, layer: str) -> InnerCut | None:
    parts = dict(encoder.trunk.named_modules())
    name = next((n for n in (layer, f"module.{layer}") if n in parts), None)
    halves = None if name is None else cut_by_graph(encoder.trunk, name, None)
    if halves is None or not _is_row_by_row(encoder, halves[0]):
        return None
    front, tail = halves
    short = next(short for short, long in PRECISIONS.items() if long == encoder.engine.precision)
    engine, key = f"{encoder.engine.name}:{short}", f"{encoder.fingerprint}|until {layer}"
    try:
        return InnerCut(make_engine(engine, lambda: front, encoder.transform.input_size, key), tail.eval())
    except EngineError as error:
        _log.info("%s The layer %s is read in torch.", error, layer)
        return None


@torch.no_grad()
def _is_row_by_row(encoder: Encoder, front: nn.Module) -> bool:
    """Check that a layer's output has one row per picture; layers inside attention windows have several."""
    out = front(torch.zeros(1, 3, *encoder.transform.input_size))
    return isinstance(out, Tensor) and len(out) == 1


class Taps:
    """The recorded outputs of layers."""

    def __init__(self, layers: Iterable[str], *, cut: bool, stop: bool = False) -> None:
        self.layers, self.cut, self.stop = tuple(layers), cut, stop
        self.taken: dict[str, Any] = {}

    def take(self, name: str, out: Any) -> Any:
        if name in self.taken:
            raise ModelError(
                f"The layer {name!r} must run once per picture, but it runs more often. Choose its parent module."
            )
        if not self.cut:
            self.taken[name] = tree_map_only(Tensor, Tensor.clone, out)  # the next layer may work in place
        elif torch.is_grad_enabled() and out.requires_grad:
            self.taken[name] = out
        else:
            self.taken[name] = out.detach().requires_grad_(not self.stop)
        if self.stop and len(self.taken) == len(self.layers):
            raise Reached
        if not self.cut:
            return out
        torch.set_grad_enabled(True)
        return self.taken[name].clone()

    def only(self, name: str) -> Any:
        if name not in self.taken:
            raise ModelError(f"The layer {name!r} does not run for these pictures. Choose one that does.")
        return self.taken[name]


def run_through(network: nn.Module, places: dict[str, Place], pixels: Tensor, taps: Taps) -> Tensor:
    """Run the network without gradients and record the outputs of the layers in ``taps``."""
    nodes = {place: name for name, place in places.items() if isinstance(place, fx.Node)}
    with ExitStack() as stack:
        for name, place in places.items():
            if isinstance(place, fx.Node):
                continue

            def hook(_: nn.Module, _args: Any, out: Any, name: str = name) -> Any:
                return (taps.take(name, out[0]), *out[1:]) if isinstance(out, tuple) else taps.take(name, out)

            stack.callback(place.register_forward_hook(hook).remove)
        if nodes and isinstance(network, fx.GraphModule):
            return _Interpreter(network, nodes, taps).run(pixels)
        return network(pixels)


class _Interpreter(fx.Interpreter):
    """An interpreter that records the outputs of nodes in a traced graph."""

    def __init__(self, network: fx.GraphModule, nodes: dict[fx.Node, str], taps: Taps) -> None:
        super().__init__(network)
        self.nodes, self.taps = nodes, taps

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        return self.taps.take(self.nodes[n], out) if n in self.nodes else out


def find_place(trunk: nn.Module, layer: str, who: str) -> Place:
    """Find a layer by its name in the user's network; for a block that tracing inlined, return its last node."""
    if isinstance(trunk, fx.GraphModule):
        called = [n for n in trunk.graph.nodes if n.op == "call_module" and n.target == layer]
        inside = [n for n in trunk.graph.nodes if layer in n.meta.get("nn_module_stack", {})]
        if not called and inside:
            return inside[-1]
    known = {name.removeprefix("module."): part for name, part in trunk.named_modules() if name not in ("", "module")}
    if layer.removeprefix("module.") not in known:
        raise UnknownNameError(f"layer in the trunk of {who}", layer, known)
    return known[layer.removeprefix("module.")]


def to_grid(parts: list[Tensor], encoder: Encoder, look: EncoderOutput, layer: str | None) -> Float[Tensor, "b c h w"]:
    """Arrange chunks of activations or gradients as ``(b, c, h, w)``; ``layer=None`` means the last feature map."""
    if layer is None:
        return encoder.layout.to_grid(torch.cat([part.detach() for part in parts]))
    check_order(encoder, layer, parts[0])
    return arranged(torch.cat(parts).detach().to(look.pooled.device), look.pixels_for(layer), encoder.layout, layer)


def check_order(encoder: Encoder, layer: str, out: Any) -> None:
    """Check the order of a layer's tokens, if only their number says how they are arranged."""
    known, size = _orders.setdefault(encoder, {}), encoder.transform.input_size
    if not isinstance(out, Tensor) or out.ndim != 3:
        return
    if layer not in known:
        known[layer] = None
        layout = layout_of(tuple(out.shape), size, encoder.layout, layer)
        if layout.grid == encoder.layout.grid:
            return

        def run(pixels: Tensor) -> Tensor:
            look = EncoderOutput(pixels, pixels.flatten(1), pixels)
            return torch.cat([part.detach() for part in _cut(encoder, look, layer, stop=True)[0]])

        try:
            check_places(run, layout, size, layer)
        except ModelError as error:
            known[layer] = error
    if (refusal := known[layer]) is not None:
        raise refusal


def arranged(out: Tensor, pixels: Float[Tensor, "b 3 h w"], own: Layout, layer: str) -> Float[Tensor, "b c gh gw"]:
    """Arrange a layer's output as ``(b, c, h, w)``, or raise ``ModelError`` if it is not a feature map."""
    whole = out.float()
    refuse_windows(whole, len(pixels), layer)
    return layout_of(tuple(whole.shape), (pixels.shape[2], pixels.shape[3]), own, layer).to_grid(whole)


def layout_of(shape: tuple[int, ...], picture: tuple[int, int], own: Layout, layer: str) -> Layout:
    """Infer a layer's layout from the picture's proportions and the layout of the last feature map."""
    height, width = picture
    n_own = math.prod(own.grid) if own.grid is not None else 0
    # One row per token and head is not a map, even if it is square.
    heads = len(shape) == 4 and n_own > 0 and 0 <= shape[2] - n_own <= MOST_PREFIX_TOKENS
    if len(shape) == 4 and not heads:
        grids = (("nchw", shape[2:]), ("nhwc", shape[1:3]))
        kinds = [kind for kind, g in grids if math.prod(g) > 1 and is_proportional((g[0], g[1]), picture)]
        if kinds:
            return Layout(own.kind if own.kind in kinds else kinds[0])  # type: ignore[arg-type]
    if len(shape) == 3:
        if own.grid is not None and 0 <= shape[1] - n_own <= MOST_PREFIX_TOKENS:
            return Layout("tokens", own.grid, shape[1] - n_own)
        if (layout := tokens_by_proportion(shape[1], picture)) is not None:
            return layout
    raise ModelError(
        f"The layer {layer!r} must return a feature map (b, c, h, w) or (b, h, w, c), or tokens (b, t, d) that fill a "
        f"grid, got {shape} for a picture of {height} x {width}. Choose another layer."
    )


def refuse_windows(out: Tensor, n_pictures: int, layer: str) -> None:
    """Raise ``ModelError`` for attention windows and attention weights, whose shapes resemble feature maps."""
    if len(out) != n_pictures:
        raise ModelError(
            f"The layer {layer!r} must return one feature map per picture, got {len(out)} maps for {n_pictures} "
            "pictures, perhaps attention windows. Choose its parent block."
        )
    if is_attention(out):
        raise ModelError(
            f"The layer {layer!r} must return a feature map or tokens, got attention weights ({out.shape[1]} heads, "
            f"{out.shape[2]} tokens). Choose its parent block."
        )


@torch.no_grad()
def layer_maps(
    encoder: Encoder, pixels: Float[Tensor, "b 3 h w"], layers: tuple[str, ...], features: Tensor | None = None
) -> tuple[list[Float[Tensor, "b _c _h _w"]], Tensor]:
    """Compute one feature map ``(b, c, h, w)`` per layer, and the trunk's features."""
    inner = tuple(name for name in layers if name != LAST)
    maps: dict[str, list[Tensor]] = {name: [] for name in inner}
    made = []
    if inner or features is None:
        trunk = encoder.trunk
        places = {name: find_place(trunk, name, encoder.name) for name in inner}
        device = next((p.device for p in trunk.parameters()), pixels.device)
        for part in pixels.contiguous(memory_format=torch.channels_last).split(AT_ONCE):
            taps = Taps(inner, cut=False, stop=features is not None)
            with suppress(Reached):
                made.append(run_through(trunk, places, part.to(device), taps))
            for name in inner:
                maps[name].append(taps.only(name))
    whole = features if features is not None else torch.cat(made).to(pixels.device)
    layout = encoder.layout
    for name in inner:
        check_order(encoder, name, maps[name][0])
    grids = {name: arranged(torch.cat(parts).to(pixels.device), pixels, layout, name) for name, parts in maps.items()}
    return [layout.to_grid(whole) if name == LAST else grids[name] for name in layers], whole


class _Run(NamedTuple):
    """The call of a layer: its name, the grid size of its input (``None`` if it is no map) and of its output."""

    name: str
    before: tuple[int, int] | None
    after: tuple[int, int]
    is_output: bool


@torch.no_grad()
def find_layers(encoder: Encoder, n: int = 3) -> tuple[str, ...]:
    """Find up to ``n`` layers that give feature maps; the last is the trunk's output.

    If the maps shrink with depth, the layers are the last ones at the ``n`` coarsest resolutions. If all maps have the
    same size, as in transformers, the layers are the last ``n`` blocks.
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
            # A module inside the layer that changes the resolution does not end a stage.
            if run.after in finer and not any(run.name.startswith(p) and run.after == size for p, size in inside):
                last[run.after] = run.name
        coarse = sorted(last, key=lambda grid: grid[0] * grid[1])[: n - 1]
        return (*(last[grid] for grid in reversed(coarse)), LAST)
    blocks = [r.name for r in runs if r.after == final and r.name[-1].isdecimal()]
    depth = min((name.count(".") for name in blocks), default=0)
    outer = [name for name in blocks if name.count(".") == depth]
    return (*outer[max(0, len(outer) - n + 1) :], LAST) if n > 1 else (LAST,)


def _runs(encoder: Encoder, pixels: Tensor, features: Tensor) -> list[_Run]:
    """Return the calls of all layers that give a feature map, in the order in which they end."""
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
    """An interpreter that also records the outputs of inlined blocks in a traced graph."""

    def __init__(self, trunk: fx.GraphModule, ended: list[tuple[str, Any, Any]]) -> None:
        super().__init__(trunk)
        self.ended = ended
        self.values: dict[fx.Node, Any] = {}
        self.first: dict[str, fx.Node] = {}
        last: dict[str, fx.Node] = {}
        called = {node.target for node in trunk.graph.nodes if node.op == "call_module"}
        for node in trunk.graph.nodes:
            for path in set(node.meta.get("nn_module_stack", {})) - called - {""}:
                self.first.setdefault(path, node)
                last[path] = node
        self.ends = grouped((last[path], path) for path in sorted(last, key=lambda path: -path.count(".")))

    def run_node(self, n: fx.Node) -> Any:
        out = self.values[n] = super().run_node(n)
        for path in self.ends.get(n, ()):
            inputs = self.first[path].all_input_nodes
            self.ended.append((path, tuple(self.values[a] for a in inputs[:1]), out))
        return out


def _grid(value: Any, encoder: Encoder, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return a map's ``(height, width)``, or ``None`` if the value is not a map."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    if not isinstance(value, Tensor) or value.ndim not in (3, 4):
        return None
    try:
        grid = layout_of(tuple(value.shape), size, encoder.layout, "").to_grid(value)
    except ModelError:
        return None
    return (grid.shape[2], grid.shape[3])
