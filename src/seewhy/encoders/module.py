"""Make encoders from any ``nn.Module`` and one of its layers."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..bounds import article
from ..clusters import grouped
from ..errors import InputError, ModelError, UnknownNameError
from ..types import Transform
from .base import Encoder, Layout
from .split import (
    FromLayer,
    Split,
    UntilLayer,
    average_if_equal,
    check_places,
    cut_by_graph,
    example_pixels,
    freeze,
    frozen_copy,
    hooked,
    linear_of,
    of_logits,
    prove,
    prove_gradient,
)

Kind = Literal["nchw", "nhwc"]

MOST_PREFIX_TOKENS = 16

OF_MAPS = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle, nn.Dropout2d,
)  # fmt: skip
"""Layer types whose output has the channels in axis 1."""


class Arrangements:
    """A record of the input and output of every layer in a forward pass over one picture."""

    def __init__(self, module: nn.Module, pixels: Tensor) -> None:
        self.size = (pixels.shape[2], pixels.shape[3])
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self._layers = {name: layer for name, layer in module.named_modules() if name}

        def note(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
            def look(_: nn.Module, args: tuple[object, ...], out: object) -> None:
                self.calls[name] = self.calls.get(name, 0) + 1
                if isinstance(out, Tensor):
                    self.outputs.pop(name, None)
                    self.outputs[name] = out
                if args and isinstance(args[0], Tensor):
                    self.inputs[name] = args[0]

            return look

        with hooked(layer.register_forward_hook(note(n)) for n, layer in self._layers.items()), torch.no_grad():
            self.output: Tensor = module(pixels)
        if not isinstance(self.output, Tensor):
            raise ModelError(
                f"{type(module).__name__} must return a tensor, got {article(type(self.output).__name__)}. Wrap it in "
                "a module that returns its logits."
            )
        rows = [out.shape[1] for out in self.outputs.values() if out.ndim == 3 and len(out) == 1]
        self._n_tokens = {n for n in rows if n > 1}
        self._takers = grouped((id(x), name) for name, x in self.inputs.items())
        self._makers = grouped((tuple(out.shape), name) for name, out in self.outputs.items())

    def last_linear(self) -> str | None:
        """Return the name of the linear layer that gives the network's output, or ``None``."""
        for name, out in reversed(self.outputs.items()):
            if isinstance(self._layers[name], nn.Linear) and out is self.output:
                return name if self.calls[name] == 1 else None
        return None

    def kind(self, name: str) -> Kind | None:
        """Return the memory layout of a layer's feature map, or ``None`` if the output is not a feature map."""
        out = self.outputs[name]
        if out.ndim != 4 or len(out) != 1:
            return None
        kind = next(self._votes(name, out), None) or self._by_proportion(out)
        # One row per token and head: (1, heads, t, d) or (1, heads, t, t).
        heads = out.shape[2] in self._n_tokens and (kind == "nhwc" or out.shape[2] == out.shape[3])
        return None if heads or is_attention(out) else kind

    def _votes(self, name: str, out: Tensor) -> Iterator[Kind]:
        """Yield the layouts that can be inferred from neighbouring layers, the most reliable first."""
        for taker in self._takers.get(id(out), ()):
            yield from _vote(self._layers[taker], out)
        makers = list(reversed(self._makers[tuple(out.shape)]))
        makers.sort(key=lambda n: (self.outputs[n] is not out, n != name and not n.startswith(f"{name}.")))
        for maker in makers:
            yield from _vote(self._layers[maker], out)

    def _by_proportion(self, out: Tensor) -> Kind | None:
        """Infer the layout from the picture's proportions, if they determine it."""
        height, width = self.size
        shapes: dict[Kind, tuple[int, int]] = {"nchw": tuple(out.shape[2:]), "nhwc": tuple(out.shape[1:3])}  # type: ignore[dict-item]
        off = {kind: abs(h * width - w * height) for kind, (h, w) in shapes.items()}
        best: Kind = "nchw" if off["nchw"] < off["nhwc"] else "nhwc"
        near = math.prod(shapes[best]) > 1 and is_proportional(shapes[best], self.size)
        return best if near and off["nchw"] != off["nhwc"] else None

    def grid(self, name: str) -> tuple[int, int] | None:
        kind, shape = self.kind(name), self.outputs[name].shape
        if kind is None:
            return None
        height, width = shape[2:] if kind == "nchw" else shape[1:3]
        return (height, width) if height * width > 1 else None

    def layout(self, layer: str, name: str, stem: tuple[tuple[int, int], int] | None) -> Layout:
        out = self.outputs.get(layer)
        if out is None or self.calls[layer] != 1:
            raise ModelError(
                f"The layer {layer!r} of {name} must run once and return one tensor, but it ran "
                f"{self.calls.get(layer, 0)} times. Choose its parent module."
            )
        if (kind := self.kind(layer)) is not None:
            return Layout(kind)
        found = self._tokens(out, stem) if out.ndim == 3 and len(out) == 1 else None
        if found is not None:
            return found
        raise ModelError(
            f"The layer {layer!r} of {name} must return a feature map (b, c, h, w) or (b, h, w, c), or tokens (b, t, "
            f"d) that fill a grid, got {tuple(out.shape)} for a picture of {self.size[0]} x {self.size[1]}. Choose "
            "another layer, or pass layout=Layout('nchw'), Layout('nhwc') or Layout('tokens', grid=(h, w), prefix=n)."
        )

    def _tokens(self, out: Tensor, stem: tuple[tuple[int, int], int] | None) -> Layout | None:
        """Infer the token grid from the network, its feature maps or the picture's proportions."""
        n = out.shape[1]
        if stem is not None and n == math.prod(stem[0]) + stem[1]:
            return Layout("tokens", *stem)
        grids = {g: n - math.prod(g) for name in self.outputs if (g := self.grid(name)) is not None}
        fitting = {g: prefix for g, prefix in grids.items() if 0 <= prefix <= MOST_PREFIX_TOKENS}
        if fitting:
            grid = min(fitting, key=lambda g: fitting[g])
            return Layout("tokens", grid, fitting[grid])
        return tokens_by_proportion(n, self.size)


