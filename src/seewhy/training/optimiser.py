"""Rates, groups and state of the optimiser of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from .task import Task

if TYPE_CHECKING:
    from .loop import Training

Schedule = Literal["constant", "cosine", "milestones", "one_cycle", "per_epoch"]


def rates(schedule: Schedule, step: int, n_steps: int, steps_per_epoch: int) -> tuple[float, float]:
    """Factor of the learning rate, and momentum."""
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
    """Those of a step, of every group."""
    per_epoch = n_samples // min(how.batch_size, n_samples)
    factor, momentum = rates(how.schedule, step, how.n_steps, per_epoch)
    if step < how.warmup:
        factor = (step + 1) / how.warmup
    for group in optimiser.param_groups:
        group["lr"] = how.lr * group["multiple"] * factor
        if how.optimiser == "sgd":
            group["momentum"] = momentum


def optimiser_of(task: Task, how: Training) -> torch.optim.Optimizer:
    """One group for each pair of a rate and a decay; the names of parameters and modules say which."""
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
    """What the optimiser keeps of each parameter, by its number; ``None`` where that is not of these parameters."""
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
