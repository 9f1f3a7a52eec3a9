"""A small network and pictures that are the same in every version of torch: their numbers are sines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sines(*shape: int, shift: float = 0.0) -> Tensor:
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 1.7 + shift).reshape(shape).float()


def waves_network() -> nn.Module:
    """Two stages, a mean, and one linear layer."""
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    for i, parameter in enumerate(model.parameters()):
        parameter.data = sines(*parameter.shape, shift=i) * (0.5 if parameter.ndim > 1 else 0.2)
    return model.eval()


class Aside(nn.Module):
    """One of its layers is run, and nothing reads what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.last = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.last(self.used(x).mean((2, 3)))
