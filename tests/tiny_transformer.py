"""A vision transformer of timm's own class, small and with weights from a formula: no seed, no download."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from seewhy.encoders.base import Encoder
from seewhy.encoders.timm import split_timm
from tiny import SIDE, build


def tiny_network(**options: Any) -> VisionTransformer:
    """Three blocks of two heads over 4 by 4 patches, width 16, four classes."""
    given = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 4}
    network = VisionTransformer(**given | options)
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + i).float()
            parameter.copy_(0.5 * wave.reshape(parameter.shape))
    return network.eval()


def tiny_vit(network: VisionTransformer | None = None, text: Any = None, **options: Any) -> Encoder:
    """An encoder of it, as ``timm:`` names make one."""
    network = network or tiny_network(**options)
    split, classifier = split_timm(network, (SIDE, SIDE), "tiny vit")
    assert isinstance(classifier, nn.Linear)
    return build(split.trunk, split.head, split.layout, 16, classifier=classifier, name="tiny vit", text=text)


def waves(n: int = 2) -> Tensor:
    """Pixels from a formula."""
    return torch.sin(torch.arange(n * 3 * SIDE * SIDE, dtype=torch.float64) ** 1.3).float().reshape(n, 3, SIDE, SIDE)
