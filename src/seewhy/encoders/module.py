"""An encoder from any ``nn.Module`` and the name of a layer in it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..arguments import checked
from ..errors import ModelError, UnknownNameError
from .arrangement import MOST_PREFIX_TOKENS, Arrangements, Trace, stem_of, watch
from .base import Encoder, Layout
from .cut import cut_by_graph, cut_by_hooks
from .split import Split, average_if_equal, example_pixels, fingerprint, freeze, in_single, prove, same
from .transforms import as_transform

log = logging.getLogger("seewhy")


@checked
def from_module(
    module: nn.Module,
    *,
    target_layer: str | nn.Module | None = None,
    transform: Any,
    classes: Sequence[str] = (),
    name: str = "module",
    layout: Layout | None = None,
    engine: str = "auto",
) -> Encoder:
    """An encoder from a frozen copy of a network; the network handed in is left exactly as it was.

    The copy is a snapshot: training on changes the original only. It computes in float32, whatever the weights are in.
    With a clean graph the head costs what lies behind the layer; where ``torch.fx`` cannot follow the network, the head
    runs the whole of it once more.

    Args:
        module: ``(b, 3, h, w)`` → ``(b, k)``.
        target_layer: the layer whose output is explained, by name or itself; ``None`` takes the last one that still has
            a place for everything, and says which on the logger ``seewhy``.
        transform: the network's preprocessing: a :class:`seewhy.Transform`, torchvision's ``weights.transforms()``,
            timm's data config or ``create_transform(...)``, and more (:func:`seewhy.encoders.transforms.as_transform`).
        classes: names of the outputs.
        name: what to call the encoder.
        layout: how the layer arranges its output; needed for tokens whose grid cannot be told.
        engine: what runs the trunk.

    Raises:
        UnknownNameError: there is no such layer; carries the nearest names.
        ModelError: the layer cannot be a cut, or the classes do not match.
        InputError: the transform is none, or does what cannot be expressed.
    """
    transform = as_transform(transform, name)
    found = _layer_name(module, target_layer)
    twin = in_single(frozen_copy(module))
    split, classifier, found, layout = split_module(twin, found, layout, transform.input_size, name)
    if target_layer is None:
        log.info("%s: target layer %r", name, found)
    return Encoder(
        name=name,
        transform=transform,
        trunk=lambda: split.trunk,
        head=split.head,
        layout=layout,
        fingerprint=fingerprint(twin, transform),
        classifier=classifier,
        classes=_class_names(classes, classifier, name),
        module=lambda: twin,
        engine=engine,
    )


def _class_names(classes: Sequence[str], classifier: nn.Linear | None, name: str) -> Sequence[str]:
    """The user's names, one per output, or ``class 0`` …"""
    if not classes:
        return [f"class {i}" for i in range(classifier.out_features)] if classifier is not None else ()
    if classifier is None or len(classes) != classifier.out_features:
        n = "no linear last layer" if classifier is None else f"{classifier.out_features} outputs"
        raise ModelError(
            f"{name} was given {len(classes)} class names and has {n}. One name per output was expected. "
            "Pass classes in the order of the outputs."
        )
    return classes


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode without gradients; the gradients of the original are not copied."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().clone(), requires_grad=False) for p in module.parameters()
    }
    try:
        return freeze(copy.deepcopy(module, memo))
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied: {error}. A network that copy.deepcopy copies was expected. "
            "Remove tensors with a gradient history from its attributes."
        ) from error


