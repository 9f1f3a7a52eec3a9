"""Cutting a network at a layer: by its graph where ``torch.fx`` can follow it, else by hooks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from ..errors import ModelError
from .hooks import hooked


def cut_by_graph(module: nn.Module, layer: str, end: str | None) -> tuple[nn.Module, nn.Module] | None:
    """Two graphs, up to the layer and from it to the input of ``end``; ``None`` if the network cannot be traced."""
    leaves = {id(module.get_submodule(name)) for name in (layer, end) if name}

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            # A norm of maps is a layer norm of another's, and is looked for as one whole.
            return id(m) in leaves or isinstance(m, nn.LayerNorm) or super().is_leaf_module(m, qualified_name)

    try:
        graph = Tracer().trace(module)
    except Exception:  # a network may do anything while it is traced; hooks are the other way
        return None
    cuts = [n for n in graph.nodes if n.op == "call_module" and n.target == layer]
    ends = [n for n in graph.nodes if n.op == "call_module" and n.target == end]
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    if len(cuts) != 1 or (end is not None and len(ends) != 1):
        return None
    result: Any = ends[0].args[0] if end is not None else next(n for n in graph.nodes if n.op == "output").args[0]
    if not isinstance(result, fx.Node):
        return None
    behind = _needed(result, cuts[0])
    if behind & set(inputs) or result is inputs[0]:
        return None
    trunk = _copy(graph, _needed(cuts[0], None), cuts[0], None)
    head = _copy(graph, behind, result, cuts[0])
    return fx.GraphModule(module, trunk), fx.GraphModule(module, head)


def _needed(node: fx.Node, stop: fx.Node | None) -> set[fx.Node]:
    """The nodes a node depends on, itself included, not going behind ``stop``."""
    found: set[fx.Node] = set()
    todo = [node]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            if current is not stop:
                todo.extend(current.all_input_nodes)
    return found


def _copy(graph: fx.Graph, nodes: set[fx.Node], result: fx.Node, source: fx.Node | None) -> fx.Graph:
    """A graph of some nodes of another one; ``source`` becomes its input."""
    new = fx.Graph()
    twins: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if source is not None and node is source:
            # What follows may work in place, and the features are still needed.
            twins[source] = new.call_method("clone", (new.placeholder("features"),))
        elif node in nodes:
            twins[node] = new.node_copy(node, lambda n: twins[n])
    new.output(twins[result])
    return new


class _Reached(Exception):
    """Ends a forward pass."""


class UntilLayer(nn.Module):
    """A network up to a layer."""

    def __init__(self, module: nn.Module, layer: str) -> None:
        super().__init__()
        self.module = module
        self.layer = layer

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        given: list[Tensor] = []

        def look(_: nn.Module, args: Any, out: Tensor) -> None:
            if not torch.compiler.is_compiling():
                given.append(out)
                raise _Reached
            # An exporter keeps a stack of modules that an exception leaves as it is. What follows is run too then; it
            # may work in place, and drops out of the graph.
            given.append(out.clone())

        with suppress(_Reached), self.module.get_submodule(self.layer).register_forward_hook(look):
            self.module(pixels)
        if given:
            return given[0]
        raise ModelError(
            f"The layer {self.layer!r} is not reached for this picture. A layer that always runs was expected. "
            "Choose another target_layer."
        )


class FromLayer(nn.Module):
    """A network from a layer to its end: the forward pass once more, on an empty picture, with the features put in."""

    def __init__(self, module: nn.Module, layer: str, end: str | None, size: tuple[int, int]) -> None:
        super().__init__()
        self.module = module
        self.layer = layer
        self.end = end
        self.size = size

    def forward(self, features: Tensor) -> Float[Tensor, "b p"]:
        taken: list[Tensor] = []
        handles = [self.module.get_submodule(self.layer).register_forward_hook(lambda _m, _a, _o: features.clone())]
        if self.end is not None:
            end = self.module.get_submodule(self.end)
            handles.append(end.register_forward_pre_hook(lambda _m, args: taken.append(args[0])))
        with hooked(handles):
            out = self.module(features.new_zeros(features.shape[0], 3, *self.size))
        return taken[0] if self.end is not None else out


def cut_by_hooks(module: nn.Module, layer: str, end: str | None, size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """The pair that works for every network; its head costs a whole forward pass."""
    return UntilLayer(module, layer), FromLayer(module, layer, end, size)
