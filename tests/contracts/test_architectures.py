"""What every architecture is held to, with random weights: the network's own numbers, and maps of the right size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.shares import cell_evidence, shares
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import EncoderOutput
from seewhy.encoders.module import from_module
from seewhy.encoders.split import example_pixels, freeze
from seewhy.encoders.timm import encoder_of
from seewhy.heads.head import Target
from seewhy.types import Transform

TARGET = Target(torch.tensor([0, 3, 4]))
VIT: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SQUARE, WIDE = (64, 64), (64, 96)

# name → options, size of the picture, grid of the map
TIMM: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, int]]] = {
    "swin_tiny_patch4_window7_224": (
        {"img_size": WIDE, "embed_dim": 12, "depths": (1, 1, 1, 1), "window_size": 2}, WIDE, (2, 3)
    ),
    "swinv2_cr_tiny_224": ({"img_size": SQUARE, "embed_dim": 12, "depths": (1, 1, 1, 1)}, SQUARE, (2, 2)),
    "convnext_atto": ({"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, WIDE, (2, 3)),
    "densenet121": ({"growth_rate": 8, "block_config": (2, 2, 2, 2)}, WIDE, (2, 3)),
    "vit_tiny_patch16_224": ({"img_size": WIDE, **VIT}, WIDE, (4, 6)),
    "deit3_small_patch16_224": ({"img_size": SQUARE, **VIT}, SQUARE, (4, 4)),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56, **VIT}, (56, 56), (4, 4)),
    "vit_base_patch16_clip_224": ({"img_size": WIDE, **VIT}, WIDE, (4, 6)),
    "vit_base_patch16_siglip_224": ({"img_size": WIDE, **VIT}, WIDE, (4, 6)),
    "vit_small_patch16_dinov3": ({"img_size": WIDE, **VIT}, WIDE, (4, 6)),
    "eva02_tiny_patch14_224": ({"img_size": 56, **VIT}, (56, 56), (4, 4)),
    "beit_base_patch16_224": ({"img_size": SQUARE, **VIT}, SQUARE, (4, 4)),
    "convit_tiny": ({"img_size": SQUARE, **VIT, "depth": 3, "local_up_to_layer": 1}, SQUARE, (4, 4)),
    "cait_xxs24_224": ({"img_size": SQUARE, **VIT}, SQUARE, (4, 4)),
    "xcit_nano_12_p16_224": ({**VIT}, WIDE, (4, 6)),
    "samvit_base_patch16": ({"img_size": SQUARE, **VIT}, SQUARE, (4, 4)),
    "mixer_s32_224": ({"img_size": 128}, (128, 128), (4, 4)),
    "pvt_v2_b0": ({}, WIDE, (2, 3)),
    "focalnet_tiny_srf": ({}, WIDE, (2, 3)),
    "edgenext_xx_small": ({}, WIDE, (2, 3)),
    "regnetx_002": ({}, WIDE, (2, 3)),
    "resnest14d": ({}, WIDE, (2, 3)),
    "hgnetv2_b0": ({}, WIDE, (2, 3)),
    "mobilenetv4_conv_small_050": ({}, WIDE, (2, 3)),
    "gcvit_xxtiny": ({"img_size": SQUARE}, SQUARE, (2, 2)),
    "poolformer_s12": ({}, WIDE, (2, 3)),
    "visformer_tiny": ({"img_size": SQUARE}, SQUARE, (2, 2)),
    "tiny_vit_5m_224": ({}, WIDE, (2, 3)),
    "coatnet_nano_rw_224": ({"img_size": SQUARE}, SQUARE, (2, 2)),
    "maxvit_rmlp_pico_rw_256": ({"img_size": SQUARE}, SQUARE, (2, 2)),
    "mobilevit_xxs": ({}, WIDE, (2, 3)),
    "inception_next_atto": ({}, WIDE, (2, 3)),
    "efficientvit_b0": ({}, WIDE, (2, 3)),
    "starnet_s050": ({}, WIDE, (2, 3)),
    "mambaout_femto": ({}, WIDE, (2, 3)),
    "ghostnet_050": ({}, WIDE, (2, 3)),
    "lcnet_035": ({}, WIDE, (2, 3)),
    "rexnetr_200": ({}, WIDE, (2, 3)),
    "test_nfnet": ({}, WIDE, (2, 3)),
    "test_efficientnet": ({}, WIDE, (2, 3)),
    "tf_efficientnetv2_b0": ({}, WIDE, (2, 3)),
    "davit_tiny": ({"embed_dims": (16, 16, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)}, WIDE, (2, 3)),
    "nest_tiny": ({"img_size": SQUARE}, SQUARE, (4, 4)),
    "pit_ti_224": ({"img_size": SQUARE}, SQUARE, (2, 2)),
    "twins_pcpvt_small": ({}, WIDE, (2, 3)),
    "fastvit_t8": ({}, WIDE, (2, 3)),
    "nextvit_small": ({}, WIDE, (2, 3)),
    # The last layer is a convolution; a batch norm and a linear layer; two linear layers; a linear layer in a part of
    # the head; two linear layers behind tokens.
    "resnetv2_18": ({"layers": (1, 1, 1, 1)}, WIDE, (2, 3)),
    "efficientvit_m0": ({"img_size": 128}, (128, 128), (2, 2)),
    "swiftformer_xs": ({}, WIDE, (2, 3)),
    "cpubone_nano": ({}, WIDE, (2, 3)),
    "efficientformer_l1": ({}, (224, 224), (7, 7)),
}  # fmt: skip
SLOW = {"mixer_s32_224", "twins_pcpvt_small", "nextvit_small", "fastvit_t8", "nest_tiny", "googlenet", "inception_v3"}
SLOW |= {
    "pit_ti_224",
    "focalnet_tiny_srf",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "alexnet",
    "vgg11",
    "efficientnet_v2_s",
    "rexnetr_200",
    "efficientformer_l1",
    "tf_efficientnetv2_b0",
}

torch_models = torchvision.models
TORCHVISION: dict[str, tuple[Callable[..., nn.Module], str | None, tuple[int, int], tuple[int, int]]] = {
    "swin": (lambda: torch_models.SwinTransformer([4, 4], 16, [1] * 3, [2] * 3, [2, 2]), None, WIDE, (4, 6)),
    "swin block": (
        lambda: torch_models.SwinTransformer([4, 4], 16, [1] * 3, [2] * 3, [2, 2]), "features.5", WIDE, (4, 6)
    ),
    "vit": (lambda: torch_models.VisionTransformer(64, 16, 3, 2, 32, 64), None, SQUARE, (4, 4)),
    "convnext": (
        lambda: torch_models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]), None, WIDE, (8, 12)
    ),
    "densenet": (lambda: torch_models.DenseNet(8, (2, 2), 16), None, WIDE, (8, 12)),
    "maxvit": (lambda: torch_models.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 8, 0.0), None, SQUARE, (8, 8)),
    "mobilenet_v3_small": (torch_models.mobilenet_v3_small, None, WIDE, (2, 3)),
    "shufflenet_v2_x0_5": (torch_models.shufflenet_v2_x0_5, None, WIDE, (2, 3)),
    "resnet18": (torch_models.resnet18, "layer3", WIDE, (4, 6)),
    "regnet_y_400mf": (torch_models.regnet_y_400mf, None, WIDE, (2, 3)),
    "efficientnet_v2_s": (torch_models.efficientnet_v2_s, None, WIDE, (2, 3)),
    "googlenet": (lambda: torch_models.googlenet(init_weights=False), None, WIDE, (2, 3)),
    "inception_v3": (lambda: torch_models.inception_v3(init_weights=False), None, (107, 107), (2, 2)),
    "alexnet": (torch_models.alexnet, None, WIDE, (6, 6)),
    "vgg11": (torch_models.vgg11, None, WIDE, (7, 7)),
}  # fmt: skip


def marked(names: Any) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


def random(module: nn.Module) -> nn.Module:
    """Weights of a size that matters: many start at zero, or at 1e-5."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def close(one: Tensor, other: Tensor, part: float) -> bool:
    """Equal but for a part of the largest."""
    return one.shape == other.shape and bool((one - other).abs().max() <= part * other.abs().max())