def split_module(
    module: nn.Module, layer: str | None, layout: Layout | None, size: tuple[int, int], name: str
) -> tuple[Split, nn.Linear | None, str, Layout]:
    """Cut a network behind a layer and before its last linear layer."""
    pixels = example_pixels(size)
    trace = watch(module, pixels)
    if trace.output.ndim != 2:
        raise ModelError(
            f"{name} gives {tuple(trace.output.shape)} for one picture. One vector per picture, (b, k), was expected. "
            "Wrap it in a module that pools."
        )
    if layer is None:
        layer, layout = _last_place(module, trace, name, layout)
    elif layout is None:
        layout = Arrangements(module, trace).layout(layer, name, stem_of(module))
    linear = trace.last_linear(module)
    parts = cut_by_graph(module, layer, linear) or cut_by_hooks(module, layer, linear, size)
    with torch.no_grad():
        features = parts[0](pixels)
    head = average_if_equal(parts[1], features, layout)
    split = Split(freeze(parts[0]), freeze(head), layout)
    expected = trace.output if linear is None else trace.inputs[linear]
    prove(split, pixels, expected, f"{name} at {layer!r}")
    _require_gradient(split, features, f"{name} at {layer!r}")
    classifier = module.get_submodule(linear) if linear is not None else None
    if classifier is not None and not same(classifier(expected), trace.output):
        classifier = None
    return split, classifier, layer, layout  # type: ignore[return-value]


def _layer_name(module: nn.Module, layer: str | nn.Module | None) -> str | None:
    names = {name: m for name, m in module.named_modules() if name}
    if layer is None:
        return None
    if isinstance(layer, str):
        if layer not in names:
            raise UnknownNameError(f"layer of {type(module).__name__}", layer, names)
        return layer
    for name, candidate in names.items():
        if candidate is layer:
            return name
    raise ModelError(
        f"The target layer, a {type(layer).__name__}, is not inside {type(module).__name__}. One of its own layers was "
        "expected. Pass it by name; see dict(module.named_modules())."
    )


def _last_place(module: nn.Module, trace: Trace, name: str, layout: Layout | None) -> tuple[str, Layout]:
    """The last layer with places: the block before the last one of a token network, or the last map."""
    order = [n for n in trace.outputs if trace.calls[n] == 1]
    arranged = Arrangements(module, trace)
    maps = {n: grid for n in order if (grid := arranged.grid(n)) is not None}
    if not maps:
        raise ModelError(
            f"{name} has no layer that gives a map (b, c, h, w). A network with places was expected. "
            "Pass target_layer and layout."
        )
    last = list(maps)[-1]
    for candidate, grid in reversed(maps.items()):
        block = _block_before_last(module, trace, order[order.index(candidate) :], grid)
        if block is not None and order.index(block[1]) > order.index(last):
            n = trace.outputs[block[0]].shape[1] - grid[0] * grid[1]
            return block[0], layout or Layout("tokens", grid, n)
    return last, layout or Layout(arranged.kind(last) or "nchw")


def _block_before_last(
    module: nn.Module, trace: Trace, order: Sequence[str], grid: Sequence[int]
) -> tuple[str, str] | None:
    """The last two of a row of blocks that give tokens of this grid."""
    tokens = [n for n in order if _are_tokens(trace.outputs[n], grid)]
    for block in reversed(tokens):
        parent, _, _ = block.rpartition(".")
        if isinstance(module.get_submodule(parent), nn.Sequential | nn.ModuleList):
            siblings = [n for n in tokens if n.rpartition(".")[0] == parent]
            if len(siblings) > 1:
                return siblings[-2], siblings[-1]
    return None


def _are_tokens(out: Tensor, grid: Sequence[int]) -> bool:
    return out.ndim == 3 and 0 <= out.shape[1] - grid[0] * grid[1] <= MOST_PREFIX_TOKENS


def _require_gradient(split: Split, features: Float[Tensor, "b ..."], name: str) -> None:
    """Refuse a layer whose places the prediction does not read."""
    leaf = features.detach().clone().requires_grad_()
    with torch.enable_grad():
        pooled = split.head(leaf)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad((pooled * weights).sum(), leaf, allow_unused=True)
    if gradient is None or not split.layout.to_grid(gradient).any():
        raise ModelError(
            f"{name}: the prediction reads no place of this layer, so every map would be zero (a class token is all "
            "that is read after the last block). A layer before the last mixing of tokens was expected. "
            "Choose the block before it, or target_layer=None."
        )
