"""A picture tower and what stands behind it, trained by an objective over views of pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..training.batches import Batch
from ..training.distributed import gathered
from ..training.task import Task
from .contrast import hold_norms
from .momentum import Slow
from .objectives.pictures import Vectors


class Views(Task):
    """Each view of a picture becomes one vector; over several processes those of all are compared.

    Watched beside the loss is the spread of directions: 1 where they point everywhere, 0 where all are the same, as in
    a training that has collapsed (Chen & He 2021, arXiv 2011.10566).

    Args:
        tower: pixels → pooled vectors.
        projection: pooled vectors → what is compared.
        objective: what is made small.
        width: of what is compared.
        n_classes: of the pictures; 0 where they have none, and then batches need no labels.
        n_pictures: that are trained on.
        n_steps: of the training.
        hold: whether batch normalisations stay as in evaluation.
    """

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module,
        objective: Vectors,
        *,
        width: int,
        n_classes: int,
        n_pictures: int,
        n_steps: int,
        hold: bool = True,
    ) -> None:
        super().__init__()
        self.needs = ("views", *(("labels",) if n_classes else ()))  # type: ignore[misc]
        self.network = nn.Sequential(tower, projection).requires_grad_(True)
        self.objective, self.hold = objective, hold
        self.beside = objective.state(width, n_classes, n_pictures, n_steps)
        self.slow = Slow(self.network, objective.momentum, n_steps) if objective.slow_views else None

    def features(self, batch: Batch) -> dict[str, Float[Tensor, "b v d"]]:
        if self.hold:
            hold_norms(self)
        views = batch["views"][: self.objective.n_views]
        found = {"vectors": _seen(self.network, views)}
        if self.slow is not None:
            found["slow"] = _seen(self.slow, views[-self.objective.slow_views :])
        found["index"] = torch.tensor(batch.index, device=views[0].device)
        return found

    def loss(self, features: dict[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        vectors, _ = gathered(features["vectors"])
        slow = gathered(features["slow"])[0] if "slow" in features else None
        labels = gathered(batch["labels"])[0] if "labels" in self.needs else None
        index, _ = gathered(features["index"])
        loss = self.objective(vectors, labels, state=self.beside, slow=slow, index=index)
        directions = normalize(vectors.detach().float(), dim=2).flatten(0, 1)
        spread = directions.var(0, unbiased=False).sum()
        return {"loss": loss, "spread": spread, **self.beside.watched}

    def after_step(self) -> None:
        self.beside.after_step()
        if self.slow is not None:
            self.slow.follow(self.network)


def _seen(network: nn.Module, views: tuple[Tensor, ...]) -> Float[Tensor, "b v d"]:
    """All views at once."""
    vectors: Tensor = network(views[0] if len(views) == 1 else torch.cat(views))
    return vectors.unflatten(0, (len(views), -1)).transpose(0, 1)