def hold(encoder: Any, module: nn.Module, size: tuple[int, int], grid: tuple[int, int]) -> None:
    pixels = example_pixels(size, 3, 4)
    look = encoder.encode(pixels)
    assert look.features.dtype == look.pooled.dtype == torch.float32
    with torch.no_grad():
        # visformer's own numbers are known to 1e-4 with these weights: another order of its sums rounds them so.
        assert close(encoder.classifier(look.pooled), module(pixels), 1e-3)
    model = Pretrained().build(encoder)
    sign = torch.randn(look.features.shape, generator=torch.Generator().manual_seed(2)).sign()
    moved = EncoderOutput(look.features * (1 + 1e-6 * sign), look.pooled)
    for explain in (GradCAM(), cell_evidence):
        maps = explain(model, look, TARGET)
        assert maps.shape == (3, *grid)
        assert maps.isfinite().all()
        assert (maps.flatten(1).abs().amax(1) > 0).all()
        assert torch.equal(explain(model, look, TARGET), maps)
        assert close(explain(model, moved, TARGET), maps, 1e-3)
        singly = [explain(model, encoder.encode(pixels[i : i + 1]), Target(TARGET.index[i : i + 1])) for i in range(3)]
        assert close(torch.cat(singly), maps, 1e-3)
    share = shares(cell_evidence(model, look, TARGET))
    assert ((share >= 0) & (share <= 1)).all()
    speaks = (cell_evidence(model, look, TARGET) > 0).flatten(1).any(1)
    assert ((share.sum((1, 2)) - speaks.float()).abs() < 1e-4).all()


@pytest.mark.parametrize("name", marked(TIMM))
def test_of_timm(name: str) -> None:
    options, size, grid = TIMM[name]
    torch.manual_seed(0)
    module = random(timm.create_model(name, num_classes=5, **options))
    transform = Transform(size, size, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    hold(encoder_of(freeze(module), name, engine="torch", transform=transform), module, size, grid)


@pytest.mark.parametrize("name", marked(TORCHVISION))
def test_of_torchvision(name: str) -> None:
    make, layer, size, grid = TORCHVISION[name]
    torch.manual_seed(0)
    module = random(make())
    transform = Transform(size, size, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    hold(from_module(module, target_layer=layer, transform=transform, engine="torch"), module, size, grid)
