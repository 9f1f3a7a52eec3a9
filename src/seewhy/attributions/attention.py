"""Read and replace the attention of a transformer without changing its modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..encoders.base import EncoderOutput
from ..errors import InputError
from .base import Explainable, eager_features

_SOFTMAX = {torch.softmax, functional.softmax, Tensor.softmax}
_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
_MEAN = {torch.mean, Tensor.mean}
_PACKED = inspect.signature(functional.multi_head_attention_forward)


class Capture(TorchFunctionMode):
    """A context manager that computes attention without fused kernels and records the weights in ``maps``.

    Other threads are not affected. ``change`` is an optional function from the weights to new weights.
    """

    def __init__(self, change: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.change = change
        self.maps: list[Float[Tensor, "b heads tq tk"]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            call = _PACKED.bind(*args, **kwargs)
            if not _is_plain(call):
                raise InputError(
                    "The attention layers must have one projection for query, key and value, and no padded keys. Use "
                    "grad_cam, rise or occlusion."
                )
            out, asks = attend_packed(call, self._attend)
            weights = self.maps[-1].mean(1) if call.arguments["average_attn_weights"] else self.maps[-1]
            return out, weights if asks else None
        out = func(*args, **kwargs)
        return self._keep(out) if func in _SOFTMAX and out.ndim == 4 else out

    def _keep(self, weights: Tensor) -> Tensor:
        if self.change is not None:
            weights = self.change(weights)
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        self.maps.append(weights)
        return weights

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **keywords: Any) -> Tensor:
        weights, value = attention_weights(query, key, value, *args, **keywords)
        return self._keep(weights) @ value


def attention_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Float[Tensor, "b heads tq tk"], Float[Tensor, "b heads tk d"]]:
    """Compute the weights of ``scaled_dot_product_attention``, and the values repeated for each head."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1), value


def attend_packed(call: inspect.BoundArguments, attend: Callable[..., Tensor]) -> tuple[Tensor, bool]:
    """Compute ``nn.MultiheadAttention`` with another attention function."""
    a = call.arguments
    joined = a["in_proj_weight"]
    apart = (a["q_proj_weight"], a["k_proj_weight"], a["v_proj_weight"])
    weights = apart if joined is None else joined.chunk(3)
    biases = (None,) * 3 if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)
    parts = zip((a["query"], a["key"], a["value"]), weights, biases, strict=True)
    heads = [functional.linear(x, w, b).unflatten(2, (a["num_heads"], -1)).permute(1, 2, 0, 3) for x, w, b in parts]
    mask = a["attn_mask"]
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # here True means hidden, in scaled_dot_product_attention it means seen
    out = attend(heads[0], heads[1], heads[2], mask).permute(2, 0, 1, 3).flatten(2)
    return functional.linear(out, a["out_proj_weight"], a["out_proj_bias"]), bool(a["need_weights"])


def _is_plain(call: inspect.BoundArguments, apart: bool = False) -> bool:
    """Check that an attention call has no extra or masked keys, and one projection for query, key and value."""
    call.apply_defaults()
    a = call.arguments
    unusual = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    packed = a["in_proj_weight"] is not None or (apart and a["use_separate_proj_weight"])
    return packed and not a["add_zero_attn"] and all(a[name] is None for name in unusual)


Answer = Callable[[int, Callable[[], Tensor], Tensor], Tensor]
"""Function from the index of an attention layer, its weights (computed when called) and its values to its output."""


