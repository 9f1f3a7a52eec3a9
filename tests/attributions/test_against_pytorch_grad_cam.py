"""Grad-CAM against pytorch-grad-cam and Captum, on one model: theirs is told the layer, ours finds it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM as Peer
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.find import encoder as find
from seewhy.encoders.module import from_module
from seewhy.heads.head import Target
from seewhy.pictures.images import read_picture
from seewhy.types import Transform

SIDE = 128
TRANSFORM = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TARGETS = [0, 3, 7, 9]
Layer = Callable[[nn.Module], nn.Module]


def pixels(n: int = len(TARGETS), side: int = SIDE) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=10).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=10).eval()


def grid(tokens: Tensor) -> Tensor:
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def ours(model: Classifier, batch: Tensor) -> Tensor:
    return GradCAM()(model, model.encoder.encode(batch), Target(torch.tensor(TARGETS[: len(batch)])))


def theirs(module: nn.Module, layer: Layer, batch: Tensor, reshape: Callable | None = None) -> np.ndarray:
    """Their maps; on a copy, since they change gradients and mode of what they are given."""
    twin = copy.deepcopy(module)
    with Peer(twin, [layer(twin)], reshape_transform=reshape) as cam:
        return cam(batch, [ClassifierOutputTarget(t) for t in TARGETS[: len(batch)]])


def correlations(mine: Tensor, peer: np.ndarray) -> list[float]:
    """Of our map, made as theirs is shown (ReLU, 0 to 1, resized), with theirs; maps that are all zero are skipped."""
    shown = scale_cam_image(mine.clamp(min=0).numpy(), (peer.shape[2], peer.shape[1]))
    pairs = [(a, b) for a, b in zip(shown, peer, strict=True) if a.std() > 0 or b.std() > 0]
    return [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]


@pytest.mark.parametrize(
    ("make", "layer", "reshape"),
    [(resnet, lambda m: m.layer4[-1], None), (vit, lambda m: m.blocks[-2], grid)],
    ids=["resnet18", "vit_tiny"],
)
def test_maps_are_pytorch_grad_cams(make: Callable[[], nn.Module], layer: Layer, reshape: Callable | None) -> None:
    module = make()
    model = Pretrained().build(from_module(module, transform=TRANSFORM, engine="torch"))
    found = correlations(ours(model, pixels()), theirs(module, layer, pixels(), reshape))
    assert len(found) >= 2
    assert min(found) >= 0.999


def test_maps_are_captums() -> None:
    module = resnet()
    model = Pretrained().build(from_module(module, transform=TRANSFORM, engine="torch"))
    twin = copy.deepcopy(module)
    peer = LayerGradCam(twin, twin.layer4[-1]).attribute(pixels(), target=TARGETS)[:, 0]
    torch.testing.assert_close(ours(model, pixels()), peer.detach(), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("make", [resnet, vit])
def test_the_model_handed_in_is_left_as_it_was(make: Callable[[], nn.Module]) -> None:
    """What pytorch-grad-cam overwrites: gradients and training mode. And what it needs: gradients switched on."""
    module = make().train()
    for i, p in enumerate(module.parameters()):
        p.requires_grad_(i % 2 == 0)
    first = next(module.parameters())
    first.grad = torch.ones_like(first)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with torch.no_grad():
        model = Pretrained().build(from_module(module, transform=TRANSFORM, engine="torch"))
        assert ours(model, pixels()).any()
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(m.training for m in module.modules())
    assert [p.requires_grad for p in module.parameters()] == [i % 2 == 0 for i in range(len(list(module.parameters())))]
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in list(module.parameters())[1:])
    assert not any(m._forward_hooks or m._backward_hooks for m in module.modules())


def test_the_class_token_block_is_not_an_empty_map() -> None:
    """Behind the last block of a ViT read at its class token, the peer's map is zero without a word; ours is not."""
    module = vit()
    empty = theirs(module, lambda m: m.blocks[-1], pixels(), grid)
    assert not empty.any()
    assert ours(Pretrained().build(from_module(module, transform=TRANSFORM, engine="torch")), pixels()).any()


@pytest.mark.slow
def test_lite0_on_a_photograph(photo: object) -> None:
    encoder = find("lite0", engine="torch")
    model = Pretrained().build(encoder)
    view = read_picture(str(photo), encoder.transform).pixels
    batch = encoder.pixels([view] * len(TARGETS))
    look = encoder.encode(batch[:1])
    best = model.head(look.pooled)[0].topk(4).indices
    mine = GradCAM()(model, encoder.encode(batch), Target(best))
    twin = copy.deepcopy(encoder.module).requires_grad_(True)
    with Peer(twin, [twin.bn2]) as cam:
        peer = cam(batch, [ClassifierOutputTarget(int(t)) for t in best])
    found = correlations(mine, peer)
    assert len(found) == 4
    assert min(found) >= 0.999
