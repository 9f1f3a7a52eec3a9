"""Windows and shifted-window learning of the small transformer, against the plain definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.encoders.base import Encoder, larger
from seewhy.encoders.find import encoder
from seewhy.encoders.new import Patches
from seewhy.errors import InputError
from seewhy.seeded import seeded


def made(**how: object) -> Patches:
    with seeded(3):
        return Patches(64, 3, 2, width=16, **how).eval().requires_grad_(False)  # type: ignore[arg-type]


def by_hand(net: Patches, pixels: Tensor, shift: int, n: int) -> Tensor:
    """One pass, window by window."""
    grid = net.patches(pixels)
    rolled = torch.roll(torch.roll(grid, -shift, 2), shift, 3)
    x = rolled.permute(0, 2, 3, 1) + net.places.unflatten(1, (8, 8))
    for i, layer in enumerate(net.layers.layers):
        k = 1 if i == 2 else n
        out, side = torch.empty_like(x), 8 // k
        for r in range(k):
            for c in range(k):
                rows, columns = slice(r * side, (r + 1) * side), slice(c * side, (c + 1) * side)
                window = x[:, rows, columns]
                out[:, rows, columns] = layer(window.flatten(1, 2)).unflatten(1, window.shape[1:3])
        x = out
    return torch.roll(torch.roll(x, shift, 1), -shift, 2)


PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("windows", "shifts"), [(1, (0,)), (2, (0,)), (2, (0, 2)), (4, (0, 1))])
def test_as_by_hand(windows: int, shifts: tuple[int, ...]) -> None:
    net = made(windows=windows, shifts=shifts)
    wanted = net.norm(torch.stack([by_hand(net, PIXELS, s, windows) for s in shifts]).mean(0)).permute(0, 3, 1, 2)
    torch.testing.assert_close(net(PIXELS), wanted, rtol=0, atol=1e-5)


def test_windows_do_not_see_one_another_before_the_layer_that_sees_all() -> None:
    net = made(windows=2)
    net.layers.layers = net.layers.layers[:2]
    other = PIXELS.clone()
    other[:, :, 40:, 40:] += 1
    changed = (net(PIXELS) - net(other)).abs().amax((0, 1)) > 1e-6
    assert changed[4:, 4:].all()
    assert int(changed.sum()) == 16


@pytest.mark.parametrize("shifts", [(0,), (0, 1)])
def test_a_larger_picture_stretches_places_and_shifts(shifts: tuple[int, ...]) -> None:
    """As a network whose places are those, with windows and shifts of twice the cells."""
    with seeded(3):
        small = Patches(64, 3, 2, width=16, windows=2, shifts=shifts).eval().requires_grad_(False)
    large = Patches(128, 3, 2, width=16, windows=2, shifts=tuple(2 * s for s in shifts)).eval()
    own = small.places[0].T.unflatten(1, (8, 8))[None]
    stretched = torch.nn.functional.interpolate(own, size=(16, 16), mode="bilinear", align_corners=False)
    large.load_state_dict({**small.state_dict(), "places": stretched.flatten(2).transpose(1, 2)})
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(small(pixels), large(pixels))


def test_the_encoder_looks_at_larger_pictures() -> None:
    """As a detector does, at twice its side by default."""
    grown = larger(encoder("new:vit_swl/32", engine="torch"), 2.0)
    assert grown.forward_features(torch.zeros(1, 3, 64, 64)).shape == (1, 256, 16, 16)


def test_the_encoder_and_what_it_refuses() -> None:
    small: Encoder = encoder("new:vit_swl/32")
    plain: Encoder = encoder("new:vit/32")
    assert small.fingerprint != plain.fingerprint
    assert small.trunk.shifts == (0, 2)  # type: ignore[comparison-overlap]
    assert all(torch.equal(a, b) for a, b in zip(small.trunk.parameters(), plain.trunk.parameters(), strict=True))
    seen = small.trunk(PIXELS[:, :, :32, :32])
    assert seen.shape == (2, 256, 8, 8)
    with pytest.raises(InputError) as caught:
        made(windows=3)
    assert str(caught.value) == ("`side` must be a multiple of 24 pixels for 3 x 3 windows, got 64.")
