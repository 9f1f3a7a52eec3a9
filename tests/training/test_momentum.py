"""The slow copy: its path by hand, all of it in a checkpoint, and nothing of it that learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seewhy.learning.pretrain import Slow


def test_it_follows_ever_more_slowly() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    slow, expected = Slow(network, 0.6, n_steps=4), 0.0
    network.weight.data.fill_(1.0)
    for t in range(6):
        m = 1 - 0.4 * (math.cos(math.pi * min(t / 4, 1)) + 1) / 2
        assert slow.rate == pytest.approx(m)
        slow.follow(network)
        expected = m * expected + (1 - m) * 1.0
        assert slow.network.weight.item() == pytest.approx(expected)
    assert slow.rate == 1.0


def test_without_momentum_it_is_the_network() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    slow = Slow(network, 0.0, n_steps=10)
    network[0].weight.data += 1
    network(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    slow.follow(network)
    assert torch.equal(slow.network[0].weight, network[0].weight)
    assert torch.equal(slow.network[1].running_mean, network[1].running_mean)


def test_it_is_buffers_alone_and_gives_no_gradient() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    slow = Slow(network, 0.9, n_steps=10)
    assert [*slow.parameters()] == []
    assert {name.removeprefix("network.") for name in slow.state_dict()} == {*network.state_dict(), "step"}
    x = torch.ones(1, 2, requires_grad=True)
    torch.testing.assert_close(slow(x), network(x))
    assert not slow(x).requires_grad
    assert network[0].weight.requires_grad
