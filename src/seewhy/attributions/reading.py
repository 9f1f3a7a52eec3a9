"""How a head reads its cells: through attention or a mean alone, or also by what stands in their own rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.base import Encoder, Layout
from ..encoders.split import LastBlock
from .attention import Answered

RIGHT_ANGLE = 1e-2
"""Largest cosine of a gradient and its feature that is taken for none."""


@dataclass(frozen=True)
class Reading:
    """How one head reads patches.

    Attributes:
        numbers: of the attentions, within a pass of the head, whose values are patches that no other attention has
            mixed since, and whose outputs outside the patches' own rows are read.
        alone: nothing of a patch reaches the pooled vector but through these.
        scale_free: to the pooled vector a longer patch token is the same, as behind a layer norm: gradient · feature is
            zero.
        bare: nothing else of the picture reaches the pooled vector either, as behind a mean: without the patches
            nothing is left that a norm could measure.
        short: one patch token stands for all others once what these attentions give is known.
    """

    numbers: tuple[int, ...] = ()
    alone: bool = False
    scale_free: bool = False
    bare: bool = False
    short: bool = False


@dataclass(frozen=True)
class Heard:
    """One attention during one pass; see :class:`Reading`.

    Attributes:
        weights: ``(b, heads, tq, tk)``.
        values: ``(b, heads, tk, d)``.
        given: its output, a leaf, so that what follows is known apart from it.
    """

    weights: Tensor
    values: Tensor
    given: Tensor

    def own_rows(self, n: int) -> int:
        """The patches' own rows among its queries, the last: all of them in self-attention, none for latent queries."""
        return n if self.weights.shape[-2] == self.weights.shape[-1] else 0

    def read_rows(self, n: int, rows: Tensor) -> Tensor:
        """The rows of queries, ``(b, heads, tq, …)``, that are no patch's own."""
        return rows[:, :, : rows.shape[2] - self.own_rows(n)]


_readings: WeakKeyDictionary[nn.Module, Reading] = WeakKeyDictionary()


def reading_of(encoder: Encoder, features: Tensor) -> Reading:
    """How the encoder's head reads patches; found once by derivatives, on the first picture, and then remembered."""
    if encoder.head not in _readings:
        _readings[encoder.head] = _read(encoder, features[:1])
    return _readings[encoder.head]


def listen(
    head: nn.Module,
    features: Tensor,
    norm: Callable[[int, Tensor], Tensor] | None = None,
    passing: Collection[int] = (),
) -> tuple[list[Heard], Tensor]:
    """Every attention of one pass of a head, all but the passing ones with a leaf for what it gives; what is pooled."""
    heard: list[Heard] = []

    def answer(number: int, weights: Callable[[], Tensor], values: Tensor) -> Tensor:
        made = weights()
        given = made @ values
        if number not in passing:
            given = given.detach().requires_grad_(torch.is_grad_enabled())
        heard.append(Heard(made.detach(), values, given))
        return given.clone()  # what follows may work in place

    with Answered(answer, norm):
        return heard, head(features)


@torch.enable_grad()
def _read(encoder: Encoder, features: Tensor) -> Reading:
    layout = encoder.layout
    n = layout.to_grid(features)[0, 0].numel()
    leaf = features.detach().clone().requires_grad_()
    passing: set[int] = set()
    while True:
        heard, pooled = listen(encoder.head, leaf, passing=passing)
        read = [one if i not in passing else None for i, one in enumerate(_slopes(pooled, [h.given for h in heard]))]
        numbers = _that_read(heard, read, leaf, layout)
        last = [i for i, slope in enumerate(read) if slope is not None]
        if numbers or not last:
            break
        passing.add(last[-1])  # it reads no patches; one before it may
    (whole,) = _slopes(encoder.head(leaf), [leaf])
    free = whole is not None and _is_scale_free(layout.to_grid(whole), layout.to_grid(leaf.detach()))
    if not numbers:
        return Reading(scale_free=free)
    (rest,) = _slopes(pooled_with(encoder, leaf, numbers, n), [leaf])
    alone = rest is None or not layout.to_grid(rest).any()
    if not alone and layout.kind != "tokens":
        return Reading(scale_free=free)  # a mean that weighs channels, somewhere on the way
    return Reading(
        numbers,
        alone,
        scale_free=free,
        bare=rest is None or not rest.any(),
        short=alone and _is_short(encoder, features, heard, numbers, pooled),
    )


