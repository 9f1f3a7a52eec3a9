"""Split a network into trunk and head, and check that both together equal the network."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from ..errors import ModelError, WeightsError
from ..storage.tensors import tensors_digest
from ..types import Transform
from .base import Encoder, GlobalAverage, Layout


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield


PLACES = ((0.15, 0.15), (0.15, 0.85), (0.85, 0.15), (0.5, 0.85), (0.85, 0.5))
"""Places at which a picture is changed to find the order of a layer's tokens: shares of its height and width."""


class NotFiniteError(WeightsError):
    """A network's output is NaN or infinite."""


@dataclass(frozen=True)
class Split:
    """A network split into a trunk, from pixels to features, and a head, from features to a pooled vector."""

    trunk: nn.Module
    head: nn.Module
    layout: Layout

    def encoder(self, network: nn.Module, name: str, transform: Transform, **facts: Any) -> Encoder:
        """Make an encoder from the trunk and the head."""
        if facts.get("classifier") is None:
            facts["classes"] = ()
        if "fingerprint" not in facts:
            facts["fingerprint"] = fingerprint(network, transform)
        halves: dict[str, Any] = {"trunk": lambda: self.trunk, "head": self.head, "layout": self.layout}
        return Encoder(name=name, transform=transform, **{"module": lambda: network, **halves, **facts})


def freeze(module: nn.Module) -> nn.Module:
    """Set a module to evaluation mode and disable its parameter gradients, in place."""
    return module.eval().requires_grad_(False)


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a deep copy in evaluation mode with ``requires_grad=False``."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ModelError(
            f"{type(module).__name__} is compiled by TorchScript, so its layers cannot be explained. Pass the module "
            "from which it was made."
        )
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().clone(), requires_grad=False) for p in module.parameters()
    }
    try:
        return freeze(copy.deepcopy(module, memo))
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"copy.deepcopy cannot copy {type(module).__name__}: {error}. Remove tensors with a gradient history from "
            "its attributes."
        ) from error


def fingerprint(module: nn.Module, transform: Transform) -> str:
    """Compute a digest of all weights and the transform, as 16 hexadecimal digits."""
    tensors = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    return weights_digest(tensors, transform.fingerprint)


def weights_digest(tensors: Mapping[str, Tensor], more: str = "") -> str:
    """Compute a digest of weights (name, type, shape, bytes) and ``more``, as 16 hexadecimal digits."""
    return tensors_digest(tensors, more)[:16]


def replaced(module: nn.Module, changes: Mapping[str, nn.Module]) -> nn.Module:
    """Return a view of a network that shares all weights and replaces some submodules."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    below: dict[str, dict[str, nn.Module]] = {}
    for name, new in changes.items():
        child, _, rest = name.partition(".")
        if rest:
            below.setdefault(child, {})[rest] = new
        else:
            twin._modules[child] = new
    for child, inner in below.items():
        twin._modules[child] = replaced(module.get_submodule(child), inner)
    return twin


def example_pixels(size: tuple[int, int], batch: int = 1, seed: int = 0) -> Float[Tensor, "b 3 h w"]:
    """Return random pixels without changing the global random state."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


class Part(nn.Module):
    """A part of a network as a module with stable parameter names."""

    def __init__(self, module: nn.Module, run: Callable[[Any, Tensor], Tensor], name: str = "module") -> None:
        super().__init__()
        self.add_module(name, module)
        self.name, self.run = name, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(getattr(self, self.name), x)


