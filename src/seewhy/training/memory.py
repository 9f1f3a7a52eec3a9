"""What a step of a training takes of memory, and the gradients of a large batch in the memory of a small one.

Gao et al. 2021, arXiv 2101.06983 (gradient caching): features first, the loss on all, then part by part. The loss sees
the whole batch, so that in-batch negatives, learnt temperatures and biases get the very gradient of the full batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..encoders.split import hooked
from ..errors import DataError, InputError
from ..seeded import reseed
from .batches import Batch, TrainingData
from .task import Task

N_MEASURED = 2
"""Samples that are measured, and twice as many."""
PART = 0.5
"""Of the memory that is free, what a batch that is computed whole may take."""
AT_ONCE = 2 * 2**30
"""Bytes that the parts of a larger one take on a processor, where larger parts are no faster."""
N_AHEAD = 3
"""Batches of pictures that are there at a time: one is computed, two are read ahead."""
WORTH_A_NOTE = 2**30
SMALL = 2**22
"""Bytes of weights, or of a batch, below which a training without pictures is not measured."""


@dataclass(frozen=True)
class StepMemory:
    """The memory that the steps of a training take."""

    per_sample: float
    fixed: float
    free: float
    parts: float
    splits: bool

    def of(self, n: int) -> float:
        """The bytes for this many samples computed at once."""
        return self.fixed + n * self.per_sample

    def at_once(self, n: int) -> int | None:
        """The number of ``n`` samples to compute at once; ``None`` for all of them."""
        most = PART * self.free - self.fixed
        if not self.splits or n * self.per_sample <= most:
            return None
        return max(1, int(min(most, self.parts) / self.per_sample))

    def say(self, n: int, size: int | None) -> str | None:
        """The note for a person before the training starts; empty if it takes little memory."""
        need, free = self.of(n if size is None else size), f"{gigabytes(self.free)} are free"
        if need > self.free:
            parts = "even one sample at a time" if size == 1 else f"with {size or n} samples computed at once"
            raise InputError(
                f"A step of {n} samples needs about {gigabytes(need)} of memory {parts}, and {free}. Give a smaller "
                "batch size, smaller pictures, or a machine with more memory."
            )
        if size is not None:
            whole, part = gigabytes(self.of(n)), gigabytes(need)
            return (
                f"a step of {n} samples would take about {whole} of memory, but {free}: SeeWhy computes {size} at "
                f"once, in about {part}, with the same gradient and one more forward pass"
            )
        return f"a step of {n} samples takes about {gigabytes(need)} of memory; {free}" if need > WORTH_A_NOTE else None


def gigabytes(n: float) -> str:
    """Gigabytes for people: one decimal, none from 100 on."""
    return f"{n / 1e9:.1f} GB" if n < 1e11 else f"{n / 1e9:.0f} GB"


def measure(task: Task, data: TrainingData, n: int, seed: int, device: torch.device) -> StepMemory | None:
    """Measure the memory of a step, in a pass over a few pictures that leaves weights and buffers unchanged.

    ``None`` if network and data are small, if pictures cannot be read, or if the free memory is unknown.
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
    """Bytes that a pass forward keeps for the way back, and whether its features have a row for each sample."""
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            memory = value.untyped_storage()
            kept[memory.data_ptr()] = memory.nbytes()
        return value.detach()

    buffers = {name: value.clone() for name, value in task.named_buffers()}
    try:
        with torch.enable_grad(), saved_tensors_hooks(pack, lambda value: value):
            reseed(seed)
            features = task.features(batch)
            own = {p.untyped_storage().data_ptr() for p in task.parameters()}
            return sum(n for place, n in kept.items() if place not in own), has_rows(features, len(batch))
    finally:  # running averages have moved
        with torch.no_grad():
            for name, value in task.named_buffers():
                value.copy_(buffers[name])


def free_memory(device: torch.device | None = None) -> int | None:
    """The bytes that this process may still take from a graphics card, or from the machine and its control groups."""
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
    with suppress(AttributeError, OSError, ValueError):  # no Linux: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _of_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What is left of the limit of each group, from this process's own upwards; version 2 and version 1."""
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
    """Bytes of files that a group has in memory, which go when others need the place."""
    facts: dict[str, Any] = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))


def cached_gradients(
    task: Task, batch: Batch, own: Sequence[Tensor], size: int, seed: int, weight: float
) -> Mapping[str, Tensor]:
    """Add a batch's gradients to its parameters, and return the terms; both passes seed each piece alike."""
    parts, found = batch.parts(size), []
    with torch.no_grad():
        for i, part in enumerate(parts):
            reseed(_seed(seed, i))
            found.append(task.features(part))
            if not has_rows(found[-1], len(part)):
                given = ", ".join(str(tuple(value.shape)) for value in tensors_in(found[-1])) or "nothing"
                raise InputError(
                    f"{type(task).__name__} was given micro_batch, but makes features of the shapes {given} for "
                    f"{len(part)} samples. Expected one row per sample. Leave micro_batch out, or move what needs the "
                    "whole batch into the loss."
                )
    flat, shapes = zip(*(tree_flatten(one) for one in found), strict=True)
    rows = [torch.cat(one) if isinstance(one[0], Tensor) else one[0] for one in zip(*flat, strict=True)]
    whole = tree_unflatten(rows, shapes[0])
    leaves = [leaf.requires_grad_() for leaf in tensors_in(whole) if leaf.is_floating_point()]
    reseed(seed)
    terms = task.loss(whole, batch)
    (weight * terms["loss"]).backward(inputs=[*leaves, *own])
    slopes = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]
    pieces = zip(*(slope.split(size) for slope in slopes), strict=True)
    for i, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        reseed(_seed(seed, i))
        outputs = [value for value in tensors_in(task.features(part)) if value.is_floating_point()]
        learn = [(value, slope) for value, slope in zip(outputs, piece, strict=True) if value.requires_grad]
        if learn:
            torch.autograd.backward([v for v, _ in learn], [s for _, s in learn], inputs=list(own))
    return terms


def _seed(seed: int, part: int) -> int:
    return (1009 * seed + part + 1) % 2**63


@contextmanager
def exact(task: Task, reason: str | None) -> Iterator[None]:
    """Check that nothing in a task depends on which samples are computed together."""

    def refuse(module: nn.Module, _: Any) -> None:
        if normalises(module):
            raise InputError(
                f"{type(task).__name__} normalises over the samples that are computed together, but {reason}. Expected "
                "fixed statistics, or a normalisation of each sample. Put its batch normalisation into evaluation "
                "mode, or train in one piece."
            )

    normal = [m for m in task.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with hooked([] if reason is None else [m.register_forward_pre_hook(refuse) for m in normal]):
        yield


def normalises(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation that uses the statistics of its input."""
    normal = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return normal and (module.training or getattr(module, "running_mean", None) is None)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested dicts, lists and tuples."""
    return [one for one in tree_leaves(value) if isinstance(one, Tensor)]


def has_rows(features: Any, n: int) -> bool:
    """Whether features have a row for each of ``n`` samples."""
    every = tensors_in(features)
    return bool(every) and all(value.shape[:1] == (n,) for value in every)
