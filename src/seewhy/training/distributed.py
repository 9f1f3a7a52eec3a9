"""Several processes that train one task, as ``torchrun`` starts them: each has a part of every batch."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import DataError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def joined(cls) -> Processes:
        """Those that ``torchrun`` started, or that the caller has joined already; one where nobody did."""
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
        """First of the samples of a batch that are this process's, and the one behind the last."""
        each, more = divmod(n, self.world)
        first = self.rank * each + min(self.rank, more)
        return first, first + each + (self.rank < more)

    def agree(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """All begin with what the first has; called when each has read what an earlier run left."""
        if self.world == 1:
            return
        steps = sizes_of(step)
        if len(set(steps)) > 1:
            raise DataError(
                f"The processes would go on from different steps: {', '.join(map(str, steps))}. One checkpoint that "
                "all of them can read was expected. Keep it where every machine sees it."
            )
        for value in tensors.values():
            dist.broadcast(value, 0)

    def average(
        self, parameters: Sequence[Tensor], terms: Mapping[str, Tensor], n: int, *, stop: bool = False
    ) -> tuple[dict[str, Tensor], bool]:
        """Gradients and terms of the whole batch, and whether any process is asked to stop, in one exchange."""
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
    """The number that each process gives."""
    if not (dist.is_available() and dist.is_initialized()):
        return [n]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor([n], device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


def gathered(own: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Rows of all processes, each of which must call it, with gradients, and which of them are this one's."""
    sizes = sizes_of(len(own))
    if len(sizes) == 1:
        return own, (0, len(own))
    first = sum(sizes[: dist.get_rank()])
    whole: Tensor = _Gather.apply(own, sizes)
    return whole, (first, first + len(own))
