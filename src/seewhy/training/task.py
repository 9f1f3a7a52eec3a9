"""Training tasks, learning rate schedules and optimisers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .batches import Batch

if TYPE_CHECKING:
    from .loop import Training


class Task(nn.Module, ABC):
    """The base class of training tasks: networks with the loss that trains them.

    Parameters that require gradients are trained. All other state that a step changes (a queue, a momentum encoder,
    running averages) must be a buffer. Checkpoints include trained parameters and buffers. They do not include frozen
    weights, which must be the same when a training is resumed. Networks that are used but not trained need not be
    submodules.

    Class attributes:
        needs: columns that a batch must have, such as ``"pixels"``, ``"views"``, ``"boxes"``, ``"labels"``.
        moves: whether the task and its batches move to the GPU; ``False`` if it uses objects that cannot be moved.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    moves: ClassVar[bool] = True

    @abstractmethod
    def features(self, batch: Batch) -> Any:
        """Run the networks on a batch; with gradient caching, on parts of a batch."""

    @abstractmethod
    def loss(self, features: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Return scalar terms with the same names at every step; ``"loss"`` or each player's term is minimised."""

    def players(self) -> Mapping[str, nn.Module]:
        """Return, for each loss term, the module that it trains; all modules are updated in the same step."""
        return {"loss": self}

    def after_step(self) -> None:
        """Update the buffers after a step of the optimiser."""


class Supervised(Task):
    """A network whose outputs are class logits, trained by cross-entropy."""

    def __init__(self, network: nn.Module, label_smoothing: float = 0.0, *, column: str = "pixels") -> None:
        super().__init__()
        self.needs = (column, "labels")  # type: ignore[misc]
        self.network, self.label_smoothing = network.requires_grad_(True), label_smoothing

    def features(self, batch: Batch) -> Tensor:
        return self.network(batch[self.needs[0]])

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return classified(features, batch["labels"], self.label_smoothing)


def classified(
    scores: Float[Tensor, "b k"], labels: Int[Tensor, " b"], label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return the cross-entropy and the accuracy."""
    right = (scores.argmax(1) == labels).float().mean()
    return {"loss": cross_entropy(scores, labels, label_smoothing=label_smoothing), "right": right}


Schedule = Literal["constant", "cosine", "milestones", "one_cycle", "per_epoch"]


def rates(schedule: Schedule, step: int, n_steps: int, steps_per_epoch: int) -> tuple[float, float]:
    """Return the factor of the learning rate, and the momentum."""
    if schedule == "constant":
        return 1.0, 0.9
    if schedule == "per_epoch":
        return float(0.95 ** (step // steps_per_epoch)), 0.9
    if schedule == "milestones":
        return 0.2 ** sum(step >= share * n_steps for share in (0.4, 0.6, 0.8)), 0.9
    if schedule == "cosine":
        return (1 + math.cos(math.pi * step / n_steps)) / 2, 0.9
    top = max(0.3 * n_steps - 1, 1e-9)
    if step <= top:
        share = (1 - math.cos(math.pi * step / top)) / 2
        return 0.04 + 0.96 * share, 0.95 - 0.10 * share
    share = (1 - math.cos(math.pi * (step - top) / max(n_steps - 1 - top, 1e-9))) / 2
    return 1 + (4e-6 - 1) * share, 0.85 + 0.10 * share


def set_rates(optimiser: torch.optim.Optimizer, how: Training, step: int, n_samples: int) -> None:
    """Set the learning rate and momentum of a step in every parameter group."""
    per_epoch = n_samples // min(how.batch_size, n_samples)
    factor, momentum = rates(how.schedule, step, how.n_steps, per_epoch)
    if step < how.warmup:
        factor = (step + 1) / how.warmup
    for group in optimiser.param_groups:
        group["lr"] = how.lr * group["multiple"] * factor
        if how.optimiser == "sgd":
            group["momentum"] = momentum


def optimiser_of(task: Task, how: Training) -> torch.optim.Optimizer:
    """Return an optimiser with one parameter group per pair of learning rate and weight decay."""
    normal = {id(p) for m in task.modules() if "norm" in type(m).__name__.lower() for p in m.parameters(recurse=False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in task.named_parameters():
        if not p.requires_grad:
            continue
        plain = id(p) in normal or p.numel() == 1 or name.endswith(("bias", "scale"))
        multiple = _multiple(how.part_lr, name) * (how.bias_lr if name.endswith("bias") else 1.0)
        decay = 0.0 if plain else how.weight_decay * _multiple(how.part_decay, name)
        groups.setdefault((multiple, decay), []).append(p)
    given = [{"params": own, "multiple": m, "weight_decay": decay} for (m, decay), own in groups.items()]
    if how.optimiser == "sgd":
        return torch.optim.SGD(given, lr=how.lr, momentum=0.9, nesterov=how.nesterov)
    return torch.optim.AdamW(given, lr=how.lr)


def _multiple(parts: tuple[tuple[str, float], ...], name: str) -> float:
    return next((multiple for start, multiple in parts if name.startswith(start)), 1.0)


def optimiser_state(
    tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]] | None:
    """Return the optimiser's state by parameter number; ``None`` if it does not fit the parameters."""
    shapes = [p.shape for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith("optimiser."):
            continue
        number, _, key = name.removeprefix("optimiser.").partition(".")
        if not number.isdecimal() or int(number) >= len(shapes) or value.shape not in ((), shapes[int(number)]):
            return None
        state.setdefault(int(number), {})[key] = value
    return state