def _that_read(heard: list[Heard], read: list[Tensor | None], leaf: Tensor, layout: Layout) -> tuple[int, ...]:
    """The attentions by which patches are read, of those whose output the pooled vector depends on."""
    n = layout.to_grid(leaf)[0, 0].numel()
    numbers: list[int] = []
    mixed: set[int] = set()
    for number in reversed(range(len(heard))):
        one, slope = heard[number], read[number]
        if number in mixed or slope is None or one.values.ndim != 4 or one.values.shape[2] < n:
            continue
        if not one.read_rows(n, slope).any() or not _is_local(one.values, leaf, layout):
            continue
        given = _slopes(one.values[:, :, -n:], [other.given for other in heard[:number]])
        before = {i: felt for i, felt in enumerate(given) if felt is not None and felt.any()}
        # Behind more than the one block that is cut, a cell of the features is no longer the token at its place.
        if len(before) > (0 if one.own_rows(n) else 1):
            continue
        numbers.append(number)
        mixed |= {i for i, felt in before.items() if heard[i].read_rows(n, felt).any()}
    return tuple(reversed(numbers))


def pooled_with(encoder: Encoder, leaf: Tensor, numbers: tuple[int, ...], n: int) -> Tensor:
    """The pooled vector, with what these attentions give outside the patches' own rows held as it is."""

    def answer(number: int, weights: Callable[[], Tensor], values: Tensor) -> Tensor:
        made = weights()
        given = made @ values
        if number not in numbers:
            return given
        own = Heard(made, values, given).own_rows(n)
        cut = given.shape[2] - own
        return torch.cat([given[:, :, :cut].detach(), given[:, :, cut:]], 2)

    with Answered(answer):
        return encoder.head(leaf)


def _slopes(value: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    """Slopes of a random mixture of some numbers."""
    if not leaves or not value.requires_grad:
        return [None] * len(leaves)
    mixture = torch.randn(value.shape, generator=torch.Generator().manual_seed(7)).to(value)
    return list(torch.autograd.grad((value * mixture).sum(), leaves, retain_graph=True, allow_unused=True))


def _is_local(values: Tensor, leaf: Tensor, layout: Layout) -> bool:
    """Whether a patch's value comes from its own cell alone, and what is no patch's from none."""
    n = layout.to_grid(leaf)[0, 0].numel()
    for place in sorted({0, n // 2, n - 1}):
        (slope,) = _slopes(values[:, :, values.shape[2] - n + place], [leaf])
        if slope is None or layout.to_grid(slope)[0].flatten(1).any(0).nonzero()[:, 0].tolist() != [place]:
            return False
        if slope[:, : layout.prefix].any() and layout.kind == "tokens":
            return False
    (others,) = _slopes(values[:, :, : values.shape[2] - n], [leaf])
    return others is None or not layout.to_grid(others).any()


def _is_scale_free(slopes: Float[Tensor, "1 c h w"], cells: Float[Tensor, "1 c h w"]) -> bool:
    along = (slopes * cells).sum(1).abs()
    return bool((along <= RIGHT_ANGLE * slopes.norm(dim=1) * cells.norm(dim=1)).all())


def few_tokens(encoder: Encoder, features: Tensor) -> tuple[nn.Module, Tensor]:
    """One cell, with the tokens before it, and a head whose constants fit them."""
    head, prefix = encoder.head, encoder.layout.prefix
    if encoder.layout.kind == "nchw":
        return head, features[:, :, :1, :1]
    if encoder.layout.kind == "nhwc":
        return head, features[:, :1, :1]
    if isinstance(head, LastBlock):
        n = features.shape[1] - prefix
        keywords = {name: _narrowed(value, n) for name, value in head.keywords.items()}
        head = LastBlock(head.block, head.tail, keywords).eval()
    return head, features[:, : prefix + 1]


def _narrowed(value: Any, n: int) -> Any:
    """A constant of the patches, such as rotary positions, for the first alone."""
    if isinstance(value, tuple):
        return tuple(_narrowed(part, n) for part in value)
    if isinstance(value, Tensor) and n in value.shape:
        return value.narrow(value.shape.index(n), 0, 1)
    return value


@torch.no_grad()
def _is_short(encoder: Encoder, features: Tensor, heard: list[Heard], numbers: tuple[int, ...], pooled: Tensor) -> bool:
    """Whether the head with one patch pools the same, given what the attentions gave with all."""
    n = encoder.layout.to_grid(features)[0, 0].numel()

    def answer(number: int, weights: Callable[[], Tensor], values: Tensor) -> Tensor:
        if number not in numbers:
            return weights() @ values
        one = heard[number]
        own = min(one.own_rows(n), 1)
        return functional.pad(one.read_rows(n, one.given), (0, 0, 0, own))

    head, tokens = few_tokens(encoder, features)
    try:
        with Answered(answer):
            short = head(tokens)
    except (RuntimeError, ValueError, IndexError, AssertionError):  # a head may count its tokens
        return False
    return bool(short.shape == pooled.shape and (short - pooled).abs().max() <= 1e-5 * pooled.abs().max())
