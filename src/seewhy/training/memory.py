"""Memory of a training step, and gradient caching for batches that do not fit (Gao et al. 2021, arXiv 2101.06983).

Gradient caching computes the features in micro-batches and the loss on the whole batch, so the gradients do not change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..encoders.split import hooked
from ..errors import DataError, InputError
from ..progress import duration
from ..seeded import seeded
from .batches import Batch, TrainingData
from .task import Task

if TYPE_CHECKING:
    from .loop import Training

N_MEASURED = 2
"""Number of samples for the first measurement; the second uses twice as many."""
PART = 0.5
"""Fraction of the free memory that a whole batch may take."""
AT_ONCE = 2 * 2**30
"""Bytes of a micro-batch on a CPU."""
N_AHEAD = 3
"""Batches of pictures in memory at once: the current one and two that are read ahead."""
WORTH_A_NOTE = 2**30
SMALL = 2**22
"""Bytes of weights or of a batch below which training without pictures is not measured."""


@dataclass(frozen=True)
class StepMemory:
    """The memory that a training step takes, in bytes."""

    per_sample: float
    fixed: float
    free: float
    parts: float
    splits: bool

    def of(self, n: int) -> float:
        """Return the bytes for ``n`` samples in one forward pass."""
        return self.fixed + n * self.per_sample

    def at_once(self, n: int) -> int | None:
        """Return the micro-batch size for ``n`` samples; ``None`` if they fit at once."""
        most = PART * self.free - self.fixed
        if not self.splits or n * self.per_sample <= most:
            return None
        return max(1, int(min(most, self.parts) / self.per_sample))

    def say(self, n: int, size: int | None) -> str | None:
        """Return a note about the memory of a step; ``None`` if it is small."""
        need, free = self.of(n if size is None else size), f"{gigabytes(self.free)} are free"
        if need > self.free:
            parts = "even with one sample at a time" if size == 1 else f"with micro-batches of {size or n} samples"
            raise InputError(
                f"A step of {n} samples needs about {gigabytes(need)} of memory {parts}, but {free}. Use "
                "a smaller batch size, smaller pictures, or a machine with more memory."
            )
        if size is not None:
            whole, part = gigabytes(self.of(n)), gigabytes(need)
            return (
                f"a step of {n} samples would take about {whole} of memory, but {free}: micro-batches of "
                f"{size} samples take about {part}, with the same gradient and one more forward pass"
            )
        return f"a step of {n} samples takes about {gigabytes(need)} of memory; {free}" if need > WORTH_A_NOTE else None


def gigabytes(n: float) -> str:
    """Format bytes as gigabytes, with one decimal below 100 GB."""
    return f"{n / 1e9:.1f} GB" if n < 1e11 else f"{n / 1e9:.0f} GB"


def measure(task: Task, data: TrainingData, n: int, seed: int, device: torch.device) -> StepMemory | None:
    """Measure the memory of a step by forward passes on a few pictures, without changing the task.

    Returns ``None`` if the network and data are small, if pictures cannot be read, or if the free memory is unknown.
    """
    free = free_memory(device)
    few, heavy = min(N_MEASURED, n), sum(p.nbytes for p in task.parameters()) >= SMALL
    if free is None:
        return None
    try:
        batch = data.batch(0, min(2 * few, n), seed).to(device)
    except DataError:
        return None
    inputs = {t.untyped_storage().data_ptr(): t.nbytes for t in tensors_in(batch.columns)}
    read = sum(inputs.values()) / len(batch)
    if data.pictures is None and not heavy and n * read < SMALL:
        return None
    held, rows = zip(*(_held(task, part, seed) for part in (*batch.parts(few)[:1], batch)), strict=True)
    more = len(batch) - min(few, len(batch))
    slope = (held[1] - held[0]) / more if more else held[1] / len(batch)
    learnt = sum(p.nbytes for p in task.parameters() if p.requires_grad)
    splits = len(task.players()) == 1 and all(rows) and not any(normalises(m) for m in task.modules())
    parts = free if device.type == "cuda" else AT_ONCE
    return StepMemory(max(slope, 1.0), 3 * learnt + N_AHEAD * n * read, free, parts, splits)


def _held(task: Task, batch: Batch, seed: int) -> tuple[int, bool]:
    """Return the bytes a forward pass saves for the backward pass, and whether features have a row per sample."""
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            memory = value.untyped_storage()
            kept[memory.data_ptr()] = memory.nbytes()
        return value.detach()

    buffers = {name: value.clone() for name, value in task.named_buffers()}
    try:
        with torch.enable_grad(), saved_tensors_hooks(pack, lambda value: value), seeded(seed):
            features = task.features(batch)
            own = {p.untyped_storage().data_ptr() for p in task.parameters()}
            return sum(n for place, n in kept.items() if place not in own), has_rows(features, len(batch))
    finally:  # restore the running averages
        with torch.no_grad():
            for name, value in task.named_buffers():
                value.copy_(buffers[name])


def free_memory(device: torch.device | None = None) -> int | None:
    """Return the free bytes of the GPU, or of the machine within the limits of its control groups."""
    if device is not None and device.type == "cuda":
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + own
    known = [n for n in (_of_machine(), *_of_groups()) if n is not None]
    return max(0, min(known)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if known else None


def _of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with suppress(AttributeError, OSError, ValueError):  # not Linux: half of the memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _of_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the bytes left in each control group of this process, for versions 1 and 2."""
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            (most, used), top = names[bool(kinds)], root / kinds
            for folder in [top / place.lstrip("/"), *(top / place.lstrip("/")).parents]:
                with suppress(OSError, ValueError):
                    limit = int((folder / most).read_text())
                    yield limit - int((folder / used).read_text()) + _cached(folder)
                if folder == top:
                    break


