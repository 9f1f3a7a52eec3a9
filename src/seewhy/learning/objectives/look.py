"""LOOK (Feng et al. 2021, arXiv 2110.06014): the error of a leave-one-out nearest-neighbour classifier as the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ...bounds import Bound, Count, Natural, NotNegative, Part, Positive, SomePart
from . import objectives
from .pictures import Beside, Classes, Vectors, Views
from .queue import Queue, log_sums, nearest, own_places


class Neighbours(Queue):
    """The pictures that can be neighbours, how many steps went by, how many are cold, and the layer of a warm-up."""

    steps: Tensor

    def __init__(self, size: int, width: int, n_classes: int | None, cold_steps: int = 0) -> None:
        super().__init__(size, width)
        self.cold_steps = cold_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.layer = None if n_classes is None else nn.Linear(width, n_classes)

    def after_step(self) -> None:
        self.steps += 1


@objectives.register
@dataclass(frozen=True)
class LOOK(Vectors):
    """Most of the nearest neighbours of a picture, itself left out, must be of its class, be it in several places.

    Leave-one-out soft kNN, LOOK-style: ``P(c|i) = sum_{j in N_k(i), y_j = c} w_ij / sum_{j in N_k(i)} w_ij`` with
    ``w_ij = exp(cos(z_i, z_j) / t)``, and ``L = -mean_i log(P(y_i|i) + eps)``. Neighbours are vectors of the pictures
    by a slow copy of the network, first in first out; those of the same picture never count. A picture of the same
    class that is not among the k nearest gets no pull, so that a class may stay in several places.

    There is no public code, and the body of the paper was not at hand: the loss is rebuilt from its abstract and from
    what this family of methods does. How it starts, the store, k, temperature and momentum are ours. Networks that had
    learnt nothing, whose vectors all lie near one place, came to one place altogether with ``"none"`` and
    ``"own_class"`` on drawn shapes; those keep what an encoder that has learnt something knows.

    Cost: one pass of the slow copy a view that it sees, and one product with the store; memory does not grow with the
    store. Slow vectors of the batch itself go into the store before it is compared with.

    Args:
        k: neighbours; 0 takes all, which is SupCon's inner form.
        temperature: of the cosines.
        eps: added to the probability, so that a picture without a neighbour of its class has no endless loss.
        cold: what helps while neighbours are still of any class. ``"wide"``: k falls from the whole store to its value.
            ``"warm_up"``: the cross entropy of a layer. ``"own_class"``: the best of its class is added to the k.
            ``"none"``: nothing; a picture without one of its class among the k has then no gradient.
        cold_part: of the training's steps, for ``"wide"`` and ``"warm_up"``.
        n_store: pictures in the store, at most all that are trained on.
        momentum: of the slow copy at first; it rises to 1. With 0 it is the network itself.
        n_views: of each picture; the last goes through the slow copy.

    Example:
        >>> same = torch.ones(4, 1, 2)
        >>> round(float(LOOK(k=3)(same, torch.tensor([0, 0, 1, 1]))), 3)  # one of three others is like each: log 3
        1.098
    """

    name: ClassVar[str] = "look"
    spelt: ClassVar[str] = "LOOK"
    paper: ClassVar[str] = "Feng et al. 2021, arXiv:2110.06014"
    needs: ClassVar[str] = "pictures with a class each"
    cost: ClassVar[str] = "1 by the slow copy"
    needs_labels: ClassVar[bool] = True

    k: Natural = 20
    temperature: Positive = 0.1
    eps: NotNegative = 1e-4
    cold: Literal["none", "own_class", "wide", "warm_up"] = "wide"
    cold_part: SomePart = 0.4
    n_store: Annotated[int, Bound(2)] = 65536
    momentum: Part = 0.99
    n_views: Count = 1

    @property
    def slow_views(self) -> int:
        return 1

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        cold = round(self.cold_part * n_steps) if self.cold in ("wide", "warm_up") else 0
        layer_of = n_classes if self.cold == "warm_up" else None
        return Neighbours(min(self.n_store, n_pictures), width, layer_of, cold)

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        assert isinstance(state, Neighbours)
        assert labels is not None
        assert slow is not None
        state.add(normalize(slow[:, -1], dim=1), labels, index)
        (store, classes, numbers), v = state.held(), vectors.shape[1]
        query, each = normalize(vectors, dim=2).flatten(0, 1).to(store), labels.repeat_interleave(v)
        begun = int(state.steps) < state.cold_steps
        without = own_places(index.repeat_interleave(v), numbers)
        k = self._k(int(state.steps), state.cold_steps, len(store))
        if k >= len(store):
            chance = soft_votes(query, each, store, classes, self.temperature, without)
            state.watched = {"own_class": chance.detach().mean()}
            if self.k:
                state.watched["neighbours"] = chance.new_tensor(float(len(store)))
        else:
            own = self.cold == "own_class"
            chance, n = votes(query, each, store, classes, k, self.temperature, without, own)
            state.watched = {"own_class": chance.detach().mean(), "neighbours": n.mean()}
        loss = -(chance + self.eps).log().mean()
        if state.layer is not None and begun:
            loss = 0.0 * loss + cross_entropy(state.layer(vectors.flatten(0, 1).to(state.layer.weight)), each)
        return loss

    def _k(self, step: int, cold_steps: int, n: int) -> int:
        """Neighbours at a step, of a store that holds so many."""
        k = min(self.k or n, n)
        if self.cold != "wide" or step >= cold_steps:
            return k
        return round(n * (k / n) ** (step / cold_steps))


def votes(
    query: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    store: Float[Tensor, "n d"],
    classes: Int[Tensor, " n"],
    k: int,
    temperature: float,
    without: tuple[Tensor, Tensor],
    own_class: bool = False,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """The part of the k nearest neighbours' weight that is of each query's own class, and ``exp`` of its entropy.

    Pairs ``without`` do not count; with ``own_class`` the best of its class joins those of a query that has none of it.
    """
    near, where = nearest(query, store, k, without)
    right = classes[where] == labels[:, None]
    counts = near.isfinite()
    if own_class:
        rows = (~(right & counts).any(1)).nonzero()[:, 0]
        best = near.new_full((len(query), 1), float("-inf"))
        if len(rows):
            of_rows = _rows_of(without, rows, len(query))
            found, _ = nearest(query[rows], store, 1, of_rows, (labels[rows], classes))
            best = best.index_copy(0, rows, found)
        near = torch.cat([near, best], 1)
        right, counts = torch.cat([right, torch.ones_like(right[:, :1])], 1), near.isfinite()
    scores = torch.where(counts, near, 0.0) / temperature
    top = scores.detach().masked_fill(~counts, float("-inf")).amax(1, keepdim=True).clamp(min=-1e30)
    weights = torch.where(counts, (scores - top).exp(), 0.0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    entropy = -(weights.detach() * weights.detach().clamp(min=1e-30).log()).sum(1)
    return (weights * right).sum(1), entropy.exp()


def soft_votes(
    query: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    store: Float[Tensor, "n d"],
    classes: Int[Tensor, " n"],
    temperature: float,
    without: tuple[Tensor, Tensor],
) -> Float[Tensor, " b"]:
    """The same part with all of the store as neighbours."""
    whole, own = log_sums(query, store, 1 / temperature, without, (labels, classes))
    has = own.isfinite()
    return torch.where(has, (torch.where(has, own, 0.0) - torch.where(has, whole, 0.0)).exp(), 0.0)


def _rows_of(without: tuple[Tensor, Tensor], rows: Int[Tensor, " r"], n: int) -> tuple[Tensor, Tensor]:
    """Those pairs whose rows are among some, by their place among these."""
    place = torch.full((n,), -1, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    kept = place[without[0]] >= 0
    return place[without[0][kept]], without[1][kept]
