"""Contributions of patches to a prediction through the attention layers of a head.

An attention layer's output for query ``q`` is ``o_q = Σ_t a_qt V_t``. The contribution of patch ``t`` to the score
``y`` is the integral of the gradient while the values of all patches are scaled from 0 to 1:

    e_t = Σ_q ∫₀¹ ∂y/∂o_q(α) dα · a_qt V_t,        Σ_t e_t = y(α = 1) - y(α = 0)

where ``e_t`` is the contribution, ``a_qt`` an attention weight, ``V_t`` a value and ``α`` the scale. Gradient times
feature would be zero here, because a layer norm before the attention removes the effect of a token's length.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.base import Encoder, EncoderOutput, Layout
from ..encoders.split import LastBlock
from .attention import Answered
from .base import Explainable

Score = Callable[[Float[Tensor, "b p"]], Float[Tensor, " b"]]
"""Function from pooled vectors to one number per vector."""
N_STEPS = 8
"""Number of nodes of the Gauss-Legendre quadrature."""
TOLERANCE = 1e-3
"""Largest relative error of the quadrature before it is repeated with finer steps."""
RIGHT_ANGLE = 1e-2
"""Largest cosine between a gradient and its feature that counts as zero."""


@dataclass(frozen=True)
class Reading:
    """The way in which a head uses patch tokens.

    Attributes:
        numbers: indices of the attention layers in which other tokens attend to patches that no earlier layer has
            mixed.
        alone: whether patches affect the pooled vector only through these attention layers.
        scale_free: whether the length of a patch token has no effect, as after a layer norm; gradient times feature is
            then zero.
        bare: whether the pooled vector depends only on patches; a layer norm would then divide by zero if all were
            removed.
        short: whether the pooled vector can be computed from one patch token and the outputs of these attention layers.
    """

    numbers: tuple[int, ...] = ()
    alone: bool = False
    scale_free: bool = False
    bare: bool = False
    short: bool = False


@dataclass(frozen=True)
class Heard:
    """The weights, values ``(b, heads, tk, d)`` and output of one attention layer in a forward pass."""

    weights: Tensor
    values: Tensor
    given: Tensor

    def own_rows(self, n: int) -> int:
        """Return the number of queries that are patches: ``n`` in self-attention, 0 with latent queries."""
        return n if self.weights.shape[-2] == self.weights.shape[-1] else 0

    def read_rows(self, n: int, rows: Tensor) -> Tensor:
        """Return the rows of ``(b, heads, tq, …)`` whose queries are not patches."""
        return rows[:, :, : rows.shape[2] - self.own_rows(n)]


_readings: WeakKeyDictionary[nn.Module, Reading] = WeakKeyDictionary()


def reading_of(encoder: Encoder, features: Tensor) -> Reading:
    """Determine from derivatives how the encoder's head uses patch tokens."""
    if encoder.head not in _readings:
        _readings[encoder.head] = _read(encoder, features[:1])
    return _readings[encoder.head]


def listen(
    head: nn.Module,
    features: Tensor,
    norm: Callable[[int, Tensor], Tensor] | None = None,
    passing: Collection[int] = (),
) -> tuple[list[Heard], Tensor]:
    """Run a head and return its attention layers and the pooled vector.

    The output of each attention layer becomes an autograd leaf, except for the indices in ``passing``.
    """
    heard: list[Heard] = []

    def answer(number: int, weights: Callable[[], Tensor], values: Tensor) -> Tensor:
        made = weights()
        given = made @ values
        if number not in passing:
            given = given.detach().requires_grad_(torch.is_grad_enabled())
        heard.append(Heard(made.detach(), values, given))
        return given.clone()  # the next layer may work in place

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
        passing.add(last[-1])  # this layer reads no patches; an earlier one may
    (whole,) = _slopes(encoder.head(leaf), [leaf])
    free = False
    if whole is not None:
        slope, cells = layout.to_grid(whole), layout.to_grid(leaf.detach())
        free = bool(((slope * cells).sum(1).abs() <= RIGHT_ANGLE * slope.norm(dim=1) * cells.norm(dim=1)).all())
    if not numbers:
        return Reading(scale_free=free)
    (rest,) = _slopes(pooled_with(encoder, leaf, numbers, n), [leaf])
    alone = rest is None or not layout.to_grid(rest).any()
    if not alone and layout.kind != "tokens":
        return Reading(scale_free=free)  # a mean with channel weights, such as squeeze-and-excitation
    return Reading(
        numbers,
        alone,
        scale_free=free,
        bare=rest is None or not rest.any(),
        short=alone and _is_short(encoder, features, heard, numbers, pooled),
    )


