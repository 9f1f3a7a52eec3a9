"""Several tasks on what one network makes of each picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..training.batches import Batch
from ..training.task import Task

POOLED = "pooled"
"""The column in which a task finds what the network made."""


class Multitask(Task):
    """One network under several tasks: ``loss = sum_i weight_i loss_i``, and its gradient comes from all of them.

    Watched are each task's loss, under the task's name, and whatever that watches.

    Args:
        network: pixels → pooled vectors.
        tasks: name → weight and task, which takes :data:`POOLED` in the place of pixels.
    """

    def __init__(self, network: nn.Module, tasks: Mapping[str, tuple[float, Task]]) -> None:
        super().__init__()
        asked = [name for _, task in tasks.values() for name in task.needs if name != POOLED]
        self.needs = tuple(dict.fromkeys(["pixels", *asked]))  # type: ignore[misc]
        self.network, self.tasks = network, nn.ModuleDict({name: task for name, (_, task) in tasks.items()})
        self.weights = {name: weight for name, (weight, _) in tasks.items()}

    def features(self, batch: Batch) -> dict[str, Any]:
        seen = replace(batch, columns={**batch.columns, POOLED: self.network(batch["pixels"])})
        return {name: task.features(seen) for name, task in self._named()}

    def loss(self, features: Mapping[str, Any], batch: Batch) -> Mapping[str, Tensor]:
        told: dict[str, Tensor] = {}
        for name, task in self._named():
            own = task.loss(features[name], batch)
            told |= {key: value for key, value in own.items() if key != "loss"} | {name: own["loss"]}
        return {"loss": torch.stack([weight * told[name] for name, weight in self.weights.items()]).sum(), **told}

    def after_step(self) -> None:
        for _, task in self._named():
            task.after_step()

    def _named(self) -> list[tuple[str, Task]]:
        return [(name, task) for name, task in self.tasks.items() if isinstance(task, Task)]
