"""What each step of a training is shown, read a step ahead, by one process or by several that ``torchrun`` starts."""

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
"""That decode pictures while a step computes."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def joined(cls) -> Processes:
        """The processes that ``torchrun`` started or that the caller has joined; otherwise this one alone."""
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
        """The range of a batch's samples that this process computes: the first, and one past the last."""
        each, more = divmod(n, self.world)
        first = self.rank * each + min(self.rank, more)
        return first, first + each + (self.rank < more)

    def agree(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Let all processes begin with the weights of the first; called after each has read an earlier run's
        checkpoint.
        """
        if self.world == 1:
            return
        steps = sizes_of(step)
        if len(set(steps)) > 1:
            raise DataError(
                f"The processes would go on from different steps: {', '.join(map(str, steps))}. Expected one "
                "checkpoint that all of them can read. Keep it where every machine sees it."
            )
        for value in tensors.values():
            dist.broadcast(value, 0)

    def average(
        self, parameters: Sequence[Tensor], terms: Mapping[str, Tensor], n: int, *, stop: bool = False
    ) -> tuple[dict[str, Tensor], bool]:
        """Exchange at once: the batch's gradients and terms, and whether any process was asked to stop."""
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
    """Rows of all processes, one after another; a row's gradient is the sum of what every process makes of it."""

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
    """The number that each process contributes."""
    if not (dist.is_available() and dist.is_initialized()):
        return [n]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor([n], device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


def gathered(own: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Rows from all processes with gradients, and which rows belong to this one; every process must call it."""
    sizes = sizes_of(len(own))
    if len(sizes) == 1:
        return own, (0, len(own))
    first = sum(sizes[: dist.get_rank()])
    whole: Tensor = _Gather.apply(own, sizes)
    return whole, (first, first + len(own))


ALONE = Processes()


@dataclass(frozen=True)
class Batch:
    """The samples of a step."""

    index: list[int]
    columns: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.index)

    def parts(self, size: int) -> list[Batch]:
        """The samples in pieces of this size."""
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
"""A tensor, or anything else that a list of positions indexes; a function of positions and a ``torch.Generator``; an
object whose ``drawn`` takes positions and a ``numpy`` generator of each, such as
:class:`~seewhy.learning.contrast.Drawn`; or :class:`~seewhy.training.augmentation.TrainingPictures`."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The samples that a task learns from.

    Attributes:
        n_samples: number of samples.
        columns: for each name the values of all samples, in order; see :data:`Column`. Pictures that are decoded again
            for every step are the column ``"pixels"``.
        apart: a number for each sample, if every batch must hold samples of a single number; the batches come in mixed
            order.
    """

    n_samples: int
    columns: Mapping[str, Column]
    apart: Int[Tensor, " n"] | None = None

    def steps_per_epoch(self, batch_size: int) -> int:
        """The number of whole batches in an epoch; samples that fill no whole batch are left out."""
        if self.apart is None:
            return self.n_samples // min(batch_size, self.n_samples)
        return sum(n // min(batch_size, n) for n in self.apart.unique(return_counts=True)[1].tolist())

    @property
    def pictures(self) -> TrainingPictures | None:
        """The column that decodes pictures, if there is one."""
        found = self.columns.get("pixels")
        return found if isinstance(found, TrainingPictures) else None

    def check(self, task: Task) -> None:
        """Raise an ``InputError`` if there are no samples, if the task needs others, or if nothing learns."""
        if self.n_samples < 1:
            raise InputError("There is nothing to train on. Expected at least one sample. Give some.")
        if not any(p.requires_grad for p in task.parameters()):
            raise InputError(
                f"{type(task).__name__} has no weight that may change. Expected at least one. Call "
                "requires_grad_(True) on the weights that should learn."
            )
        known = [*self.columns, *(("views", "boxes", "flipped") if self.pictures is not None else ())]
        missing = [name for name in task.needs if name not in known]
        if missing:
            raise InputError(
                f"{type(task).__name__} was given {', '.join(known) or 'nothing'} of each sample. Expected "
                f"{', '.join(task.needs)}. Add {', '.join(missing)}."
            )

    def batch(
        self, step: int, batch_size: int, seed: int, pool: ThreadPoolExecutor | None = None, among: Processes = ALONE
    ) -> Batch:
        """The batch of a step."""
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
        """The batches of several steps; the next one's pictures are decoded while the caller computes."""
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
    """Of an epoch; kept, for it is asked at every step."""
    return torch.randperm(n_samples, generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=4)
def _batches_apart(numbers: Int[Tensor, " n"], batch_size: int, seed: int) -> tuple[Int[Tensor, " b"], ...]:
    """Those of an epoch, each of samples with one number."""
    generator, found = torch.Generator().manual_seed(seed), []
    for one in numbers.unique().tolist():
        rows = (numbers == one).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        size = min(batch_size, len(rows))
        found += [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
    return tuple(found[i] for i in torch.randperm(len(found), generator=generator).tolist())