def _that_read(heard: list[Heard], read: list[Tensor | None], leaf: Tensor, layout: Layout) -> tuple[int, ...]:
    """Return the indices of the attention layers in which other tokens attend to unmixed patches."""
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
        # After more than one block, a token no longer corresponds to the cell at its position.
        if len(before) > (0 if one.own_rows(n) else 1):
            continue
        numbers.append(number)
        mixed |= {i for i, felt in before.items() if heard[i].read_rows(n, felt).any()}
    return tuple(reversed(numbers))


def pooled_with(encoder: Encoder, leaf: Tensor, numbers: tuple[int, ...], n: int) -> Tensor:
    """Compute the pooled vector while some attention layers return constants for all queries that are not patches."""

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
    """Compute the gradients of a fixed random projection of ``value``."""
    if not leaves or not value.requires_grad:
        return [None] * len(leaves)
    mixture = torch.randn(value.shape, generator=torch.Generator().manual_seed(7)).to(value)
    return list(torch.autograd.grad((value * mixture).sum(), leaves, retain_graph=True, allow_unused=True))


def _is_local(values: Tensor, leaf: Tensor, layout: Layout) -> bool:
    """Check that the value of a patch depends only on this patch, and other values on no patch."""
    n = layout.to_grid(leaf)[0, 0].numel()
    for place in sorted({0, n // 2, n - 1}):
        (slope,) = _slopes(values[:, :, values.shape[2] - n + place], [leaf])
        if slope is None or layout.to_grid(slope)[0].flatten(1).any(0).nonzero()[:, 0].tolist() != [place]:
            return False
        if slope[:, : layout.prefix].any() and layout.kind == "tokens":
            return False
    (others,) = _slopes(values[:, :, : values.shape[2] - n], [leaf])
    return others is None or not layout.to_grid(others).any()


def few_tokens(encoder: Encoder, features: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the prefix tokens and one patch token, and the head for this number of tokens."""
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
    """Reduce a constant of ``n`` patches, such as rotary positions, to the first patch."""
    if isinstance(value, tuple):
        return tuple(_narrowed(part, n) for part in value)
    if isinstance(value, Tensor) and n in value.shape:
        return value.narrow(value.shape.index(n), 0, 1)
    return value


@torch.no_grad()
def _is_short(encoder: Encoder, features: Tensor, heard: list[Heard], numbers: tuple[int, ...], pooled: Tensor) -> bool:
    """Check that the head gives the same pooled vector with one patch and fixed attention outputs."""
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
    except (RuntimeError, ValueError, IndexError, AssertionError):  # a head may require a fixed number of tokens
        return False
    return bool(short.shape == pooled.shape and (short - pooled).abs().max() <= 1e-5 * pooled.abs().max())


@dataclass(frozen=True)
class _Kept:
    """The weights, values and outputs of one attention layer in the original pass."""

    before: Tensor
    weights: Tensor
    values: Tensor
    own: Tensor

    @classmethod
    def of(cls, one: Heard, n: int) -> _Kept:
        weights = one.read_rows(n, one.weights)
        own = one.given[:, :, one.given.shape[2] - one.own_rows(n) :]
        return cls(weights[..., :-n], weights[..., -n:], one.values[:, :, -n:], own)


def cells_evidence(
    model: Explainable, look: EncoderOutput, score: Score, reading: Reading
) -> Float[Tensor, "b h w"] | None:
    """Compute the signed contribution of each patch to a score; ``None`` if gradient times feature is to be used.

    If the head reads patches only through attention or a mean, the contributions add up to the change of the score when
    all patch values become zero. The error is at most 0.1 % of the sum of absolute contributions. With other heads, the
    contributions are first-order approximations.
    """
    if not reading.numbers:
        return _from_their_mean(model.encoder, look.features, score) if reading.scale_free else None
    grid = model.encoder.layout.to_grid(look.features).shape[2:]
    n = grid[0] * grid[1]
    lengths: list[Tensor] = []

    def measure(_: int, length: Tensor) -> Tensor:
        lengths.append(length)
        return length

    with torch.no_grad():
        heard, _ = listen(model.encoder.head, look.features, measure if reading.bare else None)
    kept = {i: _Kept.of(heard[i], n) for i in reading.numbers}
    way = _Way(model.encoder, look.features, score, kept, lengths, reading)
    nodes, weights = np.polynomial.legendre.leggauss(N_STEPS)
    parts, missed = way.integrate((nodes + 1) / 2, weights / 2)
    rough = missed > TOLERANCE * parts.abs().sum(1)
    if rough.any():
        parts = torch.where(rough[:, None], way.integrate(*_graded())[0], parts)
    if not reading.alone:
        parts = parts + _own_rows(model.encoder, look.features, score, reading, n)
    return parts.unflatten(1, grid)


def _graded() -> tuple[np.ndarray, np.ndarray]:
    """Return quadrature nodes and weights that are denser near zero, where a norm may change quickly."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    spans = list(pairwise([0.0, *(2.0**-k for k in range(14, -1, -1))]))
    return (
        np.concatenate([low + (nodes + 1) / 2 * (high - low) for low, high in spans]),
        np.concatenate([weights / 2 * (high - low) for low, high in spans]),
    )


@dataclass(frozen=True)
class _Way:
    """The integration path from zero to the patch values."""

    encoder: Encoder
    features: Tensor
    score: Score
    kept: dict[int, _Kept]
    lengths: list[Tensor]
    reading: Reading

    def integrate(self, nodes: np.ndarray, weights: np.ndarray) -> tuple[Float[Tensor, "b n"], Float[Tensor, " b"]]:
        """Integrate the contributions of patches, and compute the error of the sum of contributions."""
        slopes: dict[int, Tensor] = {}
        levels, counts = torch.tensor([0.0, *nodes, 1.0]), torch.tensor([0.0, *weights, 0.0])
        ends = []
        size = len(levels) if self.reading.short else 1
        for level, count in zip(levels.split(size), counts.split(size), strict=True):
            scores, found = self._slopes_at(level)
            ends.append(scores)
            for i, slope in found.items():
                mean = torch.einsum("l,l...->...", count.to(slope), slope.unflatten(0, (len(level), -1)))
                slopes[i] = slopes[i] + mean if i in slopes else mean
        scores = torch.cat(ends)
        # Multiply values by slopes first, to avoid a tensor of shape (b, heads, q, n, d).
        parts = torch.zeros(())
        for i, slope in slopes.items():
            parts = parts + (self.kept[i].weights * (slope @ self.kept[i].values.transpose(2, 3))).sum((1, 2))
        return parts, (parts.sum(1) - (scores[-1] - scores[0])).abs()

    @torch.enable_grad()
    def _slopes_at(self, levels: Float[Tensor, " l"]) -> tuple[Float[Tensor, "l b"], dict[int, Tensor]]:
        """Compute scores and gradients for each factor in ``levels``, by which all patch values are multiplied."""
        n_levels = len(levels)
        leaves = {
            i: torch.einsum("l,b...->lb...", levels.to(one.values), one.weights @ one.values).flatten(0, 1)
            for i, one in self.kept.items()
        }
        for leaf in leaves.values():
            leaf.requires_grad_()
        head, tokens, n_patches = self.encoder.head, self.features, next(iter(self.kept.values())).values.shape[2]
        if self.reading.short:
            (head, tokens), n_patches = few_tokens(self.encoder, self.features), 1

        def answer(number: int, weights: Callable[[], Tensor], values: Tensor) -> Tensor:
            if number not in self.kept:
                return weights() @ values
            one = self.kept[number]
            # Prefix tokens may have changed before this layer, so their part is computed again.
            rest = one.before.repeat(n_levels, 1, 1, 1) @ values[:, :, :-n_patches]
            own = one.own[:, :, :n_patches].repeat(n_levels, 1, 1, 1)
            return torch.cat([rest + leaves[number], own], 2)

        def norm(number: int, length: Tensor) -> Tensor:
            held = self.lengths[number]
            if held.shape == length.shape:  # also for constants, which have no batch axis
                return held
            for axis in range(1, held.ndim):
                held = held.narrow(axis, 0, length.shape[axis])
            return held.repeat(n_levels, *(1,) * (held.ndim - 1))

        with Answered(answer, norm if self.reading.bare else None):
            pooled = head(tokens.repeat(n_levels, *(1,) * (tokens.ndim - 1)))
        scores = torch.stack([self.score(part) for part in pooled.unflatten(0, (n_levels, -1))])
        found = torch.autograd.grad(scores.sum(), list(leaves.values()))
        return scores.detach(), dict(zip(leaves, found, strict=True))


@torch.enable_grad()
def _from_their_mean(encoder: Encoder, features: Tensor, score: Score) -> Float[Tensor, "b h w"]:
    """Compute integrated gradients from a baseline whose patches all equal their mean."""
    layout = encoder.layout
    away = torch.zeros_like(features)
    cells = layout.to_grid(away)  # a view: writing to it changes ``away``
    cells += layout.to_grid(features) - layout.to_grid(features).mean((2, 3), keepdim=True)
    nodes, weights = np.polynomial.legendre.leggauss(N_STEPS)
    slopes = torch.zeros_like(features)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        leaf = (features - (1 - float(node)) * away).detach().requires_grad_()
        slopes += float(weight) * torch.autograd.grad(score(encoder.head(leaf)).sum(), leaf)[0]
    return layout.to_grid(slopes * away).sum(1)


@torch.enable_grad()
def _own_rows(encoder: Encoder, features: Tensor, score: Score, reading: Reading, n: int) -> Float[Tensor, "b n"]:
    """Compute gradient times feature along the paths that do not pass through the given attention layers."""
    leaf = features.detach().requires_grad_()
    found = torch.autograd.grad(score(pooled_with(encoder, leaf, reading.numbers, n)).sum(), leaf)[0]
    return encoder.layout.to_grid(found * leaf.detach()).sum(1).flatten(1)