def _cached(folder: Path) -> int:
    """Return the bytes of cached files in a control group, which can be reclaimed."""
    facts: dict[str, Any] = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))


def cached_gradients(
    task: Task, batch: Batch, own: Sequence[Tensor], size: int, seed: int, weight: float
) -> Mapping[str, Tensor]:
    """Compute gradients with gradient caching, and return the loss terms."""
    parts, found = batch.parts(size), []
    with torch.no_grad():
        for i, part in enumerate(parts):
            with seeded(_seed(seed, i)):
                found.append(task.features(part))
            if not has_rows(found[-1], len(part)):
                given = ", ".join(str(tuple(value.shape)) for value in tensors_in(found[-1])) or "nothing"
                raise InputError(
                    f"With `micro_batch`, {type(task).__name__} must return features with one row per sample, got the "
                    f"shapes {given} for {len(part)} samples. Leave `micro_batch` out, or move layers that need the "
                    "whole batch into the loss."
                )
    flat, shapes = zip(*(tree_flatten(one) for one in found), strict=True)
    rows = [torch.cat(one) if isinstance(one[0], Tensor) else one[0] for one in zip(*flat, strict=True)]
    whole = tree_unflatten(rows, shapes[0])
    leaves = [leaf.requires_grad_() for leaf in tensors_in(whole) if leaf.is_floating_point()]
    with seeded(seed):
        terms = task.loss(whole, batch)
    (weight * terms["loss"]).backward(inputs=[*leaves, *own])
    slopes = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]
    pieces = zip(*(slope.split(size) for slope in slopes), strict=True)
    for i, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        with seeded(_seed(seed, i)):
            outputs = [value for value in tensors_in(task.features(part)) if value.is_floating_point()]
        learn = [(value, slope) for value, slope in zip(outputs, piece, strict=True) if value.requires_grad]
        if learn:
            torch.autograd.backward([v for v, _ in learn], [s for _, s in learn], inputs=list(own))
    return terms


def _seed(seed: int, part: int) -> int:
    return (1009 * seed + part + 1) % 2**63


@contextmanager
def exact(task: Task, reason: str | None) -> Iterator[None]:
    """Raise ``InputError`` during training if a layer uses batch statistics and the batch is split."""

    def refuse(module: nn.Module, _: Any) -> None:
        if normalises(module):
            raise InputError(
                f"{type(task).__name__} uses batch normalisation, but {reason}. Put the batch "
                "normalisation into evaluation mode, or do not split the batch."
            )

    normal = [m for m in task.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with hooked([] if reason is None else [m.register_forward_pre_hook(refuse) for m in normal]):
        yield


def normalises(module: nn.Module) -> bool:
    """Return whether a module is a batch normalisation that uses batch statistics."""
    normal = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return normal and (module.training or getattr(module, "running_mean", None) is None)


def tensors_in(value: Any) -> list[Tensor]:
    """Return all tensors in nested dicts, lists and tuples."""
    return [one for one in tree_leaves(value) if isinstance(one, Tensor)]


def has_rows(features: Any, n: int) -> bool:
    every = tensors_in(features)
    return bool(every) and all(value.shape[:1] == (n,) for value in every)


def training_cost(task: Task, data: TrainingData, how: Training, n_trainings: int = 1) -> str:
    """Estimate the time and memory of training from one step."""
    home = next(task.parameters()).device
    device = torch.device("cuda" if task.moves and torch.cuda.is_available() else home)
    task.to(device)
    memory = measure(task, data, how.batch_size, how.seed, device)
    batch = data.batch(0, min(N_MEASURED, how.batch_size), how.seed).to(device)
    step = 0.0
    for _ in range(2):  # the first one allocates
        begun = time.perf_counter()
        with torch.enable_grad():
            with seeded(how.seed):
                loss = task.loss(task.features(batch), batch)["loss"]
            loss.backward()
        _ = float(loss.detach())
        step = (time.perf_counter() - begun) * how.batch_size / len(batch)
    task.zero_grad()
    task.to(home)
    n = sum(p.numel() for p in task.parameters() if p.requires_grad)
    needs = "" if memory is None else f" and about {gigabytes(memory.of(how.batch_size))} of memory"
    several = f"{n_trainings} trainings of " if n_trainings > 1 else ""
    return (
        f"{n / 1e6:.1f} million weights are trained; a step of {how.batch_size} samples takes about {step:.2g} seconds"
        f"{needs}, {several}{how.n_steps} steps about {duration(n_trainings * step * how.n_steps)}"
    )
