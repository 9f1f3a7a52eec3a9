"""The pyramid: which maps it takes, what it makes of them, and trunks without stages."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from seewhy.encoders.base import Layout
from seewhy.encoders.find import encoder
from seewhy.encoders.new import Residual
from seewhy.errors import ModelError
from seewhy.learning.encoders.pyramid import Pyramid, stages_of

PIXELS = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def trunk() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), Residual(8, 16, 2), Residual(16, 24, 2), Residual(24, 8, 1)
        ).eval()


def pyramid(width: int = 4, n_levels: int = 3) -> Pyramid:
    made = trunk()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Pyramid(made, Layout(), stages_of(made, Layout(), (32, 48), n_levels), width)


def test_stages_are_the_last_map_of_every_size_and_the_trunks_own() -> None:
    found = stages_of(trunk(), Layout(), (32, 48))
    assert [(s.layer, s.width, s.grid) for s in found] == [("0", 8, (16, 24)), ("1", 16, (8, 12)), ("", 8, (4, 6))]
    assert [s.layer for s in stages_of(trunk(), Layout(), (32, 48), 2)] == ["1", ""]


def test_each_level_is_its_stage_and_what_the_coarser_ones_know() -> None:
    made, own = pyramid(), trunk()
    first = own[0](PIXELS)
    second = own[1](first)
    last = own[3](own[2](second))
    coarse = made.across[2](last)
    middle = made.across[1](second) + interpolate(coarse, (8, 12))
    fine = made.across[0](first) + middle.repeat_interleave(2, 2).repeat_interleave(2, 3)
    made.train()
    levels = made.levels(PIXELS)
    for found, layer, wanted in zip(levels, made.out, (fine, middle, coarse), strict=True):
        rows = layer[0](wanted)
        centred = rows - rows.mean((0, 2, 3), keepdim=True)
        deviation = centred.square().mean((0, 2, 3), keepdim=True).add(1e-5).sqrt()
        torch.testing.assert_close(found, centred / deviation, rtol=1e-4, atol=1e-5)
    assert torch.equal(made(PIXELS), levels[0])
    assert [layer.kernel_size for layer in (*made.across, *(out[0] for out in made.out))] == [(1, 1)] * 3 + [(3, 3)] * 3


def test_gradients_reach_every_stage_and_nothing_of_the_look_remains() -> None:
    made = pyramid()
    made.levels(PIXELS)[0].square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.trunk.parameters())
    assert not any(m._forward_hooks for m in made.modules())
    twin = copy.deepcopy(made)
    assert torch.equal(twin(PIXELS), made(PIXELS))


def test_maps_with_channels_last_are_turned() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 3, 1, 2)

    norm = nn.LayerNorm(6)
    made = nn.Sequential(nn.Conv2d(3, 6, 4, 4), Last(), norm, First(), nn.Conv2d(6, 5, 2, 2)).eval()
    found = stages_of(made, Layout(), (32, 48))
    assert [(s.kind, s.width, s.grid) for s in found] == [("nchw", 6, (8, 12)), ("nchw", 5, (4, 6))]
    ends = nn.Sequential(nn.Conv2d(3, 6, 4, 4), Last(), norm).eval()
    whole = nn.Sequential(ends, nn.Sequential(First(), nn.Conv2d(6, 5, 2, 2), Last())).eval()
    levels = Pyramid(whole, Layout("nhwc"), stages_of(whole, Layout("nhwc"), (32, 48)), 3).levels(PIXELS)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 8, 12), (2, 3, 4, 6)]


def test_a_trunk_without_stages_is_refused() -> None:
    flat = encoder("new:vit")
    with pytest.raises(ModelError) as caught:
        Pyramid.on(flat)
    assert str(caught.value) == (
        "A pyramid needs feature maps of several sizes, but all maps of this encoder have 12 x 12 "
        "patches. Use a convolutional network, or train without a pyramid."
    )


def test_on_an_encoder_it_is_on_a_copy() -> None:
    on = encoder("new:resnet")
    made = Pyramid.on(on, 16)
    assert [s.grid for s in made.stages] == [(24, 24), (12, 12), (6, 6)]
    made.trunk.requires_grad_(True)
    assert not any(p.requires_grad for p in on.trunk.parameters())
    assert made(torch.zeros(1, 3, 96, 96)).shape == (1, 16, 24, 24)
