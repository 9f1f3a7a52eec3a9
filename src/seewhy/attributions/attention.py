"""The attention of a transformer, read without touching the transformer."""

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
    """Inside this context, attention is computed without fusion; ``maps`` keeps its weights, after ``change`` if given.

    In this thread only, the plain formula answers the calls of any library. The network is not changed, so nothing has
    to be restored. Attention without such a call is caught at its softmax.
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
                    "This transformer pads its keys or projects them separately. Expected one packed projection of all "
                    "tokens. Use grad_cam, rise or occlusion."
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
    """The factors in ``scaled_dot_product_attention``: its weights, and the values with one row per head."""
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
    """Compute ``nn.MultiheadAttention`` with another attention function on ``(t, b, d)``; and whether weights are
    requested.
    """
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
    """Whether no key is added or hidden, and one packed projection, or also one apart for each, makes all three."""
    call.apply_defaults()
    a = call.arguments
    unusual = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    packed = a["in_proj_weight"] is not None or (apart and a["use_separate_proj_weight"])
    return packed and not a["add_zero_attn"] and all(a[name] is None for name in unusual)


Answer = Callable[[int, Callable[[], Tensor], Tensor], Tensor]
"""Number of an attention within a pass, its weights when called for, its values → what it gives."""


class Answered(TorchFunctionMode):
    """Inside this context, attentions return what ``answer`` gives, and layer norms divide by what ``norm`` gives.

    A mean over tokens or over the cells of a map is an attention with equal weights. The network is not changed.
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
        """Whether these are the last softmax's numbers, in whatever shape."""
        last = self._softmax
        return last is not None and weights.untyped_storage().data_ptr() == last.untyped_storage().data_ptr()

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **keywords: Any) -> Tensor:
        if keywords.get("enable_gqa"):
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        return self._next(lambda: attention_weights(query, key, value, *args, **keywords)[0], value)

    def _mean(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """A mean over all places, as the attention it is; ``None`` for anything else."""
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
    """A head that puts its own tokens among those of the picture."""

    n_added: int

    def entering(self, n_tokens: int, n_layers: int) -> list[int]:
        """The number of tokens that enter each layer from the one before, if ``n_tokens`` enter the last."""


@dataclass(frozen=True)
class AttentionRun:
    """A few pictures from ``first`` on, run again with their attention, ``(b, heads, t, t)`` per layer.

    ``entering`` are the tokens that enter each layer from the one before; if the layer has more, the others are
    prompts.
    """

    first: int
    maps: Sequence[Tensor]
    pooled: Float[Tensor, "b p"]
    entering: Sequence[int]

    def follow(self, rows: Tensor, matrices: Sequence[Tensor], *, adds: bool) -> Float[Tensor, "b t"]:
        """Follow the weights of the pooled tokens down through all layers, last first, by ``M`` or, with a residual,
        ``I + M``. Prompts that a layer drops have no weight, and prompts inserted there come from no picture.
        """
        for layer in reversed(range(len(self.maps))):
            rows = functional.pad(rows, (self.maps[layer].shape[-1] - rows.shape[1], 0))
            moved = (rows[:, None] @ matrices[layer])[:, 0]
            rows = (rows + moved if adds else moved)[:, -self.entering[layer] :]
        return rows


def run_with_attention(name: str, model: Explainable, look: EncoderOutput, batch_size: int) -> Iterator[AttentionRun]:
    """Run the pictures of a look again in plain torch, ``batch_size`` at a time, and keep their attention."""
    assert look.pixels is not None  # the base has checked
    layout = model.encoder.layout
    grid = layout.to_grid(look.features).shape[2:]
    n_tokens = layout.prefix + grid[0] * grid[1]
    first = 0
    for pixels in look.pixels.split(batch_size):
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
                f"{name} reads attention, but {model.encoder.name!r} has none among patch tokens. Expected a vision "
                "transformer. Use grad_cam, rise or occlusion."
            )
        known = {(n, n) for count in entering for n in (count, count + n_prompts)}
        if not shapes <= known:
            odd = sorted(shapes - known)[0]
            raise InputError(
                f"{name} follows attention among all {n_tokens} tokens, but {model.encoder.name!r} also attends from "
                f"{odd[0]} to {odd[1]}, as windows and attention pooling do. Expected a vision transformer that pools "
                "a class token or the mean. Use grad_cam, rise or occlusion."
            )
        yield AttentionRun(first, maps, pooled, entering)
        first += len(pixels)


def _one_after_another(
    name: str, model: Explainable, maps: Sequence[Tensor], pooled: Float[Tensor, "b p"]
) -> tuple[Tensor, ...]:
    """The maps that the pooled vector came from, first layer first; others may be computed beside them."""
    if not maps:
        return ()
    numbers = {get_gradient_edge(one).node: number for number, one in enumerate(maps)}
    latest = _latest(numbers, pooled)
    layers = [(number, latest[node]) for node, number in numbers.items() if node in latest]
    if [before for _, before in layers[1:]] != [number for number, _ in layers[:-1]]:
        raise InputError(
            f"{name} follows one attention layer after another, but {model.encoder.name!r} has some in parallel. "
            "Expected a vision transformer with one attention layer per block. Use grad_cam, rise or occlusion."
        )
    return tuple(maps[number] for number, _ in layers)


def _latest(numbers: Mapping[Node, int], result: Tensor) -> dict[Node, int]:
    """Every step of the graph behind a result, and the number of the last map before it; -1 where there is none."""
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
    """The tokens that make up the pooled vector, as weights with the sum 1, found by one derivative."""
    direction = torch.linspace(0.5, 1.5, seen.pooled.shape[1], device=seen.pooled.device)
    slope = torch.autograd.grad((seen.pooled @ direction).sum(), seen.maps[-1], retain_graph=True)[0].abs().sum((1, 3))
    read = (slope > 1e-6 * slope.amax(1, keepdim=True)).float()
    halves = [half / half.sum(1, keepdim=True).clamp(min=1) for half in (read[:, :prefix], read[:, prefix:])]
    both = torch.cat(halves, 1)
    return both / both.sum(1, keepdim=True).clamp(min=1e-12)
