"""The attention of a transformer, read without touching the transformer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..classifiers.prompt_cam_network import PromptHead
from ..encoders.base import Look
from ..errors import InputError
from .base import Explainable
from .scores import eager_features

_SOFTMAX = {torch.softmax, functional.softmax, Tensor.softmax}
_PACKED = inspect.signature(functional.multi_head_attention_forward)


class Capture(TorchFunctionMode):
    """While it is entered, attention is computed un-fused, and its weights are kept in ``maps``, first layer first.

    Fused attention (``scaled_dot_product_attention``, ``nn.MultiheadAttention``) never forms its weights. Here the
    calls themselves are answered by the plain formula, in this thread only: no module, hook or setting of the network
    is changed, so nothing has to be put back, and it is the same for timm, open_clip, transformers and torchvision.
    Attention written out by hand is met at its softmax.

    Args:
        change: what is done to the weights before they are used; left out, nothing.
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
            return self._attend_packed(_PACKED.bind(*args, **kwargs))
        out = func(*args, **kwargs)
        return self._keep(out) if func in _SOFTMAX and out.ndim == 4 else out

    def _keep(self, weights: Tensor) -> Tensor:
        if self.change is not None:
            weights = self.change(weights)
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        self.maps.append(weights)
        return weights

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._keep(scores.softmax(-1)) @ value

    def _attend_packed(self, call: inspect.BoundArguments) -> tuple[Tensor, Tensor | None]:
        """``nn.MultiheadAttention``; its tensors are ``(t, b, d)``."""
        call.apply_defaults()
        a = call.arguments
        unusual = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
        if a["in_proj_weight"] is None or a["add_zero_attn"] or any(a[name] is not None for name in unusual):
            raise InputError(
                "This transformer pads its keys or projects them apart. One packed projection of all tokens was "
                "expected. Use grad_cam, rise or occlusion."
            )
        biases = (None,) * 3 if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)
        parts = zip((a["query"], a["key"], a["value"]), a["in_proj_weight"].chunk(3), biases, strict=True)
        heads = [functional.linear(x, w, b).unflatten(2, (a["num_heads"], -1)).permute(1, 2, 0, 3) for x, w, b in parts]
        mask = a["attn_mask"]
        if mask is not None and mask.dtype == torch.bool:
            mask = ~mask  # here True means hidden, in scaled_dot_product_attention it means seen
        out = self._attend(heads[0], heads[1], heads[2], mask).permute(2, 0, 1, 3).flatten(2)
        weights = self.maps[-1].mean(1) if a["average_attn_weights"] else self.maps[-1]
        out = functional.linear(out, a["out_proj_weight"], a["out_proj_bias"])
        return out, weights if a["need_weights"] else None


@dataclass(frozen=True)
class Seen:
    """A few pictures, run again with their attention kept.

    Attributes:
        first: position of the first of them in the look.
        maps: ``(b, heads, t, t)``, one a layer, part of the graph from which ``pooled`` came.
        pooled: differentiable.
        entering: tokens that come into each layer from the one before; where it has more, prompts stand before them.
    """

    first: int
    maps: Sequence[Tensor]
    pooled: Float[Tensor, "b p"]
    entering: Sequence[int]

    def at(self, rows: Float[Tensor, "b s"], layer: int) -> Float[Tensor, "b t"]:
        """Weights of a layer's outputs, from those of what the next one takes: prompts thrown away have none."""
        return functional.pad(rows, (self.maps[layer].shape[-1] - rows.shape[1], 0))

    def before(self, rows: Float[Tensor, "b t"], layer: int) -> Float[Tensor, "b s"]:
        """Weights of what came into a layer: prompts that are put in there come from no picture."""
        return rows[:, -self.entering[layer] :]


def run_with_attention(name: str, model: Explainable, look: Look, batch_size: int) -> Iterator[Seen]:
    """The pictures of a look, ``batch_size`` at a time, in plain torch, with their attention.

    Raises:
        InputError: the network has no attention among all its patch tokens, or pools by attention.
    """
    assert look.pixels is not None  # the base has checked
    layout = model.encoder.layout
    grid = layout.to_grid(look.features).shape[2:]
    n_tokens = layout.prefix + grid[0] * grid[1]
    first = 0
    for pixels in look.pixels.split(batch_size):
        with torch.enable_grad(), Capture() as capture:
            pooled = model.encoder.head(eager_features(model, pixels))
        head, n_layers = model.encoder.head, len(capture.maps)
        entering, n_prompts = [n_tokens] * n_layers, 0
        if isinstance(head, PromptHead):
            entering, n_prompts = head.entering(n_tokens, n_layers), len(head.prompts.own)
        shapes = {tuple(m.shape[-2:]) for m in capture.maps}
        if not shapes or layout.kind != "tokens":
            raise InputError(
                f"{name} reads attention, and {model.encoder.name!r} has none among patch tokens. A vision transformer "
                "was expected. Use grad_cam, rise or occlusion."
            )
        known = {(n, n) for count in entering for n in (count, count + n_prompts)}
        if not shapes <= known:
            odd = sorted(shapes - known)[0]
            raise InputError(
                f"{name} follows attention among all {n_tokens} tokens, and {model.encoder.name!r} also attends from "
                f"{odd[0]} to {odd[1]}, as windows and attention pooling do. A vision transformer that pools a class "
                "token or the mean was expected. Use grad_cam, rise or occlusion."
            )
        yield Seen(first, tuple(capture.maps), pooled, entering)
        first += len(pixels)


@torch.enable_grad()
def read_tokens(seen: Seen, prefix: int) -> Float[Tensor, "b t"]:
    """The tokens the pooled vector is made of, as weights that add up to one.

    They are the rows of the last attention on which the pooled vector depends: the class token, the patches of a
    mean-pooled network, both halves alike where both are read. Found by one derivative rather than by name.
    """
    direction = torch.linspace(0.5, 1.5, seen.pooled.shape[1], device=seen.pooled.device)
    slope = torch.autograd.grad((seen.pooled @ direction).sum(), seen.maps[-1], retain_graph=True)[0].abs().sum((1, 3))
    read = (slope > 1e-6 * slope.amax(1, keepdim=True)).float()
    halves = [half / half.sum(1, keepdim=True).clamp(min=1) for half in (read[:, :prefix], read[:, prefix:])]
    both = torch.cat(halves, 1)
    return both / both.sum(1, keepdim=True).clamp(min=1e-12)