class Answered(TorchFunctionMode):
    """A context manager that replaces the outputs of attention layers by ``answer``, and the standard deviations of
    layer norms by ``norm``.

    A mean over all tokens or positions counts as attention with equal weights.
    """

    def __init__(self, answer: Answer, norm: Callable[[int, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.answer, self.norm = answer, norm
        self.n_norms, self.number = 0, -1
        self._softmax: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            call = _PACKED.bind(*args, **kwargs)
            if _is_plain(call, apart=True):
                out, _ = attend_packed(call, self._attend)
                return out, None
        if func in _MATMUL and self._is_softmax(args[0]) and args[1].ndim == args[0].ndim > 2:
            return self._next(lambda: args[0], args[1])
        if (mean := self._mean(func, args, kwargs)) is not None:
            return mean
        if func is functional.layer_norm and self.norm is not None:
            return self._normalise(*args, **kwargs)
        out = func(*args, **kwargs)
        if func in _SOFTMAX and out.ndim > 2:
            self._softmax = out  # kept, so that no other tensor can stand at its address
        return out

    def _is_softmax(self, weights: Tensor) -> bool:
        """Check whether a tensor shares its memory with the last softmax output."""
        last = self._softmax
        return last is not None and weights.untyped_storage().data_ptr() == last.untyped_storage().data_ptr()

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **keywords: Any) -> Tensor:
        if keywords.get("enable_gqa"):
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        return self._next(lambda: attention_weights(query, key, value, *args, **keywords)[0], value)

    def _mean(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """Handle a mean over all positions as attention with equal weights."""
        if func is functional.adaptive_avg_pool2d and (args[1:] or tuple(kwargs.values()))[0] in (1, (1, 1), [1, 1]):
            axes, keep = (2, 3), True
        elif func in _MEAN and (given := (args[1:] or (kwargs.get("dim"),))[0]) is not None and args[0].ndim in (3, 4):
            axes = tuple(sorted(axis % args[0].ndim for axis in ((given,) if isinstance(given, int) else given)))
            keep = bool(kwargs.get("keepdim", (*args, False, False)[2]))
        else:
            return None
        x = args[0]
        if (x.ndim, axes) not in ((3, (1,)), (4, (1, 2)), (4, (2, 3))):
            return None
        tokens = x if x.ndim == 3 else x.flatten(2).transpose(1, 2) if axes == (2, 3) else x.flatten(1, 2)
        equal = x.new_full((len(x), 1, 1, tokens.shape[1]), 1 / tokens.shape[1])
        mean = self._next(lambda: equal, tokens[:, None])[:, 0, 0]
        for axis in axes if keep else ():
            mean = mean.unsqueeze(axis)
        return mean

    def _normalise(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        assert self.norm is not None
        axes = tuple(range(-len(shape), 0))
        length = (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt()
        self.n_norms += 1
        plain = (x - x.mean(axes, keepdim=True)) / self.norm(self.n_norms - 1, length)
        plain = plain if weight is None else plain * weight
        return plain if bias is None else plain + bias

    def _next(self, weights: Callable[[], Tensor], values: Tensor) -> Tensor:
        self.number += 1
        return self.answer(self.number, weights, values)


@runtime_checkable
class AddsTokens(Protocol):
    """A head that adds tokens to the tokens of the picture."""

    n_added: int

    def entering(self, n_tokens: int, n_layers: int) -> list[int]:
        """Return how many tokens each layer takes from the previous layer, if the last layer takes ``n_tokens``."""


@dataclass(frozen=True)
class AttentionRun:
    """The attention ``(b, heads, t, t)`` of every layer for some pictures. ``first`` is the index of the first picture.

    ``entering`` is the number of tokens that each layer takes from the previous layer. The layer's other tokens are
    prompts.
    """

    first: int
    maps: Sequence[Tensor]
    pooled: Float[Tensor, "b p"]
    entering: Sequence[int]

    def follow(self, rows: Tensor, matrices: Sequence[Tensor], *, adds: bool) -> Float[Tensor, "b t"]:
        """Propagate the weights of pooled tokens from the last layer to the first.

        Each layer multiplies the weights by its matrix ``M`` or, if ``adds`` is true, by ``I + M``.
        """
        for layer in reversed(range(len(self.maps))):
            rows = functional.pad(rows, (self.maps[layer].shape[-1] - rows.shape[1], 0))
            moved = (rows[:, None] @ matrices[layer])[:, 0]
            rows = (rows + moved if adds else moved)[:, -self.entering[layer] :]
        return rows


def run_with_attention(name: str, model: Explainable, look: EncoderOutput, batch_size: int) -> Iterator[AttentionRun]:
    """Run the pictures again in eager torch, ``batch_size`` at a time, and record their attention."""
    layout = model.encoder.layout
    grid = layout.to_grid(look.features).shape[2:]
    n_tokens = layout.prefix + grid[0] * grid[1]
    first = 0
    for pixels in look.pixels_for(name).split(batch_size):
        with torch.enable_grad(), Capture() as capture:
            pooled = model.encoder.head(eager_features(model, pixels))
        maps = _one_after_another(name, model, capture.maps, pooled)
        head, n_layers = model.encoder.head, len(maps)
        entering, n_prompts = [n_tokens] * n_layers, 0
        if isinstance(head, AddsTokens):
            entering, n_prompts = head.entering(n_tokens, n_layers), head.n_added
        shapes = {tuple(m.shape[-2:]) for m in maps}
        if not shapes or layout.kind != "tokens":
            raise InputError(
                f"{name} needs a vision transformer, but {model.encoder.name!r} has no attention between patch tokens. "
                "Use grad_cam, rise or occlusion."
            )
        known = {(n, n) for count in entering for n in (count, count + n_prompts)}
        if not shapes <= known:
            odd = sorted(shapes - known)[0]
            raise InputError(
                f"{name} needs a vision transformer whose attention maps are {n_tokens} x {n_tokens}, but "
                f"{model.encoder.name!r} also has maps of {odd[0]} x {odd[1]}, perhaps from windows or attention "
                "pooling. Use grad_cam, rise or occlusion."
            )
        yield AttentionRun(first, maps, pooled, entering)
        first += len(pixels)


def _one_after_another(
    name: str, model: Explainable, maps: Sequence[Tensor], pooled: Float[Tensor, "b p"]
) -> tuple[Tensor, ...]:
    """Return the attention maps on which the pooled vector depends, in order of the layers."""
    if not maps:
        return ()
    numbers = {get_gradient_edge(one).node: number for number, one in enumerate(maps)}
    latest = _latest(numbers, pooled)
    layers = [(number, latest[node]) for node, number in numbers.items() if node in latest]
    if [before for _, before in layers[1:]] != [number for number, _ in layers[:-1]]:
        raise InputError(
            f"{name} needs a vision transformer with one attention layer per block, but {model.encoder.name!r} has "
            "parallel layers. Use grad_cam, rise or occlusion."
        )
    return tuple(maps[number] for number, _ in layers)


def _latest(numbers: Mapping[Node, int], result: Tensor) -> dict[Node, int]:
    """Map each autograd node before ``result`` to the index of the last attention map before it, or -1."""
    latest: dict[Node, int] = {}
    todo = [get_gradient_edge(result).node]
    while todo:
        node = todo[-1]
        before = [step for step, _ in node.next_functions if step is not None]
        if new := [step for step in before if step not in latest]:
            todo += new
            continue
        latest[node] = max((numbers.get(step, latest[step]) for step in before), default=-1)
        todo.pop()
    return latest


@torch.enable_grad()
def read_tokens(seen: AttentionRun, prefix: int) -> Float[Tensor, "b t"]:
    """Compute the pooling weights of the tokens, which add up to 1."""
    direction = torch.linspace(0.5, 1.5, seen.pooled.shape[1], device=seen.pooled.device)
    slope = torch.autograd.grad((seen.pooled @ direction).sum(), seen.maps[-1], retain_graph=True)[0].abs().sum((1, 3))
    read = (slope > 1e-6 * slope.amax(1, keepdim=True)).float()
    halves = [half / half.sum(1, keepdim=True).clamp(min=1) for half in (read[:, :prefix], read[:, prefix:])]
    both = torch.cat(halves, 1)
    return both / both.sum(1, keepdim=True).clamp(min=1e-12)
