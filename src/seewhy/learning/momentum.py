"""A slow copy of a network, which follows it step by step (BYOL, Grill et al. 2020, arXiv 2006.07733)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


class Slow(nn.Module):
    """An exponential moving average of a network's weights: a task's buffers, so that a checkpoint holds it.

    ``slow = m slow + (1 - m) network`` after each step, with ``m = 1 - (1 - momentum) (cos(pi t / n_steps) + 1) / 2``
    at step ``t``, which rises to 1 (the paper's section 3.3). Buffers of the network, such as running averages, are
    taken over as they are.

    Args:
        network: what is followed; it stays as it is.
        momentum: at the first step.
        n_steps: of the training.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> slow = Slow(network, 0.5, n_steps=2)
        >>> before = float(network.weight)
        >>> _ = network.weight.data.add_(1.0)
        >>> slow.follow(network)
        >>> round(float(slow.network.weight) - before, 4)
        0.5
    """

    step: Tensor

    def __init__(self, network: nn.Module, momentum: float, n_steps: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.momentum, self.n_steps = momentum, n_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        for module in self.network.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    del module._parameters[name]
                    module.register_buffer(name, value.detach().clone())

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    @property
    def rate(self) -> float:
        """``m`` of the next step."""
        share = min(int(self.step) / self.n_steps, 1.0)
        return 1 - (1 - self.momentum) * (math.cos(math.pi * share) + 1) / 2

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """One step towards the network; called once its weights have moved."""
        own = dict(self.network.named_buffers())
        weights = dict(network.named_parameters())
        torch._foreach_lerp_([own[name] for name in weights], [p.detach() for p in weights.values()], 1 - self.rate)
        for name, value in network.named_buffers():
            own[name].copy_(value)
        self.step += 1
