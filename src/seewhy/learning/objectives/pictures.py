"""The base of objectives that learn from pictures alone, with or without their classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import Objective


class Beside(nn.Module):
    """What an objective learns or keeps beside the networks; the task that trains owns it, and a checkpoint holds it.

    Attributes:
        watched: numbers of the last loss that are told beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[str, Tensor] = {}

    def after_step(self) -> None:
        """Once the weights have moved."""


class PictureObjective(Objective):
    """Needs no words; ``seewhy pretrain`` takes class folders, a table or just pictures for it.

    Class attributes:
        needs_labels: whether every picture must have a class.
        n_views: of each picture, drawn apart, that the network sees.
        momentum: how slowly a slow copy follows the network at first, where the objective looks through one.
    """

    needs_labels: ClassVar[bool] = False
    n_views: int = 2
    momentum: float = 0.99

    @property
    def slow_views(self) -> int:
        """How many of a picture's views, the last ones, the slow copy sees; 0 where there is none."""
        return 0
