"""The last layers of a trunk by themselves: whatever the network, both parts together are the trunk, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.last_layers import Onwards, last_layers
from seewhy.encoders.module import from_module
from seewhy.encoders.split import same
from seewhy.encoders.timm import split_timm
from seewhy.errors import ModelError
from seewhy.types import Transform
from tiny import SIDE, TRANSFORM, build, noise, tiny_cnn, tiny_tokens


def of_timm(name: str) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, num_classes=4).eval()
    split, classifier = split_timm(network, (SIDE, SIDE), name)
    assert isinstance(classifier, nn.Linear)
    return build(split.trunk, split.head, split.layout, classifier.in_features, classifier=classifier, name=name)


def of_torchvision() -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.resnet18(num_classes=4)
    return from_module(network, transform=TRANSFORM, engine="torch", name="torchvision")


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())


@pytest.mark.parametrize(
    ("make", "n", "convolved", "shape"),
    [
        (tiny_cnn, 1, 1, (8, 8, 8)),
        (tiny_cnn, 9, 1, (8, 8, 8)),  # what is above the first layer
        (lambda: seewhy.encoder("new:resnet/32", engine="torch"), 4, 6, (64, 16, 16)),
        (lambda: of_timm("resnet10t"), 2, 3, None),
        (lambda: of_timm("convnext_atto"), 3, 3, None),
        (lambda: of_timm("mobilenetv3_small_050"), 2, 6, None),
        (of_torchvision, 3, 14, None),
    ],
    ids=("tiny", "all of tiny", "new:resnet", "resnet", "convnext", "mobilenet", "a traced graph"),
)
def test_below_and_behind_are_the_trunk(
    make: Callable[[], Encoder], n: int, convolved: int, shape: tuple[int, ...] | None
) -> None:
    on = make()
    below, rest = last_layers(on, n)
    pixels = torch.randn(2, 3, *on.transform.input_size, generator=torch.Generator().manual_seed(3))
    seen = below.encode(pixels)
    assert seen.features.flatten(1).equal(seen.pooled)
    assert shape is None or tuple(seen.features.shape[1:]) == shape
    assert convolutions(rest) == convolved
    assert same(rest(seen.pooled), on.trunk(pixels))
    assert same(Onwards(below.engine, rest)(pixels), on.encode(pixels).features)
    assert below.fingerprint != on.fingerprint
    assert (below.classifier, below.classes, below.has_text) == (None, (), False)


def test_it_is_bit_for_bit_the_network_in_torch() -> None:
    on = tiny_cnn()
    below, rest = last_layers(on, 1)
    assert torch.equal(rest(below.encode(noise(4)).pooled), on.encode(noise(4)).features)


def test_pictures_that_are_not_square() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 6, 3, 1, 1))
    transform = Transform((32, 48), (32, 48), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    on = build(trunk, GlobalAverage(), Layout(), 6).but(transform=transform)
    (below, rest), pixels = last_layers(on, 1), torch.randn(2, 3, 32, 48)
    assert below.encode(pixels).features.shape == (2, 4, 8, 12)
    assert torch.equal(rest(below.encode(pixels).pooled), trunk(pixels.contiguous(memory_format=torch.channels_last)))


def test_maps_have_their_channels_last_and_every_cut_a_fingerprint_of_its_own() -> None:
    on = seewhy.encoder("new:resnet/32", engine="torch")
    cuts = [last_layers(on, n) for n in (1, 4)]
    for below, rest in cuts:
        seen = rest[0](below.encode(noise(2)).pooled)  # type: ignore[index]
        assert seen.is_contiguous(memory_format=torch.channels_last)
    assert len({on.fingerprint, *(below.fingerprint for below, _ in cuts)}) == 3


def test_weights_of_the_encoder_are_shared_with_nobody() -> None:
    on = tiny_cnn()
    _, rest = last_layers(on, 1)
    before = on.encode(noise(1)).features.clone()
    for parameter in rest.parameters():
        assert not parameter.requires_grad
        parameter.zero_()
    assert torch.equal(on.encode(noise(1)).features, before)


class Around(nn.Module):
    """The pixels go round the only layer before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + x)


@pytest.mark.parametrize("make", [tiny_tokens, lambda: build(Around(), GlobalAverage(), Layout())])
def test_what_cannot_be_cut_is_refused(make: Callable[[], Encoder]) -> None:
    with pytest.raises(ModelError) as caught:
        last_layers(make(), 1)
    assert str(caught.value) == (
        "The last convolutions of 'tiny' cannot be separated, because they do not depend on a single layer. "
        "Choose a convolutional network, or a transformer with a class token."
    )
