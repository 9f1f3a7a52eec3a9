"""Calls as users of pytorch-grad-cam write them."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from pytorch_grad_cam import GradCAM as Peer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor, nn
from waves import Aside

from seewhy import compat
from seewhy.errors import InputError

SIDE = 96
ALL = [
    compat.AblationCAM,
    compat.EigenCAM,
    compat.EigenGradCAM,
    compat.FEM,
    compat.FinerCAM,
    compat.FullGrad,
    compat.GradCAM,
    compat.GradCAMElementWise,
    compat.GradCAMPlusPlus,
    compat.HiResCAM,
    compat.KPCA_CAM,
    compat.LayerCAM,
    compat.ScoreCAM,
    compat.SegEigenCAM,
    compat.ShapleyCAM,
    compat.XGradCAM,
]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=10)


def pixels(n: int = 2) -> Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ALL)
def test_maps_are_numpy_between_0_and_1_and_the_model_is_left_as_found(
    kind: type[compat.PeerCAM], network: nn.Module
) -> None:
    network.train()
    network.layer1.eval()
    modes = [m.training for m in network.modules()]
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    layer = network.layer1[-1] if kind is compat.ScoreCAM else network.layer4[-1]
    with kind(model=network, target_layers=[layer]) as cam:
        maps = cam(input_tensor=pixels(), targets=None)
    assert (maps.shape, maps.dtype) == ((2, SIDE, SIDE), np.float32)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert all(not m._forward_hooks for m in network.modules())
    with torch.no_grad():
        np.testing.assert_array_equal(cam(pixels()), maps)


def test_several_layers_and_softmax_targets_are_theirs(network: nn.Module) -> None:
    network.eval()
    targets = [ClassifierOutputSoftmaxTarget(3), ClassifierOutputSoftmaxTarget(5)]
    ours = compat.GradCAM(network, [network.layer3[-1], network.layer4[-1]])(pixels(), targets)
    with Peer(network, [network.layer3[-1], network.layer4[-1]]) as cam:
        theirs = cam(pixels(), targets)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_nobody_needs_a_reshape_transform() -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, depth=2, num_classes=10)
    layer = vit.blocks[-1].norm1
    found = compat.GradCAM(vit, [layer])(pixels())
    told = compat.GradCAM(vit, [layer], lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (6, 6)))(pixels())
    np.testing.assert_array_equal(found, told)


def test_their_silent_traps_are_errors(network: nn.Module) -> None:
    cam = compat.GradCAM(network, [network.layer4[-1]])
    one = compat.ClassifierOutputTarget(1)
    for targets, message in (
        (
            [one],
            "`targets` must be a list with one target per picture, got 1 target(s) for 4 picture(s).",
        ),
        (
            one,
            "`targets` must be a list with one target per picture, got 1 target(s) for 4 picture(s).",
        ),
        (
            [1, 2, 3, 4],
            ("`targets` must be functions, such as ClassifierOutputTarget(281), got 1 of type int."),
        ),
    ):
        with pytest.raises(InputError) as caught:
            cam(pixels(4), targets)
        assert str(caught.value) == message
    with pytest.raises(InputError, match="`target_layers` must be a list"):
        compat.GradCAM(network, network.layer4[-1])
    with pytest.raises(InputError, match="BasicBlock is not a layer of this ResNet"):
        compat.GradCAM(network, [torchvision.models.resnet18(weights=None).layer4[-1]])
    with pytest.raises(InputError, match=r"`ratio_channels_to_ablate` must be above 0 and at most 1, got 0\."):
        compat.AblationCAM(network, [network.layer4[-1]], ratio_channels_to_ablate=0)


def test_a_layer_that_is_not_read_is_an_error() -> None:
    model = Aside()
    with pytest.raises(InputError) as caught:
        compat.GradCAM(model, [model.unused])(pixels())
    assert str(caught.value) == "The output does not depend on the target layer 'unused'. Choose another layer."
