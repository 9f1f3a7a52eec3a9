"""float32 as the default type of one thread, while the process has another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PLAIN = frozenset({
    torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace,
    torch.empty_strided, torch.empty_permuted, torch.hann_window, torch.fft.fftfreq, torch.normal,
})  # fmt: skip
"""Functions whose result has the default type."""
_OF_VALUES = frozenset({torch.full, torch.arange, torch.range, torch.tensor, torch.as_tensor, torch.scalar_tensor})
"""Functions whose result has the default type if they are given a Python float."""
_OTHERWISE = frozenset({torch.from_numpy, torch.frombuffer, Tensor.double, Tensor.view})
"""Functions whose result has a type of their own."""


class Float32(TorchFunctionMode):
    """Makes float32 where torch would take the default type; ``torch.set_default_dtype`` would change other threads."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "dtype" or value is not None}
        leaves = [*_leaves([*args, *kwargs.values()])]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if any(isinstance(leaf, torch.dtype) for leaf in leaves) or func in _OTHERWISE or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        if func in _PLAIN and not tensors:
            return func(*args, **kwargs, dtype=torch.float32)
        if func in _OF_VALUES and (not leaves or (not tensors and any(type(leaf) is float for leaf in leaves))):
            return func(*args, **kwargs, dtype=torch.float32)
        whole = bool(tensors) and not any(t.is_floating_point() or t.is_complex() for t in tensors)
        result = func(*args, **kwargs)
        return result.float() if whole and isinstance(result, Tensor) and result.dtype == torch.float64 else result


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value