def _vote(layer: Any, x: Tensor) -> Iterator[Kind]:
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
    """Check whether a tensor holds attention weights of shape ``(b, heads, t, t)``."""
    square = out.ndim == 4 and out.shape[2] == out.shape[3] > 1
    return square and not bool((out < 0).any()) and bool(((out.float().sum(3) - 1).abs() < 1e-3).all())


def is_proportional(grid: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Check whether a grid has the picture's proportions, up to rounding."""
    return abs(grid[0] * picture[1] - grid[1] * picture[0]) <= max(picture)


def tokens_by_proportion(n: int, picture: tuple[int, int]) -> Layout | None:
    """Return the token layout that has the picture's proportions and the fewest prefix tokens."""
    height, width = picture
    for prefix in range(min(MOST_PREFIX_TOKENS + 1, n)):
        rows = round(math.sqrt((n - prefix) * height / width))
        columns = (n - prefix) // max(rows, 1)
        if rows * columns == n - prefix > 1 and rows * width == columns * height:
            return Layout("tokens", (rows, columns), prefix)
    return None


def stem_of(module: nn.Module) -> tuple[tuple[int, int], int] | None:
    """Return timm's ``(grid_size, num_prefix_tokens)``, or ``None`` if the network has no such attributes."""
    for part in module.modules():
        grid = getattr(getattr(part, "patch_embed", None), "grid_size", None)
        prefix = getattr(part, "num_prefix_tokens", None)
        if isinstance(grid, tuple) and len(grid) == 2 and isinstance(prefix, int):
            return (int(grid[0]), int(grid[1])), prefix
    return None


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
    """Make an encoder from a frozen float32 copy of a network.

    If ``torch.fx`` can trace the network, gradients and masked features run only the layers after the target layer. If
    tracing fails, gradients and masked features run the whole network.

    Args:
        module: network that maps ``(b, 3, h, w)`` to logits ``(b, k)``.
        target_layer: the layer whose output is explained, as a name or module; ``None`` takes the last layer with
            spatial features, and logs its name on the logger ``seewhy``.
        transform: the network's preprocessing: a :class:`seewhy.Transform`, torchvision's ``weights.transforms()``,
            timm's data config or ``create_transform(...)``, and more (:func:`as_transform`).
        classes: class names, in the order of the outputs; required if the network does not end in a linear layer.
        name: name of the encoder.
        layout: layout of the layer's output; required for tokens whose grid SeeWhy cannot infer.
        engine: engine that runs the layers up to the target layer.

    Raises:
        UnknownNameError: the network does not have the layer; the message suggests similar names.
        ModelError: the network cannot be split at the layer, or the number of classes is wrong.
    """
    transform = as_transform(transform, name)
    twin = frozen_copy(module).float()
    found = _layer_name(module, target_layer)
    split, classifier, found = split_module(twin, found, layout, transform.input_size, name, len(classes))
    if target_layer is None:
        log.info("%s: target layer %r", name, found)
    n = 0 if classifier is None else classifier.out_features
    names = tuple(classes) or tuple(f"class {i}" for i in range(n))
    return split.encoder(twin, name, transform, classifier=classifier, classes=names, engine=engine)


def split_module(
    module: nn.Module,
    layer: str | None,
    layout: Layout | None,
    size: tuple[int, int],
    name: str,
    n_classes: int | None = 0,
) -> tuple[Split, nn.Linear | None, str]:
    """Split a network after a layer and before its last linear layer.

    If the network does not end in a linear layer, the pooled vector is its output, and the last layer is the identity
    if the outputs are classes.

    Args:
        n_classes: number of classes; ``None`` takes the number of outputs, and with 0 the outputs may also be features.
    """
    pixels = example_pixels(size)
    trace = Arrangements(module, pixels)
    if trace.output.ndim != 2:
        raise ModelError(
            f"{name} must return one vector per picture, (b, k), got {tuple(trace.output.shape)}. Wrap it in a module "
            "that pools."
        )
    n_outputs = trace.output.shape[1]
    n_classes = n_outputs if n_classes is None else n_classes
    if n_classes not in (0, n_outputs):
        cure = "Add or remove names."
        if n_outputs == 1:
            cure = (
                "Wrap it in a module that returns one logit per class, such as torch.cat([torch.zeros_like(x), x], 1)."
            )
        raise ModelError(
            f"`classes` must have one name per output of {name}, got {n_classes} names for {n_outputs} "
            f"output{'s' * (n_outputs != 1)}. {cure}"
        )
    stem, is_given = stem_of(module), layout is not None
    if layer is None:
        layer, layout = _last_place(module, trace, name, layout)
    elif layout is None:
        layout = trace.layout(layer, name, stem)
    linear = trace.last_linear()
    parts = cut_by_graph(module, layer, linear)
    if parts is None:  # this pair works for every network; its head costs a whole forward pass
        parts = UntilLayer(module, layer), FromLayer(module, layer, linear, size)
    with torch.no_grad():
        features = parts[0](pixels)
    head = average_if_equal(parts[1], features, layout)
    split = Split(freeze(parts[0]), freeze(head), layout)
    expected = trace.output if linear is None else trace.inputs[linear]
    prove(split, pixels, expected, f"{name} at {layer!r}")
    prove_gradient(split, features, name, layer)
    if layout.kind == "tokens" and not is_given and (stem is None or layout.grid != stem[0]):
        check_places(split.trunk, layout, size, layer)
    if linear is None:
        return split, of_logits(trace.output, n_classes, name), layer
    return split, linear_of(module.get_submodule(linear), expected, trace.output), layer


def _layer_name(module: nn.Module, layer: str | nn.Module | None) -> str | None:
    names = {name: m for name, m in module.named_modules() if name}
    if isinstance(layer, str) and layer not in names:
        raise UnknownNameError(f"layer of {type(module).__name__}", layer, names)
    if layer is None or isinstance(layer, str):
        return layer
    if (found := next((name for name, m in names.items() if m is layer), None)) is not None:
        return found
    raise ModelError(
        f"`target_layer` must be a layer of {type(module).__name__}, got another {type(layer).__name__}. Pass a name "
        "from dict(module.named_modules())."
    )


def _last_place(module: nn.Module, trace: Arrangements, name: str, layout: Layout | None) -> tuple[str, Layout]:
    """Return the last layer with spatial features: the second-to-last transformer block, or the last feature map."""
    order = [n for n in trace.outputs if trace.calls[n] == 1]
    maps = {n: grid for n in order if (grid := trace.grid(n)) is not None}
    if not maps:
        raise ModelError(f"{name} has no layer that returns a feature map (b, c, h, w). Pass target_layer and layout.")
    last = list(maps)[-1]
    for candidate, grid in reversed(maps.items()):
        block = _block_before_last(module, trace, order[order.index(candidate) :], grid)
        if block is not None and order.index(block[1]) > order.index(last):
            n = trace.outputs[block[0]].shape[1] - grid[0] * grid[1]
            return block[0], layout or Layout("tokens", grid, n)
    return last, layout or Layout(trace.kind(last) or "nchw")


def _block_before_last(
    module: nn.Module, trace: Arrangements, order: Sequence[str], grid: Sequence[int]
) -> tuple[str, str] | None:
    """Return the names of the last two sibling blocks whose tokens fill the grid."""
    outs = ((name, trace.outputs[name]) for name in order)
    most = grid[0] * grid[1] + MOST_PREFIX_TOKENS
    tokens = [name for name, out in outs if out.ndim == 3 and grid[0] * grid[1] <= out.shape[1] <= most]
    for block in reversed(tokens):
        parent, _, _ = block.rpartition(".")
        if isinstance(module.get_submodule(parent), nn.Sequential | nn.ModuleList):
            siblings = [n for n in tokens if n.rpartition(".")[0] == parent]
            if len(siblings) > 1:
                return siblings[-2], siblings[-1]
    return None


PLAIN = ("ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToImage", "ToDtype", "ConvertImageDtype",
         "ToPureTensor", "RGB")  # fmt: skip
"""Transforms that change a picture's data type or container but not its content."""

FORMS = (
    "a seewhy.Transform, torchvision's weights.transforms(), timm's data config or create_transform(...), an image "
    "processor of transformers, or a Compose of Resize, CenterCrop, ToTensor and Normalize"
)


def as_transform(given: Any, name: str = "The transform") -> Transform:
    """Convert the preprocessing of another library to a :class:`Transform`."""
    if isinstance(given, Transform):
        return given
    if hasattr(given, "transforms") and hasattr(given, "meta"):  # a member of torchvision's weights
        given = given.transforms
    if isinstance(given, functools.partial):
        given = given()
    if hasattr(given, "crop_size") and hasattr(given, "resize_size"):
        from .torchvision import transform_of

        return transform_of(given)
    if hasattr(given, "image_mean") and hasattr(given, "to_dict"):
        from .huggingface import transform_of as of_processor

        return of_processor(given.to_dict(), name)
    if isinstance(given, Mapping) and {"input_size", "mean", "std", "interpolation"} <= set(given):
        from .timm import transform_of_config

        return transform_of_config(dict(given), name)
    steps = getattr(given, "transforms", given)
    if isinstance(steps, Sequence) and not isinstance(steps, str) and len(steps):
        return _of_steps(list(steps))
    raise InputError(f"The transform must be {FORMS}, got {article(type(given).__name__)}.")


def _of_steps(steps: list[Any]) -> Transform:
    """Convert Resize, CenterCrop and Normalize, in this order, to a :class:`Transform`."""
    found: dict[str, Any] = {}
    for step in steps:
        kind = type(step).__name__
        if kind in ("Resize", "CenterCrop", "Normalize") and kind not in found:
            found[kind] = step
        elif kind not in PLAIN and getattr(step, "__name__", "") != "_convert_to_rgb":
            raise InputError(
                f"The transform has the step {kind}, which SeeWhy cannot reproduce. Use Resize, CenterCrop, ToTensor "
                "and Normalize, each at most once. Pass the transform for evaluation, not for training."
            )
    if "Resize" not in found or list(found) != [k for k in ("Resize", "CenterCrop", "Normalize") if k in found]:
        raise InputError(
            "The transform must have the steps Resize, CenterCrop and Normalize in this order, got "
            f"{', '.join(type(s).__name__ for s in steps)}. Reorder them, or pass a seewhy.Transform."
        )
    resize = _size(found["Resize"].size)
    crop = _size(found["CenterCrop"].size) if "CenterCrop" in found else resize
    size = (crop, crop) if isinstance(crop, int) else crop
    if "CenterCrop" not in found and isinstance(resize, int):
        raise InputError(
            "The transform must give pictures of one shape, but it resizes the short side without a crop. Add "
            f"CenterCrop({resize}), or resize to (height, width)."
        )
    interpolation = str(getattr(found["Resize"].interpolation, "value", found["Resize"].interpolation))
    normal = found.get("Normalize")
    mean, std = ((0.0,) * 3, (1.0,) * 3) if normal is None else (_numbers(normal.mean), _numbers(normal.std))
    return Transform(size, resize, interpolation, mean, std)  # type: ignore[arg-type]


def _size(size: Any) -> int | tuple[int, int]:
    if isinstance(size, Sequence):
        return int(size[0]) if len(size) == 1 else (int(size[0]), int(size[1]))
    return int(size)


def _numbers(values: Any) -> tuple[float, ...]:
    """Return the values rounded to the seven digits of float32."""
    return tuple(float(f"{float(v):.7g}") for v in values)
