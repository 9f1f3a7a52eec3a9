"""What each patch adds to a prediction by the value it has in the attention that reads it.

A class token, and a map head, see patches through attention alone, ``o_q = Σ_t a_qt V_t``. What patch ``t`` brings is
``a_qt V_t``, with the weights as they were in the look. What follows (residual, MLP, norm) is not linear, so the values
of all patches are let in together, a part ``α`` of them, and the slope is the mean on the way from none to all:

    e_t = Σ_q ∫₀¹ ∂y/∂o_q(α) dα · a_qt V_t        Σ_t e_t = y(all) - y(no patch's value)

Gradient · feature says nothing there: a token comes to its value through a layer norm, to which a longer token is the
same, so that its gradient is at right angles to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder, EncoderOutput
from .attention import Answered
from .base import Explainable
from .reading import Heard, Reading, few_tokens, listen, pooled_with

Score = Callable[[Float[Tensor, "b p"]], Float[Tensor, " b"]]
"""Pooled vectors → one number each."""

N_STEPS = 8
"""Of Gauss and Legendre's rule, between no value and all."""

TOLERANCE = 1e-3
"""Of what the parts miss of the difference, as a part of the sum of their sizes, before finer steps are taken."""


@dataclass(frozen=True)
class _Kept:
    """What one attention did in the look, outside the patches' own rows.

    Attributes:
        before: weights of the tokens that are no patches, ``(b, heads, q, p)``.
        weights: of the patches, ``(b, heads, q, n)``.
        values: of the patches, ``(b, heads, n, d)``.
        own: the patches' own rows of the output, ``(b, heads, n or 0, d)``.
    """

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
    """Each cell's part of a score, signed, where gradient · feature would not tell it; ``None`` where it does.

    Where cells are read through attention or a mean alone, the parts add up to what the score loses when no cell has a
    value, within 0.1 % of the sum of their sizes. Where nothing of the picture is left then, as behind a mean, norms
    divide by what they divided by in the look. Where a cell's own row is read as well (the largest number beside the
    mean), that row's part is gradient · feature, which adds up to first order. Where cells are read otherwise but
    through a norm, the way leads from their mean to them.
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
    """Steps that get finer towards no value, where a norm may turn sharply."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    edges = [0.0, *(2.0**-k for k in range(14, -1, -1))]
    spans = list(pairwise(edges))
    return (
        np.concatenate([low + (nodes + 1) / 2 * (high - low) for low, high in spans]),
        np.concatenate([weights / 2 * (high - low) for low, high in spans]),
    )


@dataclass(frozen=True)
class _Way:
    """From no patch's value to all of them.

    Attributes:
        encoder: whose head is run.
        features: of the look.
        score: pooled vectors → one number each.
        kept: what the attentions did, by their numbers.
        lengths: what layer norms divide by, or nothing where they divide by what they find.
        reading: of the head.
    """

    encoder: Encoder
    features: Tensor
    score: Score
    kept: dict[int, _Kept]
    lengths: list[Tensor]
    reading: Reading

    def integrate(self, nodes: np.ndarray, weights: np.ndarray) -> tuple[Float[Tensor, "b n"], Float[Tensor, " b"]]:
        """The patches' parts, and by how much they miss the difference between all values and none."""
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
        # Never (b, heads, q, n, d): a value times a slope first, then the weights.
        parts = torch.zeros(())
        for i, slope in slopes.items():
            one = self.kept[i]
            parts = parts + (one.weights * (slope @ one.values.transpose(2, 3))).sum((1, 2))
        return parts, (parts.sum(1) - (scores[-1] - scores[0])).abs()

    @torch.enable_grad()
    def _slopes_at(self, levels: Float[Tensor, " l"]) -> tuple[Float[Tensor, "l b"], dict[int, Tensor]]:
        """The score with a part of all patches' values let in, and its slopes at what the attentions give."""
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
            # What is no patch may have changed on the way here, and what it gives with it.
            rest = one.before.repeat(n_levels, 1, 1, 1) @ values[:, :, :-n_patches]
            own = one.own[:, :, :n_patches].repeat(n_levels, 1, 1, 1)
            return torch.cat([rest + leaves[number], own], 2)

        def norm(number: int, length: Tensor) -> Tensor:
            held = self.lengths[number]
            if held.shape == length.shape:  # also of constants, which have no row a picture
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
    """Integrated gradients from a picture all of whose cells are their mean."""
    layout = encoder.layout
    away = torch.zeros_like(features)
    cells = layout.to_grid(away)  # a view: what is written there stands among the features
    cells += layout.to_grid(features) - layout.to_grid(features).mean((2, 3), keepdim=True)
    nodes, weights = np.polynomial.legendre.leggauss(N_STEPS)
    slopes = torch.zeros_like(features)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        leaf = (features - (1 - float(node)) * away).detach().requires_grad_()
        slopes += float(weight) * torch.autograd.grad(score(encoder.head(leaf)).sum(), leaf)[0]
    return layout.to_grid(slopes * away).sum(1)


@torch.enable_grad()
def _own_rows(encoder: Encoder, features: Tensor, score: Score, reading: Reading, n: int) -> Float[Tensor, "b n"]:
    """Gradient · feature of what is read in the patches' own rows."""
    leaf = features.detach().requires_grad_()
    found = torch.autograd.grad(score(pooled_with(encoder, leaf, reading.numbers, n)).sum(), leaf)[0]
    return encoder.layout.to_grid(found * leaf.detach()).sum(1).flatten(1)
