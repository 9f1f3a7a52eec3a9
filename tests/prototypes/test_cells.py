"""Cells whose mean is the pooled vector, on the heads of torchvision's and timm's networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from seewhy.encoders.base import Encoder
from seewhy.encoders.module import from_module
from seewhy.encoders.split import example_pixels
from seewhy.errors import InputError
from seewhy.prototypes.cells import cells_of, unpooled
from seewhy.types import Transform

TRANSFORM = Transform((64, 64), (64, 64), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
MEANS: dict[str, Callable[[], nn.Module]] = {
    "convnext": lambda: torchvision.models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 16),
    "swin": lambda: torchvision.models.SwinTransformer([4, 4], 16, [1, 1, 1], [2, 2, 4], [2, 2]),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050"),
}


def encoder_of(module: nn.Module) -> Encoder:
    for parameter in module.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return from_module(module.eval(), transform=TRANSFORM, engine="torch")


class Explained:
    """All that cells need of a classifier."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder


@pytest.mark.parametrize("name", ["convnext", "densenet", "swin"])
def test_the_mean_of_the_cells_is_the_pooled_vector(name: str) -> None:
    torch.manual_seed(0)
    encoder = encoder_of(MEANS[name]())
    look = encoder.encode(example_pixels((64, 64), 2, 4))
    cells: Tensor = cells_of(Explained(encoder), look.features)  # type: ignore[arg-type]
    assert cells.shape[2:] == encoder.layout.to_grid(look.features).shape[2:]
    torch.testing.assert_close(cells.mean((2, 3)), look.pooled, rtol=1e-4, atol=1e-5)
    assert cells.std((2, 3)).min() >= 0
    assert cells.std() > 1e-3


def test_a_layer_that_bends_behind_the_mean_is_refused_in_one_sentence() -> None:
    torch.manual_seed(0)
    encoder = encoder_of(MEANS["mobilenet"]())
    features = encoder.encode(example_pixels((64, 64), 2, 4)).features
    with pytest.raises(InputError) as caught:
        unpooled(encoder, features)
    assert str(caught.value) == (
        "EPIC needs an encoder that pools by the mean, with or without a layer norm, got GraphModule of 'module'. "
        "Use --like nearest."
    )
