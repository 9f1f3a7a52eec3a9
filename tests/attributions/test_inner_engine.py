"""Before an inner layer the encoder's own engine runs: the same numbers as all of it in torch."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from seewhy.attributions import layers as inner_engine
from seewhy.attributions.layers import inner_cut, layer_alone, layer_and_gradient
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder
from seewhy.encoders.module import from_module
from seewhy.errors import EngineError, UnknownNameError
from seewhy.heads.head import Target
from seewhy.types import Transform

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed"
)
TRANSFORM = Transform((32, 32), (32, 32), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PIXELS = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGET = Target(torch.tensor([0, 1, 2, 0, 1, 2]))


class Residual(nn.Module):
    """A stem, a block with a way around it, a last block, a mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
        self.inside = nn.Conv2d(8, 8, 3, 1, 1)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 1, 1))
        self.last = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.Tanh())
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.inside(x)
        return self.fc(self.last(self.block(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def pair() -> tuple[Encoder, Encoder]:
    torch.manual_seed(0)
    network = Residual().eval()

    def made(engine: str) -> Encoder:
        return from_module(network, target_layer="last", transform=TRANSFORM, classes=list("abc"), engine=engine)

    return made("torch"), made("openvino:f32")


@pytest.mark.parametrize(("layer", "is_cut"), [("stem", False), ("inside", False), ("block", False), ("block.0", True)])
def test_the_same_as_in_torch(pair: tuple[Encoder, Encoder], layer: str, is_cut: bool) -> None:
    plain, fast = (Pretrained().build(encoder) for encoder in pair)
    assert inner_cut(plain.encoder, layer) is None
    found = inner_cut(fast.encoder, layer)
    assert (found is not None) is is_cut
    assert inner_cut(fast.encoder, layer) is found, "made once"
    if found is not None:
        assert found.front.name == "openvino"
        assert found.front.precision == "float32"
    looks = [c.encoder.encode(PIXELS) for c in (plain, fast)]
    both = [layer_and_gradient(c, look, TARGET, layer) for c, look in zip((plain, fast), looks, strict=True)]
    for ours, theirs in zip(both[1], both[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        layer_alone(fast, looks[1], layer), layer_alone(plain, looks[0], layer), atol=1e-5, rtol=1e-4
    )
    assert not any(p.grad is not None for p in fast.encoder.trunk.parameters())


def test_an_unknown_layer_is_named_as_before(pair: tuple[Encoder, Encoder]) -> None:
    model = Pretrained().build(pair[1])
    with pytest.raises(UnknownNameError, match="blok"):
        layer_alone(model, model.encoder.encode(PIXELS), "blok")


def test_what_does_not_convert_is_read_in_torch(pair: tuple[Encoder, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("No.")

    monkeypatch.setattr(inner_engine, "make_engine", refuse)
    monkeypatch.setattr(inner_engine, "_cuts", type(inner_engine._cuts)())
    assert inner_cut(pair[1], "block") is None


def test_windows_are_not_taken_for_pictures(pair: tuple[Encoder, Encoder]) -> None:
    class Windows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.unfold(2, 16, 16).unfold(3, 16, 16).reshape(-1, 3, 16, 16)

    assert not inner_engine._is_row_by_row(pair[1], Windows())
    assert inner_engine._is_row_by_row(pair[1], nn.Identity())
