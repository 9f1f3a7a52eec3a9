"""Seeded random numbers that leave torch's global generators unchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def seeded(seed: int) -> AbstractContextManager[Any]:
    """Draw this thread's random numbers of torch from seeded generators of their own, as ``manual_seed`` would.

    torch's global generators are neither used nor moved, so other threads can draw from them at the same time. Every
    operation costs some microseconds more; backward passes need no draws and stay outside.
    """
    return _OwnGenerators(seed)


class _OwnGenerators(TorchDispatchMode):
    """Passes a generator to every random operation; cuDNN's and fused attention's dropout on a GPU take none."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        device = kwargs.get("device") or next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))
        if device.type == "meta":
            return func(*args, **kwargs)
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        own = self.generators[device]
        if func is torch.ops.aten.native_dropout.default and args[2] is not False:  # a GPU's fused kernel
            kept = torch.empty_like(args[0], dtype=torch.bool).bernoulli_(1 - args[1], generator=own)
            return args[0] * kept / (1 - args[1] or 1), kept
        func = _with_generator(func)
        return func(*args, **kwargs, **({"generator": own} if _takes(func) else {}))


def _takes(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)


def _with_generator(func: Any) -> Callable[..., Any]:
    """Return the overload that takes a generator, if there is one."""
    name = func._overloadname.removeprefix("default")
    other = getattr(func.overloadpacket, f"{name}_generator" if name else "generator", func)
    return func if _takes(func) else other
