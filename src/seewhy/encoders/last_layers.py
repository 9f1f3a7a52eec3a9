"""Separate the last layers of a trunk, so that they can be trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from ..errors import ModelError
from ..threads import for_torch
from .base import STEP, Encoder, Layout
from .engines import Engine
from .split import UntilLayer, cut_by_graph, example_pixels, freeze, hooked, same, weights_digest


class Arranged(nn.Module):
    """A layer that restores the shape of flattened features."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, vectors: Float[Tensor, "b f"]) -> Tensor:
        out = vectors.unflatten(1, self.shape)
        return out.contiguous(memory_format=torch.channels_last) if out.ndim == 4 else out


class Onwards:
    """An engine that runs ``below`` and then the remaining layers in torch."""

    def __init__(self, below: Engine, rest: nn.Module) -> None:
        self.below, self.rest, self.name, self.precision = below, rest, below.name, below.precision

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        vectors = self.below(pixels).flatten(1)
        with for_torch():
            return torch.cat([self.rest(part) for part in vectors.split(STEP)])


class _Run(NamedTuple):
    """A call of a layer: start and end, and the id and version of the input and output tensors."""

    name: str
    start: int
    end: int
    taken: tuple[int, int] | None
    given: tuple[int, int] | None


def last_layers(on: Encoder, n: int) -> tuple[Encoder, nn.Module]:
    """Separate at least the last ``n`` convolutions of a trunk, or as many as possible.

    Returns the encoder up to a layer, whose pooled vector is the flattened output of the layer, and a frozen copy of
    the layers after it, from these vectors to the features of ``on``.
    """
    pixels = example_pixels(on.transform.input_size)
    trunk = freeze(copy.deepcopy(on.trunk)).cpu()
    runs = _runs(trunk, pixels)
    cuts = (cut for k in range(n, 0, -1) for cut in (_chained(trunk, runs, k), _graphed(trunk, k)))
    found = next((cut for cut in cuts if cut is not None and _is_whole(trunk, *cut, pixels)), None)
    if found is None:
        raise ModelError(
            f"The last convolutions of {on.name!r} cannot be separated, because they do not depend on a single layer. "
            "Choose a convolutional network, or a transformer with a class token."
        )
    layer, tail = found
    with torch.no_grad():
        shape = tuple(UntilLayer(trunk, layer)(pixels).shape[1:])
    below = on.but(
        name=f"{on.name} until {layer}",
        trunk=lambda: UntilLayer(on.trunk, layer),
        module=None,
        head=nn.Flatten(),
        layout=Layout(),
        fingerprint=weights_digest({}, f"{on.fingerprint}|until {layer}"),
        classifier=None,
        classes=(),
        text=None,
    )
    return below, freeze(nn.Sequential(Arranged(shape), tail))


@torch.no_grad()
def _is_whole(trunk: nn.Module, layer: str, tail: nn.Module, pixels: Tensor) -> bool:
    return same(tail(UntilLayer(trunk, layer)(pixels)), trunk(pixels))


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())


def _runs(trunk: nn.Module, pixels: Tensor) -> list[_Run]:
    """Return the calls of all layers that run exactly once; the last call is the trunk's."""
    runs: list[_Run] = []
    begun: list[tuple[int, tuple[int, int] | None]] = []
    ticks, alive = count(), []

    def state(value: Any) -> tuple[int, int] | None:
        alive.append(value)  # else a new tensor may get the same id
        return (id(value), value._version) if isinstance(value, Tensor) else None

    def begin(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        begun.append((next(ticks), state(args[0]) if len(args) == 1 and not keywords else None))

    def look(name: str) -> Any:
        def end(_: nn.Module, _args: Any, out: Any) -> None:
            start, taken = begun.pop()
            runs.append(_Run(name, start, next(ticks), taken, state(out)))

        return end

    handles = [part.register_forward_pre_hook(begin, with_kwargs=True) for part in trunk.modules()]
    handles += [part.register_forward_hook(look(name)) for name, part in trunk.named_modules()]
    with hooked(handles), torch.no_grad():
        trunk(pixels)
    names = [run.name for run in runs]
    return [run for run in runs if names.count(run.name) == 1]


def _chained(trunk: nn.Module, runs: Sequence[_Run], n: int) -> tuple[str, nn.Module] | None:
    """Return a layer and the sequence of layers after it, if they form a chain."""
    *inner, whole = runs
    found = _behind(trunk, inner, whole.given, whole.end, n)
    if found is None:
        return None
    layer, *behind = found
    return layer, nn.Sequential(*(trunk.get_submodule(name) for name in behind))


def _behind(
    trunk: nn.Module, runs: Sequence[_Run], wanted: tuple[int, int] | None, before: int, n: int
) -> list[str] | None:
    """Return the names of a chain of layers that ends at ``wanted`` and has ``n`` convolutions after its first."""
    makers = [run for run in runs if run.given == wanted and run.end < before and wanted is not None]
    if n <= 0:
        return [max(makers, key=lambda run: run.end).name] if makers else None
    for run in sorted(makers, key=lambda run: -run.start):
        own = _convolutions(trunk.get_submodule(run.name))
        found = _behind(trunk, runs, run.taken, run.start, n - own)
        if found is not None:
            return [*found, run.name]
    return None


def _graphed(trunk: nn.Module, n: int) -> tuple[str, nn.Module] | None:
    """Return the last layer at which a traced network can be cut with ``n`` convolutions after it."""
    if not isinstance(trunk, fx.GraphModule):
        return None
    for name in reversed([str(node.target) for node in trunk.graph.nodes if node.op == "call_module"]):
        halves = cut_by_graph(trunk, name, None)
        if halves is not None and _convolutions(halves[1]) >= n:
            return name, halves[1]
    return None
