"""What is learnt, and from what: a task holds the networks and all state that a step changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .batches import Batch


class Task(nn.Module, ABC):
    """Networks, and the loss that trains them; :func:`seewhy.training.loop.train` does the rest.

    Parameters that require gradients are trained. Whatever else a step changes (a queue, a slow copy, running
    averages) is a buffer. A checkpoint keeps both, and not the frozen weights, so that what is frozen must be the same
    when a stopped training goes on. A network that is only used need not be part of the task.

    Class attributes:
        needs: names of what a batch must hold, such as ``"pixels"``, ``"views"``, ``"boxes"``, ``"labels"``.
        moves: whether task and batches go where training is fastest; ``False`` where it uses what stays in its place.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    moves: ClassVar[bool] = True

    @abstractmethod
    def features(self, batch: Batch) -> Any:
        """What the networks make of a batch; the costly part."""

    @abstractmethod
    def loss(self, features: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Named terms, the same at every step: ``"loss"``, or each player's own, goes down; others are watched."""

    def players(self) -> Mapping[str, nn.Module]:
        """Name of a term → the part that it trains, for games; all move at once, by the gradients of one batch."""
        return {"loss": self}

    def after_step(self) -> None:
        """Once the weights have moved: slow copies follow, queues turn, temperatures are held in their bounds."""


class Supervised(Task):
    """A network whose outputs are the classes' scores; watched is how often it is right."""

    def __init__(self, network: nn.Module, label_smoothing: float = 0.0, *, column: str = "pixels") -> None:
        super().__init__()
        self.needs = (column, "labels")  # type: ignore[misc]
        self.network, self.label_smoothing = network.requires_grad_(True), label_smoothing

    def features(self, batch: Batch) -> Tensor:
        scores: Tensor = self.network(batch[self.needs[0]])
        return scores

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return classified(features, batch["labels"], self.label_smoothing)


def classified(
    scores: Float[Tensor, "b k"], labels: Int[Tensor, " b"], label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """The cross entropy, and how often the best score is the class's."""
    right = (scores.argmax(1) == labels).float().mean()
    return {"loss": cross_entropy(scores, labels, label_smoothing=label_smoothing), "right": right}
