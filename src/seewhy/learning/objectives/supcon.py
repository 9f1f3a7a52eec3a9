"""SupCon (Khosla et al. 2020, arXiv 2004.11362): pictures of a class must find one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...bounds import Count, Natural, Part, Positive
from . import objectives
from .pictures import Beside, Classes, Vectors, Views, contrast
from .queue import Queue, log_sums


@objectives.register
@dataclass(frozen=True)
class SupCon(Vectors):
    """Each view must find all views of its own class among all views of the batch, or of a queue.

    ``L_i = -1/|P(i)| sum_{p in P(i)} log(exp(s_ip / t) / sum_{a != i} exp(s_ia / t))``, on average over views ``i``
    (equation 2, the sum outside of the logarithm); ``P(i)`` are the other views of its class, ``s`` cosines.

    Equal to ``SupConLoss`` of SupContrast in loss and gradients, which also multiplies by ``temperature /
    base_temperature``. With ``n_store`` the pictures are compared with as many earlier ones by a slow copy of the
    network (the paper's section 4.4 and MoCo): then the last view goes through the slow copy and the others must find
    their class in the queue, their own picture's other views among it. Memory does not grow with the queue.

    Args:
        temperature: of the cosines; the paper's 0.1.
        base_temperature: the authors' factor of the loss is ``temperature`` through this; left out, there is none.
        n_views: of each picture.
        n_store: pictures of the queue; 0 compares within the batch.
        momentum: of the slow copy at first; it rises to 1.

    Example:
        >>> views = torch.eye(2)[:, None]
        >>> round(float(SupCon(temperature=1.0)(views.repeat(2, 1, 1), torch.tensor([0, 1, 0, 1]))), 4)
        0.5514
    """

    name: ClassVar[str] = "supcon"
    spelt: ClassVar[str] = "SupCon"
    paper: ClassVar[str] = "Khosla et al. 2020, arXiv:2004.11362"
    needs: ClassVar[str] = "pictures with a class each"
    needs_labels: ClassVar[bool] = True

    temperature: Positive = 0.1
    base_temperature: Positive | None = None
    n_views: Count = 2
    n_store: Natural = 0
    momentum: Part = 0.999

    def check(self) -> None:
        if self.n_store and self.n_views < 2:
            raise self.refusal("n_store", "n_views", expected="Two views or more with a queue were")

    @property
    def slow_views(self) -> int:
        return 1 if self.n_store else 0

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        return Queue(min(self.n_store, n_pictures), width) if self.n_store else Beside()

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        assert labels is not None
        factor = 1.0 if self.base_temperature is None else self.temperature / self.base_temperature
        if slow is None:
            return factor * contrast(vectors, labels[:, None] == labels, self.temperature)
        assert isinstance(state, Queue)
        state.add(normalize(slow[:, -1], dim=1), labels, index)
        store, classes, _ = state.held()
        query = normalize(vectors[:, :-1], dim=2)
        each = labels.repeat_interleave(query.shape[1])
        return factor * against_store(query.flatten(0, 1), each, store, classes, self.temperature)


def against_store(
    query: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    store: Float[Tensor, "n d"],
    classes: Int[Tensor, " n"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The same loss of queries over a store that does not learn, each of its vectors counting.

    The mean over a class is a product with the class's mean, so that scores are made once, block by block, for the sum
    of all. A query whose class is not in the store adds 0.
    """
    n_classes = int(torch.maximum(classes.max(), labels.max())) + 1
    sums = store.new_zeros(n_classes, store.shape[1]).index_add_(0, classes, store)
    count = torch.bincount(classes, minlength=n_classes)[labels]
    means = sums[labels] / count.clamp(min=1)[:, None]
    (whole,) = log_sums(query.to(store), store, 1 / temperature)
    return torch.where(count > 0, whole - (query * means).sum(1) / temperature, 0.0).mean()