class LastBlock(nn.Module):
    """The last transformer block and all layers after it.

    Networks with class-token pooling must be split before this block, because patch tokens have no gradient after it
    (pytorch-grad-cam #513).
    """

    def __init__(self, block: nn.Module, tail: nn.Module, keywords: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.block, self.tail, self.keywords = block, tail, dict(keywords or {})

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
        keywords = {name: moved(value, tokens.device) for name, value in self.keywords.items()}
        out = self.block(tokens, **keywords)
        return self.tail(out[0] if isinstance(out, tuple) else out)


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):
        return tuple(moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


def run_and_record(run: Callable[[], Any], block: nn.Module) -> tuple[Any, dict[str, Any]]:
    """Run a network, and record all arguments of a block except the first."""
    seen: dict[str, Any] = {}

    def look(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        names = list(inspect.signature(block.forward).parameters)[: len(args)]
        seen.update(dict(zip(names[1:], args[1:], strict=True)) | keywords)

    with block.register_forward_pre_hook(look, with_kwargs=True), torch.no_grad():
        out = run()
    return out, seen


def follows(run: Callable[[], Any], first: nn.Module, second: nn.Module) -> bool:
    """Check whether the second module's input is the first module's output."""
    given: list[Any] = []
    taken: list[Any] = []
    hears = first.register_forward_hook(lambda _m, _a, out: given.append(out))
    with hears, second.register_forward_pre_hook(lambda _m, args: taken.append(args[0])), torch.no_grad():
        run()
    return len(given) == len(taken) == 1 and given[0] is taken[0]


def average_if_equal(head: nn.Module, features: Tensor, layout: Layout) -> nn.Module:
    """Return ``GlobalAverage()`` if the head gives the same result on random features, otherwise the head."""
    if layout.kind != "nchw" or features.ndim != 4:
        return head
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = head(noise.clone())  # some heads work in place
        equal = out.shape == noise.shape[:2] and torch.allclose(out, noise.mean((2, 3)), atol=1e-6)
    return GlobalAverage() if equal else head


def linear_of(layers: Any, pooled: Float[Tensor, "1 p"], logits: Float[Tensor, "1 k"]) -> nn.Linear | None:
    """Return the linear layer that computes the logits from the pooled vector, or ``None`` if the layers do not.

    Args:
        layers: an affine layer, such as a linear layer, a 1 x 1 convolution, or a batch norm and a linear layer; or
            several of them in a tuple, whose outputs the network averages.
        pooled: pooled vector of a picture.
        logits: the network's output for this picture.
    """
    width = pooled.shape[1]
    if isinstance(layers, nn.Linear):
        linear = layers
    elif isinstance(layers, nn.Conv2d):
        bias = layers.weight.new_zeros(layers.out_channels) if layers.bias is None else layers.bias
        linear = linear_with(layers.weight.flatten(1), bias)
    else:
        parts = layers if isinstance(layers, tuple) else (layers,)
        # The outputs for 0 and for each unit vector are the bias, and the bias plus a column of the weights.
        rows = torch.cat([pooled.new_zeros(1, width), torch.eye(width, device=pooled.device)])
        try:
            with torch.no_grad():
                out: Tensor = sum(part(rows) for part in parts) / len(parts)
                linear = linear_with(out[1:].sub(out[:1]).T, out[0])
        except (IndexError, RuntimeError, TypeError, ValueError):  # layers that take no vectors
            return None
    if linear.in_features != width:
        return None
    with torch.no_grad():
        return linear if same(linear(pooled), logits) else None


def linear_with(weight: Float[Tensor, "k p"], bias: Float[Tensor, " k"]) -> nn.Linear:
    """Return a frozen linear layer with the given weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach().contiguous()), nn.Parameter(bias.detach().contiguous())
    freeze(layer)
    return layer


def of_logits(logits: Float[Tensor, "1 k"], n_classes: int, name: str) -> nn.Linear | None:
    """Return the identity as the last layer of a network whose pooled vector is its output, for known classes."""
    if not n_classes or logits.shape[1] != n_classes:
        return None
    if n_classes > 1 and bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        raise ModelError(
            f"{name} must return logits, but its outputs add up to 1, as probabilities do. Remove its softmax."
        )
    return linear_with(torch.eye(n_classes, device=logits.device), logits.new_zeros(n_classes))


def prove(split: Split, pixels: Float[Tensor, "b 3 h w"], expected: Float[Tensor, "b p"], name: str) -> Tensor:
    """Check that trunk and head together equal the network on random pixels; return the pooled vector."""
    with torch.no_grad():
        features = split.trunk(pixels)
        pooled = split.head(features)
    if not same(pooled, expected):
        raise ModelError(
            f"{name} cannot be split here, because information bypasses the target layer. Use "
            "seewhy.encoders.module.from_module with another target_layer."
        )
    grid, prefix = split.layout.grid, split.layout.prefix
    if split.layout.kind == "tokens" and (grid is None or features.shape[1] != grid[0] * grid[1] + prefix):
        raise ModelError(
            f"{name} must return {prefix} prefix tokens and a grid of {grid}, got {features.shape[1]} tokens. Use "
            "seewhy.encoders.module.from_module with the correct layout."
        )
    return pooled


def prove_gradient(split: Split, features: Tensor, name: str, layer: str) -> None:
    """Check that the pooled vector has a gradient at the places of the features."""
    leaf = features.detach().clone().requires_grad_()
    with torch.enable_grad():
        pooled = split.head(leaf)
        total = (pooled * torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))).sum()
        gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
    if gradient is None or (split.layout.kind != "tokens" and not gradient.any()):
        raise ModelError(
            f"The prediction of {name} has no gradient at {layer!r}. Remove torch.no_grad(), detach() and quantised "
            "layers behind it, or choose another target_layer."
        )
    if not split.layout.to_grid(gradient).any():
        raise ModelError(
            f"The prediction of {name} uses only the class token of {layer!r}, so every map would be zero. Choose the "
            "block before it, or pass target_layer=None."
        )


@torch.no_grad()
def check_places(run: Callable[[Tensor], Tensor], layout: Layout, size: tuple[int, int], layer: str) -> None:
    """Raise ``ModelError`` if the tokens of a layer are in another order than the places of the picture.

    A change of one place of a picture must change the tokens of this place most. Layers that mix all places evenly are
    accepted.
    """
    height, width = size
    plain = example_pixels(size)
    changed = plain.repeat(len(PLACES), 1, 1, 1)
    for picture, (y, x) in zip(changed, PLACES, strict=True):
        rows, columns = (slice(int(n * (a - 0.06)), int(n * (a + 0.06)) + 1) for n, a in ((height, y), (width, x)))
        picture[:, rows, columns] += 3
    before = layout.to_grid(run(plain))
    wrong = 0
    for picture, (y, x) in zip(changed, PLACES, strict=True):
        change = (layout.to_grid(run(picture[None])) - before).abs().sum(1)[0]
        n_rows, n_columns = change.shape
        row, column = divmod(int(change.argmax()), n_columns)
        off = max(abs((row + 0.5) / n_rows - y) - 0.5 / n_rows, abs((column + 0.5) / n_columns - x) - 0.5 / n_columns)
        wrong += off > 0.1 and bool(change.max() > 3 * change.median())
    if wrong > len(PLACES) // 2:
        raise ModelError(
            f"The tokens of the layer {layer!r} are not in the order of the picture's rows, so a map of it would show "
            "other places. Choose a layer behind it, such as the last block."
        )


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Check whether two outputs are equal up to float32 rounding."""
    if not theirs.isfinite().all():
        raise NotFiniteError(
            "The output of the network must be finite, got NaN or infinity for a picture of noise. Check its weights."
        )
    if ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= 3e-6 * theirs.abs().max().clamp_min(1.0))


def cut_by_graph(module: nn.Module, layer: str, end: str | None) -> tuple[nn.Module, nn.Module] | None:
    """Split a traced graph at a layer and at the input of ``end``, if tracing succeeds."""
    leaves = {id(module.get_submodule(name)) for name in (layer, end) if name}

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            # Subclasses of LayerNorm that normalise maps are also kept as one module.
            return id(m) in leaves or isinstance(m, nn.LayerNorm) or super().is_leaf_module(m, qualified_name)

    try:
        graph = Tracer().trace(module)
    except Exception:  # tracing may raise any exception; hooks are used instead
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
    """Return the nodes on which a node depends, up to ``stop``."""
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
    """Copy some nodes to a new graph with ``source`` as its input."""
    new = fx.Graph()
    twins: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if source is not None and node is source:
            # The next layer may work in place, and the features are still needed.
            twins[source] = new.call_method("clone", (new.placeholder("features"),))
        elif node in nodes:
            twins[node] = new.node_copy(node, lambda n: twins[n])
    new.output(twins[result])
    return new


class Reached(Exception):
    """Raised to end a forward pass."""


class UntilLayer(nn.Module):
    def __init__(self, module: nn.Module, layer: str) -> None:
        super().__init__()
        self.module, self.layer = module, layer

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        given: list[Tensor] = []
        own = get_ident()

        def look(_: nn.Module, args: Any, out: Tensor) -> None:
            if get_ident() != own:  # another thread uses the same network
                return
            # An exporter keeps a stack of modules that an exception leaves as it is. What follows is run too then; it
            # may work in place, and drops out of the graph.
            given.append(out.clone() if torch.compiler.is_compiling() else out)
            if not torch.compiler.is_compiling():
                raise Reached

        with suppress(Reached), self.module.get_submodule(self.layer).register_forward_hook(look):
            self.module(pixels)
        if given:
            return given[0]
        raise ModelError(
            f"The layer {self.layer!r} does not run for this picture. Choose a target_layer that always runs."
        )


class FromLayer(nn.Module):
    """The layers after ``layer``, run by a pass of the whole network in which the output of ``layer`` is replaced."""

    def __init__(self, module: nn.Module, layer: str, end: str | None, size: tuple[int, int]) -> None:
        super().__init__()
        self.module, self.layer, self.end, self.size = module, layer, end, size

    def forward(self, features: Tensor) -> Float[Tensor, "b p"]:
        taken: list[Tensor] = []
        handles = [self.module.get_submodule(self.layer).register_forward_hook(lambda _m, _a, _o: features.clone())]
        if self.end is not None:
            end = self.module.get_submodule(self.end)
            handles.append(end.register_forward_pre_hook(lambda _m, args: taken.append(args[0])))
        with hooked(handles):
            out = self.module(features.new_zeros(features.shape[0], 3, *self.size))
        return taken[0] if self.end is not None else out
