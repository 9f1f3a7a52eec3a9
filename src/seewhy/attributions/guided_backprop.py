"""Guided backpropagation (Springenberg et al. 2015, arXiv 1412.6806): gradients pass rectifiers only where positive.

It acts on the calls a network makes, not on its modules: nothing of the model is exchanged, so nothing is put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

RECTIFIERS: tuple[Any, ...] = (
    functional.relu,
    functional.relu_,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    functional.relu6,
    functional.hardtanh,
    functional.silu,
    functional.gelu,
)
"""ReLU as in the paper, and those that stand in its place: ReLU6, SiLU, GELU."""


class GuidedBackprop(TorchFunctionMode):
    """Within it, a negative gradient ends at every rectifier; the rectifier's own derivative then acts as always.

    Behind a ReLU that is the paper's rule: pass where the input was positive and the gradient is. Of SiLU and GELU,
    whose derivative is not 0 for negative input, only the second half holds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in RECTIFIERS and out.requires_grad:
            out.register_hook(lambda gradient: gradient.clamp(min=0))
        return out
