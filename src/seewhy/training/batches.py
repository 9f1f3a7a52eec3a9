"""Training batches, read ahead by one process or by several under ``torchrun``."""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..errors import DataError, InputError
from .augmentation import TrainingPictures

if TYPE_CHECKING:
    from .task import Task

N_THREADS = min(4, os.cpu_count() or 1)
"""Number of threads that decode pictures."""


@dataclass(frozen=True)
class Processes:
    """The rank of this process, and the number of processes that train together."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def joined(cls) -> Processes:
        """Join the processes of ``torchrun`` or of an initialised process group; otherwise return a single process."""
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
                return cls()
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))

    def share(self, n: int) -> tuple[int, int]:
        """Return the half-open range of a batch's samples that this process computes."""
        each, more = divmod(n, self.world)
        first = self.rank * each + min(self.rank, more)
        return first, first + each + (self.rank < more)

    def agree(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Broadcast the weights of the first process, after a check that all processes resume at the same step."""
        if self.world == 1:
            return
        steps = sizes_of(step)
        if len(set(steps)) > 1:
            raise DataError(
                f"All processes must resume at the same step, got the steps {', '.join(map(str, steps))}. "
                "Put the checkpoint where every machine can read it."
            )
        for value in tensors.values():
            dist.broadcast(value, 0)

    def average(
        self, parameters: Sequence[Tensor], terms: Mapping[str, Tensor], n: int, *, stop: bool = False
    ) -> tuple[dict[str, Tensor], bool]:
        """Average gradients and terms over all processes; also return whether any process was asked to stop."""
        like = parameters[0]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = [float(p.grad is not None) for p in parameters]
        told = [n * term.detach().to(like).reshape(1) for term in terms.values()]
        flat = torch.cat([*(g.reshape(-1) for g in grads), *told, like.new_tensor([*there, float(stop), float(n)])])
        dist.all_reduce(flat)
        total = flat[-1]
        *sums, means, learnt, stops, _ = flat.split([*(p.numel() for p in parameters), len(told), len(there), 1, 1])
        for p, one, any_has in zip(parameters, sums, learnt.tolist(), strict=True):
            p.grad = (one / total).view_as(p) if any_has else None
        return dict(zip(terms, (means / total).unbind(), strict=True)), bool(stops > 0)


class _Gather(torch.autograd.Function):
    """An all-gather of rows whose backward pass sums the gradients over all processes."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.sizes = list(sizes)
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        whole = slopes[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole.split(ctx.sizes)[dist.get_rank()], None


def sizes_of(n: int) -> list[int]:
    """Gather the number ``n`` from every process, and return the list."""
    if not (dist.is_available() and dist.is_initialized()):
        return [n]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor([n], device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


def gathered(own: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the rows of all processes with gradients, and this process's range; every process must call it."""
    sizes = sizes_of(len(own))
    if len(sizes) == 1:
        return own, (0, len(own))
    first = sum(sizes[: dist.get_rank()])
    whole: Tensor = _Gather.apply(own, sizes)
    return whole, (first, first + len(own))


ALONE = Processes()


@dataclass(frozen=True)
class Batch:
    """The samples of a training step."""

    index: list[int]
    columns: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.index)

    def parts(self, size: int) -> list[Batch]:
        """Return the samples in batches of ``size``."""
        rows = [slice(i, i + size) for i in range(0, len(self), size)]
        return [Batch(self.index[r], {n: _cut(one, r, n) for n, one in self.columns.items()}) for r in rows]

    def to(self, device: torch.device) -> Batch:
        return Batch(self.index, tree_map_only(Tensor, lambda one: one.to(device), self.columns))


def _cut(value: Any, rows: slice, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _cut(one, rows) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_cut(one, rows) for one in value)
    return value[:, rows] if name in ("boxes", "flipped") else value[rows]


Column = Any
"""The values of all samples: a tensor; anything indexed by a list of indices; a function of indices and a
``torch.Generator``; an object with ``drawn``, such as :class:`~seewhy.learning.contrast.Drawn`; or
:class:`~seewhy.training.augmentation.TrainingPictures`."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training samples of a task.

    Attributes:
        n_samples: number of samples.
        columns: values of all samples by name; see :data:`Column`. Pictures that are decoded again at every step are
            the column ``"pixels"``.
        apart: a number for each sample; a batch has only samples with the same number. By default batches are mixed.
    """

    n_samples: int
    columns: Mapping[str, Column]
    apart: Int[Tensor, " n"] | None = None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of complete batches in an epoch."""
        if self.apart is None:
            return self.n_samples // min(batch_size, self.n_samples)
        return sum(n // min(batch_size, n) for n in self.apart.unique(return_counts=True)[1].tolist())

    @property
    def pictures(self) -> TrainingPictures | None:
        """The column that decodes pictures, or ``None``."""
        found = self.columns.get("pixels")
        return found if isinstance(found, TrainingPictures) else None

    def check(self, task: Task) -> None:
        """Raise ``InputError`` if there are no samples, if a column is missing, or if no parameter is trainable."""
        if self.n_samples < 1:
            raise InputError("The training data must have at least one sample.")
        if not any(p.requires_grad for p in task.parameters()):
            raise InputError(
                f"{type(task).__name__} has no trainable parameter. Call requires_grad_(True) on the weights to train."
            )
        known = [*self.columns, *(("views", "boxes", "flipped") if self.pictures is not None else ())]
        missing = [name for name in task.needs if name not in known]
        if missing:
            raise InputError(
                f"{type(task).__name__} requires the columns {', '.join(task.needs)}, got "
                f"{', '.join(known) or 'none'}. Add {', '.join(missing)}."
            )

    def batch(
        self, step: int, batch_size: int, seed: int, pool: ThreadPoolExecutor | None = None, among: Processes = ALONE
    ) -> Batch:
        """Return the batch of a step."""
        epoch, at = divmod(step, self.steps_per_epoch(batch_size))
        order, size, pictures = seed * 1_000_003 + epoch, min(batch_size, self.n_samples), self.pictures
        if self.apart is not None:
            rows = _batches_apart(self.apart, batch_size, order)[at]
        else:
            rows = _order(self.n_samples, order)[at * size : (at + 1) * size]
        first, last = among.share(len(rows))
        if among.world > 1:
            rows = rows[first:last]
        index = asked = rows.tolist()
        found: dict[str, Any] = {}
        if pictures is not None:
            draws = [np.random.default_rng([seed % 2**63, step, place]) for place in range(first, last)]
            index, found = pictures.batch(index, draws, pool)
            rows = torch.tensor(index)
        for name, column in self.columns.items():
            if isinstance(column, Tensor):
                found[name] = column[rows]
            elif name not in found and hasattr(column, "drawn"):
                key = crc32(name.encode())
                place = dict(zip(asked, range(first, last), strict=True))
                own = [np.random.default_rng([seed % 2**63, step, place[i], key]) for i in index]
                found[name] = column.drawn(index, own)
            elif name not in found:
                draw = torch.Generator().manual_seed((seed * 1_000_003 + step + among.rank * 2**40) % 2**63)
                found[name] = column(index, draw) if callable(column) else column[index]
        return Batch(index, found)

    def batches(
        self, steps: Sequence[int], batch_size: int, seed: int, among: Processes = ALONE
    ) -> Generator[Batch, None, None]:
        """Yield the batches of several steps; pictures are decoded one step ahead."""
        if self.pictures is None:
            yield from (self.batch(step, batch_size, seed, None, among) for step in steps)
            return
        with ThreadPoolExecutor(N_THREADS) as pool, ThreadPoolExecutor(1) as ahead:
            coming: Future[Batch] | None = None
            for step in steps:
                now, coming = coming, ahead.submit(self.batch, step, batch_size, seed, pool, among)
                if now is not None:
                    yield now.result()
            if coming is not None:
                yield coming.result()


@lru_cache(maxsize=2)
def _order(n_samples: int, seed: int) -> Int[Tensor, " n"]:
    return torch.randperm(n_samples, generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=4)
def _batches_apart(numbers: Int[Tensor, " n"], batch_size: int, seed: int) -> tuple[Int[Tensor, " b"], ...]:
    generator, found = torch.Generator().manual_seed(seed), []
    for one in numbers.unique().tolist():
        rows = (numbers == one).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        size = min(batch_size, len(rows))
        found += [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
    return tuple(found[i] for i in torch.randperm(len(found), generator=generator).tolist())
