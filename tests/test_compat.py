"""Calls as users of pytorch-grad-cam, Captum and Quantus write them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
from captum.attr import InputXGradient, IntegratedGradients
from pytorch_grad_cam import GradCAM as Peer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor, nn

from seewhy import compat
from seewhy.attributions.input_x_gradient import InputXGradient as OurInputXGradient
from seewhy.classifiers.head import Target
from seewhy.classifiers.pretrained import Pretrained
from seewhy.errors import InputError
from seewhy.explanation import Where
from seewhy.metrics.base import Case
from seewhy.metrics.model_randomisation import ModelRandomisation
from tiny import noise, tiny_cnn

SIDE = 96
ALL = [
    compat.AblationCAM,
    compat.EigenCAM,
    compat.EigenGradCAM,
    compat.GradCAM,
    compat.GradCAMElementWise,
    compat.GradCAMPlusPlus,
    compat.HiResCAM,
    compat.LayerCAM,
    compat.ScoreCAM,
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
        ([one], "1 targets were given for 4 pictures. Give a list with one a picture."),
        (one, "1 targets were given for 4 pictures. Give a list with one a picture."),
        (
            [1, 2, 3, 4],
            "The target 1 is a int. A function of a picture's output was expected. "
            "Write ClassifierOutputTarget(class index).",
        ),
    ):
        with pytest.raises(InputError) as caught:
            cam(pixels(4), targets)
        assert str(caught.value) == message
    with pytest.raises(InputError, match="target_layers is no list of layers"):
        compat.GradCAM(network, network.layer4[-1])
    with pytest.raises(InputError, match="The target layer BasicBlock is not inside ResNet"):
        compat.GradCAM(network, [torchvision.models.resnet18(weights=None).layer4[-1]])
    with pytest.raises(InputError, match="aug_smooth and eigen_smooth are not offered"):
        cam(pixels(1), None, aug_smooth=True)
    with pytest.raises(InputError, match="AblationCAM was given a ratio"):
        compat.AblationCAM(network, [network.layer4[-1]], ratio_channels_to_ablate=0.5)


def test_a_layer_that_is_not_read_is_an_error() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.last = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.last(self.used(x).mean((2, 3)))

    model = Aside()
    with pytest.raises(InputError) as caught:
        compat.GradCAM(model, [model.unused])(pixels())
    assert str(caught.value) == "The output does not depend on the layer 'unused'. Choose another target layer."


def test_captum_and_quantus_explanations_are_attributions_with_cards() -> None:
    model = Pretrained().build(tiny_cnn())
    look, target = model.encoder.look(noise(3)), Target(torch.tensor([0, 3, 1]))
    module = compat.ClassifierModule(model)
    captum = compat.from_captum(InputXGradient(module).attribute)
    leaf = noise(3).requires_grad_()
    target(model.head(model.encoder.head(model.encoder.trunk(leaf)))).sum().backward()
    expected = (leaf * leaf.grad).sum(1).detach()
    torch.testing.assert_close(captum(model, look, target), expected)

    def quantus(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **options: object) -> np.ndarray:
        x = torch.from_numpy(inputs).requires_grad_()
        model(x)[range(len(x)), targets].sum().backward()
        assert options == {"method": "Saliency"}
        return (x * x.grad).sum(1, keepdim=True).detach().numpy()

    torch.testing.assert_close(compat.from_quantus(quantus, method="Saliency")(model, look, target), expected)
    integrated = compat.from_captum(IntegratedGradients(module).attribute, n_steps=8)
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    why = model.explain(picture, where=integrated)
    assert isinstance(why.where, Where)
    assert (why.where.method, why.where.heat.shape) == ("captum", (32, 32))
    assert why.where.deletion is not None
    assert "captum" in why.to_html()


def test_a_captum_class_is_judged_on_the_copy_that_forgets() -> None:
    """As our own method of that name is; a function bound to the whole network cannot be."""
    model = Pretrained().build(tiny_cnn())
    pixels = noise(1)
    look, target = model.encoder.look(pixels), Target(torch.tensor([1]))
    ours, theirs = OurInputXGradient(), compat.from_captum(InputXGradient)
    maps = torch.cat([method(model, look, target) for method in (ours, theirs)])
    case = Case.of(model, pixels[0], 1, methods=[ours, theirs])
    mine, captums = ModelRandomisation().measure(case, maps)
    assert captums.value == pytest.approx(mine.value, abs=1e-4)
    assert captums.value < 0.9
    bound = compat.from_captum(InputXGradient(compat.ClassifierModule(model)).attribute)
    with pytest.raises(InputError, match="A class was expected, which is bound to each copy"):
        ModelRandomisation().measure(replace(case, methods=[bound]), maps[:1])


@pytest.mark.parametrize("wrap", [compat.from_captum, compat.from_quantus])
def test_what_a_function_cannot_explain_is_refused(wrap: object) -> None:
    model = Pretrained().build(tiny_cnn())
    look, zero = model.encoder.look(noise(2)), torch.tensor([0, 0])
    for target in (Target(zero, zero + 1), lambda logits: logits[:, 0]):
        with pytest.raises(InputError, match="function explains the logit of one class"):
            wrap(lambda *_, **__: None)(model, look, target)
    with pytest.raises(InputError) as caught:
        wrap(lambda *_, **__: np.zeros((1, 32, 32)))(model, look, Target(zero))
    assert "function gives (1, 32, 32) for 2 pictures. Maps (2, c, h, w) or (2, h, w) were expected." in str(
        caught.value
    )
