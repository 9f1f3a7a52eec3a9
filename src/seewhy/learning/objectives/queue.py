"""Vectors of many pictures, first in first out, and what is computed over all of them in the memory of a few."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from .pictures import Beside

BLOCK = 8192
"""Vectors of the queue that are compared with at once."""
PART = 32
"""Scores of which the highest is sought first: the k highest of all lie in the k parts whose highest are highest."""
Pairs = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]
"""Rows and columns, columns in order."""
Classes = tuple[Int[Tensor, " b"], Int[Tensor, " n"]]
"""Of the queries and of the store."""
NONE = float("-inf")


class Queue(Beside):
    """The last vectors of pictures, with their classes and numbers; the oldest give way (MoCo, He et al. 2020)."""

    vectors: Tensor
    labels: Tensor
    index: Tensor
    place: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("index", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def add(self, vectors: Float[Tensor, "n d"], labels: Int[Tensor, " n"], index: Int[Tensor, " n"]) -> None:
        """Take these in, where the oldest were."""
        size = len(self.vectors)
        vectors, labels, index = vectors[-size:], labels[-size:], index[-size:]
        rows = (self.place + torch.arange(len(vectors), device=self.place.device)) % size
        self.vectors[rows] = vectors.to(self.vectors)
        self.labels[rows], self.index[rows] = labels, index
        self.place += len(vectors)

    def held(self) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Vectors, classes and numbers; views of what is kept, no copies."""
        n = min(int(self.place), len(self.vectors))
        return self.vectors[:n], self.labels[:n], self.index[:n]


def own_places(index: Int[Tensor, " b"], of: Int[Tensor, " n"]) -> Pairs:
    """Where each picture stands among others: rows and columns of all pairs with the same number.

    Example:
        >>> own_places(torch.tensor([7, 3]), torch.tensor([3, 5, 7, 3]))
        (tensor([1, 0, 1]), tensor([0, 2, 3]))
    """
    ordered, order = index.sort()
    first, last = torch.searchsorted(ordered, of), torch.searchsorted(ordered, of, right=True)
    times = last - first
    columns = torch.arange(len(of), device=of.device).repeat_interleave(times)
    within = torch.arange(len(columns), device=of.device) - (times.cumsum(0) - times).repeat_interleave(times)
    return order[first.repeat_interleave(times) + within], columns


def blocks(
    query: Float[Tensor, "b d"], store: Float[Tensor, "n d"], without: Pairs | None
) -> Iterator[tuple[slice, Float[Tensor, "b m"]]]:
    """Products with the store, so many columns at a time; pairs that do not count are minus infinity."""
    for start in range(0, len(store), BLOCK):
        part = slice(start, min(start + BLOCK, len(store)))
        scores = query @ store[part].T
        if without is not None:
            # Columns come in order, so that those of a block lie together.
            edges = torch.searchsorted(without[1], without[1].new_tensor([part.start, part.stop]))
            rows, columns = (one[edges[0] : edges[1]] for one in without)
            scores[rows, columns - start] = NONE
        yield part, scores


def _highest(scores: Float[Tensor, "b m"], k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each row and where they stand: parts first, then what is in the best of them."""
    b, m = scores.shape
    n_parts = m // PART
    if n_parts <= 2 * k or m % PART:
        return scores.topk(min(k, m), 1, sorted=False)
    parts = scores.view(b, PART, n_parts).amax(1).topk(k, 1, sorted=False).indices
    columns = (parts[:, None] + n_parts * torch.arange(PART, device=scores.device)[:, None]).flatten(1)
    values, at = scores.gather(1, columns).topk(k, 1, sorted=False)
    return values, columns.gather(1, at)


class _Nearest(torch.autograd.Function):
    """See :func:`nearest`; the gradient touches those k alone."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, store: Tensor, k: int, without: Pairs, classes: Any) -> Any:
        best, where = query.new_zeros(len(query), 0), without[0].new_zeros(len(query), 0)
        for part, scores in blocks(query, store, without):
            if classes is not None:
                scores = scores.masked_fill(classes[0][:, None] != classes[1][part], NONE)
            values, at = _highest(scores, k)
            best, where = torch.cat([best, values], 1), torch.cat([where, at + part.start], 1)
            if best.shape[1] > k:
                best, among = best.topk(k, 1, sorted=False)
                where = where.gather(1, among)
        ctx.save_for_backward(where, store)
        ctx.mark_non_differentiable(where)
        return best, where

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None, None]:
        where, store = ctx.saved_tensors
        slope = embedding_bag(where, store, mode="sum", per_sample_weights=slopes[0].contiguous())
        return slope, None, None, None, None


def nearest(
    query: Float[Tensor, "b d"],
    store: Float[Tensor, "n d"],
    k: int,
    without: Pairs,
    classes: Classes | None = None,
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k highest products of each query with a store that does not learn, and where they stand, in no order.

    Memory does not grow with the store. Where fewer than k count, the rest are minus infinity.
    """
    best, where = _Nearest.apply(query, store, k, without, classes)
    return best, where


class _LogSums(torch.autograd.Function):
    """See :func:`log_sums`; made in one pass with their gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, store: Tensor, scale: float, without: Pairs | None, classes: Any) -> Any:
        n = 1 if classes is None else 2
        top = query.new_full((len(query), 1), NONE)
        sums, pulls = [query.new_zeros(len(query), 1) for _ in range(n)], [torch.zeros_like(query) for _ in range(n)]
        for part, scores in blocks(query * scale, store, without):
            higher = torch.maximum(top, scores.amax(1, keepdim=True))
            shift = higher.clamp(min=torch.finfo(scores.dtype).min)
            fade = (top - shift).exp()
            each = scores.sub_(shift).exp_()
            for i in range(n):
                if i:
                    each = each * (classes[0][:, None] == classes[1][part])
                sums[i] = sums[i] * fade + each.sum(1, keepdim=True)
                pulls[i] = torch.addmm(pulls[i] * fade, each, store[part])
            top = higher
        tiny = torch.finfo(query.dtype).tiny
        ctx.save_for_backward(*(scale * pull / one.clamp(min=tiny) for pull, one in zip(pulls, sums, strict=True)))
        return tuple((top + one.log())[:, 0] for one in sums)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None, None]:
        pulled = [slope[:, None] * pull for slope, pull in zip(slopes, ctx.saved_tensors, strict=True)]
        return torch.stack(pulled).sum(0), None, None, None, None


def log_sums(
    query: Float[Tensor, "b d"],
    store: Float[Tensor, "n d"],
    scale: float,
    without: Pairs | None = None,
    classes: Classes | None = None,
) -> tuple[Float[Tensor, " b"], ...]:
    """``log sum_j exp(scale q_i · k_j)`` over all of a store; with classes also over those of one's own class.

    Memory does not grow with the store, forwards or backwards.
    """
    found: tuple[Tensor, ...] = _LogSums.apply(query, store, scale, without, classes)
    return found
