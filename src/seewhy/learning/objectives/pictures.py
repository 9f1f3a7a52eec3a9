"""Base classes of objectives on pictures without texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from ...errors import InputError
from .contrastive import Objective, precise

BLOCK = 8192
"""Vectors of the queue per block."""
Pairs = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]
"""Rows and columns of pairs, sorted by column."""
BothClasses = tuple[Int[Tensor, " b"], Int[Tensor, " n"]]
"""Classes of the queries and of the store."""
NONE = float("-inf")
Views = Float[Tensor, "b v d"]
Classes = Int[Tensor, " b"] | None
Maps = Float[Tensor, "b d h w"]
Boxes = Float[Tensor, "v b 4"]
"""Crop box of each view."""
Flipped = Bool[Tensor, "v b"]


class Beside(nn.Module):
    """Additional state of an objective, such as layers or a queue, which checkpoints include."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[str, Tensor] = {}

    def after_step(self) -> None:
        """Update the state after an optimiser step."""


class PictureObjective(Objective):
    """An objective that needs no texts."""

    needs_labels: ClassVar[bool] = False
    n_views: int = 2
    momentum: float = 0.99

    @property
    def slow_views(self) -> int:
        """Return how many of the last views are encoded by the moving average of the network."""
        return 0


class Vectors(PictureObjective):
    """An objective on vectors, one per view of a picture."""

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        """Return new state for this vector width and number of steps."""
        return Beside()

    def __call__(
        self,
        vectors: Views,
        labels: Classes = None,
        *,
        state: Beside | None = None,
        slow: Float[Tensor, "b s d"] | None = None,
        index: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """Check the input and return the loss."""
        n = len(vectors)
        fits = vectors.shape[0] * vectors.shape[1] > 1 and (labels is None or len(labels) == n)
        if not fits or (labels is None and self.needs_labels):
            given = "no labels" if labels is None else f"{len(labels)} labels"
            raise InputError(
                f"{self.name} needs at least 2 views, and one label per picture if it uses labels, got vectors of "
                f"shape {tuple(vectors.shape)} and {given}."
            )
        if state is None:
            n_classes = 0 if labels is None else int(labels.max()) + 1
            state = self.state(vectors.shape[2], n_classes, n).to(vectors.device).requires_grad_(False)
        if slow is None and self.slow_views:
            slow = vectors[:, -self.slow_views :].detach()
        numbers = torch.arange(n, device=vectors.device) if index is None else index
        with torch.autocast(vectors.device.type, enabled=False):
            return self.loss(precise(vectors), labels, state, None if slow is None else precise(slow), numbers)

    @abstractmethod
    def loss(self, vectors: Views, labels: Any, state: Any, slow: Any, index: Any) -> Float[Tensor, ""]:
        """Return the loss."""


class Dense(PictureObjective):
    """An objective on patches of two views that show the same part of the picture."""

    cell_weight: float = 1.0
    instance_weight: float = 0.0

    @abstractmethod
    def state(self, width: int) -> nn.Module:
        """Return new state for this number of channels."""

    def __call__(
        self, first: Maps, second: Maps, boxes: Boxes, flipped: Flipped, state: nn.Module | None = None
    ) -> Float[Tensor, ""]:
        """Check the input and return the loss of ``first`` with ``second`` as the target."""
        b = len(first)
        if first.shape != second.shape or not b or boxes.shape != (2, b, 4) or flipped.shape != (2, b):
            raise InputError(
                f"{self.name} needs two maps of the same shape, and a box of 4 numbers per view and picture, got "
                f"shapes {tuple(first.shape)} and {tuple(second.shape)} (maps) and {tuple(boxes.shape)} (boxes)."
            )
        new = self.state(first.shape[1]).to(first.device).requires_grad_(False) if state is None else state
        with torch.autocast(first.device.type, enabled=False):
            x, y = precise(first), precise(second)
            return self.loss(x, y, boxes.to(x), flipped, new)

    @abstractmethod
    def loss(self, first: Maps, second: Maps, boxes: Boxes, flipped: Flipped, state: nn.Module) -> Float[Tensor, ""]:
        """Return the loss."""

    @abstractmethod
    def whole(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """Return the loss between the pooled vector of a view and the target vector of the other view."""


class Queue(Beside):
    """A first-in, first-out queue of vectors, classes and picture indices (MoCo, He et al. 2020)."""

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
        size = len(self.vectors)
        vectors, labels, index = vectors[-size:], labels[-size:], index[-size:]
        rows = (self.place + torch.arange(len(vectors), device=self.place.device)) % size
        self.vectors[rows] = vectors.to(self.vectors)
        self.labels[rows], self.index[rows] = labels, index
        self.place += len(vectors)

    def held(self) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"], Int[Tensor, " n"]]:
        n = min(int(self.place), len(self.vectors))
        return self.vectors[:n], self.labels[:n], self.index[:n]


def own_places(index: Int[Tensor, " b"], of: Int[Tensor, " n"]) -> Pairs:
    """Return the row and the column of every pair with equal indices."""
    ordered, order = index.sort()
    first, last = torch.searchsorted(ordered, of), torch.searchsorted(ordered, of, right=True)
    times = last - first
    columns = torch.arange(len(of), device=of.device).repeat_interleave(times)
    within = torch.arange(len(columns), device=of.device) - (times.cumsum(0) - times).repeat_interleave(times)
    return order[first.repeat_interleave(times) + within], columns


def blocks(
    query: Float[Tensor, "b d"], store: Float[Tensor, "n d"], without: Pairs | None
) -> Iterator[tuple[slice, Float[Tensor, "b m"]]]:
    """Yield dot products with the stored vectors in blocks of columns; excluded pairs are minus infinity."""
    for start in range(0, len(store), BLOCK):
        part = slice(start, min(start + BLOCK, len(store)))
        scores = query @ store[part].T
        if without is not None:
            # Columns come in order, so that those of a block lie together.
            edges = torch.searchsorted(without[1], without[1].new_tensor([part.start, part.stop]))
            rows, columns = (one[edges[0] : edges[1]] for one in without)
            scores[rows, columns - start] = NONE
        yield part, scores


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, store: Tensor, k: int, without: Pairs, classes: Any) -> Any:
        best, where = query.new_zeros(len(query), 0), without[0].new_zeros(len(query), 0)
        for part, scores in blocks(query, store, without):
            if classes is not None:
                scores = scores.masked_fill(classes[0][:, None] != classes[1][part], NONE)
            values, at = scores.topk(min(k, scores.shape[1]), 1, sorted=False)
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
    query: Float[Tensor, "b d"], store: Float[Tensor, "n d"], k: int, without: Pairs, classes: BothClasses | None = None
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Return the ``k`` largest dot products with the stored vectors, padded with minus infinity, and their indices."""
    best, where = _Nearest.apply(query, store, k, without, classes)
    return best, where


class _LogSums(torch.autograd.Function):
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
    classes: BothClasses | None = None,
) -> tuple[Float[Tensor, " b"], ...]:
    """Return ``log sum_j exp(scale q_i · k_j)`` over the stored vectors ``k_j``.

    With ``classes``, also return the sum over the vectors that have the class of the query.
    """
    return _LogSums.apply(query, store, scale, without, classes)
