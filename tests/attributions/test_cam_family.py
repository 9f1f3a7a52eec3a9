"""The CAM family against closed forms and against pytorch-grad-cam, run here on the same network and layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import pytorch_grad_cam as peers
import timm
import torch
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from seewhy import compat
from seewhy.attributions import attributions
from seewhy.attributions.ablation_cam import AblationCAM
from seewhy.attributions.cam import first_component
from seewhy.attributions.eigen_cam import EigenCAM
from seewhy.attributions.finer_cam import FinerCAM
from seewhy.attributions.full_grad import full_gradient
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.grad_cam_plus_plus import GradCAMPlusPlus
from seewhy.attributions.guided_grad_cam import GuidedBackprop, GuidedGradCAM, guided_gradient
from seewhy.attributions.hires_cam import HiResCAM
from seewhy.attributions.kpca_cam import KPCACAM
from seewhy.attributions.score_cam import ScoreCAM, representatives
from seewhy.attributions.shapley_cam import ShapleyCAM
from seewhy.attributions.shares import cell_evidence
from seewhy.attributions.xgrad_cam import XGradCAM
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.compat.base import highest
from seewhy.encoders.base import GlobalAverage, Layout
from seewhy.errors import InputError
from seewhy.heads.head import Target
from tiny import build, colour_reader, noise, tiny_cnn, tiny_tokens

TARGET = Target(torch.tensor([0, 3, 1]))
SIDE = 128


def model_and_look(encoder: Callable = tiny_cnn) -> tuple[Classifier, object]:
    model = Pretrained().build(encoder())
    return model, model.encoder.encode(noise(3))


# Closed forms


@pytest.mark.parametrize("method", [HiResCAM(), XGradCAM()], ids=lambda m: m.name)
def test_behind_a_mean_and_a_linear_layer_it_is_grad_cam(method: object) -> None:
    model, look = model_and_look()
    torch.testing.assert_close(method(model, look, TARGET), GradCAM()(model, look, TARGET), atol=1e-5, rtol=1e-4)


def test_hires_cam_adds_up_to_the_logit_less_the_bias() -> None:
    model, look = model_and_look()
    logits = TARGET(model.head(look.pooled)) - model.head.bias[TARGET.index]
    torch.testing.assert_close(HiResCAM()(model, look, TARGET).sum((1, 2)), logits)


def test_ablation_on_a_linear_head_is_the_formula() -> None:
    """w_k = y − y_k = (row of the class)_k · mean A_k."""
    model, look = model_and_look()
    weights = model.head.weight[TARGET.index] * look.pooled
    expected = torch.einsum("bc,bchw->bhw", weights, look.features)
    torch.testing.assert_close(AblationCAM()(model, look, TARGET), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(AblationCAM(batch_size=2)(model, look, TARGET), expected, atol=1e-5, rtol=1e-4)


def test_ablation_of_tokens_leaves_the_class_token() -> None:
    model, look = model_and_look(tiny_tokens)
    without = look.features.clone()
    without[:, 1:, 5] = 0
    with torch.no_grad():
        lost = TARGET(model.head(look.pooled)) - TARGET(model.head(model.encoder.head(without)))
        every = []
        for k in range(8):
            changed = look.features.clone()
            changed[:, 1:, k] = 0
            every.append(TARGET(model.head(look.pooled)) - TARGET(model.head(model.encoder.head(changed))))
    torch.testing.assert_close(every[5], lost)
    expected = torch.einsum("cb,bchw->bhw", torch.stack(every), model.encoder.layout.to_grid(look.features))
    torch.testing.assert_close(AblationCAM(batch_size=7)(model, look, TARGET), expected, atol=1e-5, rtol=1e-4)


def test_grad_cam_plus_plus_is_the_paper_s_formula() -> None:
    model, look = model_and_look()
    slope = (model.head.weight[TARGET.index] / 64).double()[:, :, None, None]
    maps = look.features.double()
    bottom = 2 * slope**2 + maps.sum((2, 3), keepdim=True) * slope**3
    share = torch.where(bottom > 0, slope**2 / bottom, 0.0)
    weights = (share * slope.relu()).expand_as(maps).sum((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weights, maps).float()
    torch.testing.assert_close(GradCAMPlusPlus()(model, look, TARGET), expected)


def test_score_cam_weighs_by_the_score_of_the_masked_picture() -> None:
    model, look = model_and_look()
    grid = look.features
    up = torch.nn.functional.interpolate(grid, size=(32, 32), mode="bilinear", align_corners=True)
    low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
    masks = (up - low) / (high - low)
    scores = torch.stack(
        [TARGET(model.head(model.encoder.encode(look.pixels * masks[:, k : k + 1]).pooled)) for k in range(8)], 1
    )
    expected = torch.einsum("bc,bchw->bhw", scores.softmax(1), grid)
    torch.testing.assert_close(ScoreCAM()(model, look, TARGET), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ScoreCAM(n_masks=8, batch_size=1)(model, look, TARGET), expected, atol=1e-5, rtol=1e-4)


def test_fewer_masks_share_the_score_of_the_likest() -> None:
    one, other = torch.zeros(4, 4), torch.zeros(4, 4)
    one[0], other[3] = 1, 1
    chosen, owner = representatives(torch.stack([one, other, one * 2, other * 3, one]), 2)
    assert sorted(owner[[0, 2, 4]].tolist()) == [owner[0]] * 3
    assert owner[1] == owner[3] != owner[0]
    assert {int(owner[c]) for c in chosen} == {0, 1}
    # Those that are run are the strongest of their kind.
    assert sorted(chosen.tolist()) == [2, 3]


def test_eigen_cam_sees_no_class_and_has_a_sign() -> None:
    model, look = model_and_look()
    maps = EigenCAM()(model, look, TARGET)
    assert torch.equal(maps, EigenCAM()(model, look, Target(torch.tensor([1, 1, 1]))))
    cells = look.features.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    torch.testing.assert_close(maps.flatten(1).norm(dim=1), torch.linalg.svdvals(cells)[:, 0])
    assert ((maps * look.features.abs().mean(1)).sum((1, 2)) > 0).all()


def test_the_counterfactual_is_hot_where_blanking_raises_the_score() -> None:
    model = Pretrained().build(colour_reader())
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[0, 0, :8, :8] = 2  # red speaks for the class
    pixels[0, 2, 16:24, 8:16] = 2  # blue against it
    target = Target(torch.tensor([0]))
    look = model.encoder.encode(pixels)
    against = GradCAM(counterfactual=True)(model, look, target)
    torch.testing.assert_close(against, -GradCAM()(model, look, target))
    hot = torch.nn.functional.interpolate(against[:, None], size=(32, 32)) > 0
    before = model.head(look.pooled)[0, 0]
    after = model.head(model.encoder.encode(torch.where(hot, 0.0, pixels)).pooled)[0, 0]
    assert hot[0, 0, 16:24, 8:16].all()
    assert not hot[0, 0, :8, :8].any()
    assert after > before


def test_finer_cam_is_grad_cam_of_the_lead_over_the_likest() -> None:
    model, look = model_and_look()
    logits = model.head(look.pooled)
    expected = GradCAM()(model, look, TARGET).clone()
    for i, own in enumerate(TARGET.index.tolist()):
        near = sorted((c for c in range(4) if c != own), key=lambda c: abs(logits[i, c] - logits[i, own]))[:2]
        for c in near:
            expected[i] -= 0.3 * GradCAM()(model, look[i : i + 1], Target(torch.tensor([c])))[0]
    finer = FinerCAM(n_references=2, strength=0.6)
    torch.testing.assert_close(finer(model, look, TARGET), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(FinerCAM(strength=0)(model, look, TARGET), GradCAM()(model, look, TARGET))
    against = Target(TARGET.index, torch.tensor([2, 2, 0]))
    torch.testing.assert_close(FinerCAM(strength=1)(model, look, against), GradCAM()(model, look, against))
    with pytest.raises(InputError) as caught:
        finer(model, look, lambda logits: logits[:, 0])
    assert str(caught.value) == (
        "The target of finer_cam must be a class, got a function of the logits. Give a class, or use grad_cam."
    )


def test_shapley_cam_of_a_logit_behind_a_mean_is_grad_cam() -> None:
    model, look = model_and_look()
    plain = ShapleyCAM(residual_softmax=False)(model, look, TARGET)
    torch.testing.assert_close(plain, GradCAM()(model, look, TARGET), atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("encoder", [tiny_cnn, tiny_tokens])
def test_shapley_cam_is_the_series_up_to_the_second_term(encoder: Callable) -> None:
    model, look = model_and_look(encoder)
    one = look[:1]

    def rest(features: torch.Tensor) -> torch.Tensor:
        logits = model.head(model.encoder.head(features))[0]
        return logits[0] + logits.log_softmax(0)[0]

    slope = torch.autograd.functional.jacobian(rest, one.features)
    _, bend = torch.autograd.functional.hvp(rest, one.features, one.features)
    to_grid = model.encoder.layout.to_grid
    weights = to_grid(slope - bend / 2).mean((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weights, to_grid(one.features))
    found = ShapleyCAM()(model, one, Target(torch.tensor([0])))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_kpca_cam_with_the_linear_kernel_is_eigen_cam() -> None:
    model, look = model_and_look()
    linear = KPCACAM(kernel="linear")(model, look, TARGET)
    torch.testing.assert_close(linear, EigenCAM()(model, look, TARGET), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="or 'sigmoid'"):
        KPCACAM(kernel="sigmoit")
    with pytest.raises(InputError) as caught:
        KPCACAM(gamma=0)
    assert str(caught.value) == "`gamma` of kpca_cam must be a number above 0, got 0."


@pytest.mark.parametrize("traced", [False, True])
def test_a_full_gradient_adds_up_to_the_logit(traced: bool) -> None:
    """Of a network of ReLUs, whatever its biases are in: convolutions, batch norms, norms of timm's own."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        timm.layers.BatchNormAct2d(8, act_layer=nn.ReLU),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for numbers in (part.running_mean, part.weight.data, part.bias.data):
                numbers.normal_()
    run = torch.fx.symbolic_trace(network) if traced else network
    parts = full_gradient(run, noise(3), lambda out: out[:, 2])
    assert len(parts) == 5
    total = torch.stack([part.sum((1, 2, 3)) for part in parts]).sum(0)
    torch.testing.assert_close(total, network(noise(3))[:, 2].detach(), atol=1e-5, rtol=1e-4)


# Targets


@pytest.mark.parametrize("name", ["ablation_cam", "grad_cam", "hires_cam", "layer_cam", "score_cam", "guided_grad_cam"])
def test_any_function_of_the_logits_is_a_target(name: str) -> None:
    model, look = model_and_look()
    method = attributions[name]()
    by_class = method(model, look, TARGET)
    by_function = method(model, look, lambda logits: logits[torch.arange(3), TARGET.index])
    torch.testing.assert_close(by_function, by_class)
    assert cell_evidence(model, look, lambda logits: logits.logsumexp(1)).shape == (3, 8, 8)


def test_a_target_that_is_not_one_number_a_picture_is_refused() -> None:
    model, look = model_and_look()
    with pytest.raises(InputError) as caught:
        GradCAM()(model, look, lambda logits: logits.sum())
    assert str(caught.value) == (
        "The target must be a function from logits (b, k) to (b,), got the shape () for 3 pictures."
    )


# Guided backpropagation


class Gates(nn.Module):
    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, 4)
        self.second = nn.Conv2d(8, 8, 1)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))))


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), torch.relu, nn.functional.relu, Tensor.relu_])
def test_gradients_are_guided_at_modules_and_at_functions(relu: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    trunk = Gates(relu)
    model = Pretrained().build(build(trunk, GlobalAverage(), Layout()))
    pixels = noise(3)
    found = guided_gradient(model, pixels, TARGET)
    # By hand: pass where the input was positive and the gradient is.
    a = trunk.first(pixels)
    b = trunk.second(a.relu())
    up = (model.head.weight[TARGET.index] / 64)[:, :, None, None].expand_as(b)
    up = up.clamp(min=0) * (b > 0)
    up = torch.einsum("bchw,cd->bdhw", up, trunk.second.weight[:, :, 0, 0]).clamp(min=0) * (a > 0)
    expected = torch.nn.functional.conv_transpose2d(up, trunk.first.weight, stride=4)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("gate", [nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Hardtanh(0, 6)], ids=repr)
def test_other_rectifiers_are_guided_too(gate: nn.Module) -> None:
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    with GuidedBackprop():
        y = gate(x)
    y.backward(torch.where(torch.arange(9) % 2 == 0, 1.0, -1.0))
    assert (x.grad[1::2] == 0).all()
    assert x.grad[6] > 0


def test_guided_grad_cam_is_the_map_times_the_guided_gradient() -> None:
    model, look = model_and_look()
    fine = guided_gradient(model, look.pixels, TARGET).abs().sum(1)
    coarse = GradCAM()(model, look, TARGET)
    up = torch.nn.functional.interpolate(coarse[:, None], size=(32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(GuidedGradCAM()(model, look, TARGET), up * fine)


# pytorch-grad-cam on the same network


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=10).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=10, depth=4).eval()
    with torch.no_grad():  # timm starts with blocks that hardly do anything
        for p in model.blocks.parameters():
            p.mul_(3)
    return model


def grid(tokens: Tensor) -> Tensor:
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], Callable | None]] = {
    "resnet18 layer4": (resnet, lambda m: m.layer4[-1], None),
    "resnet18 layer1": (resnet, lambda m: m.layer1[-1], None),
    "resnet18 layer3": (resnet, lambda m: m.layer3[-1], None),
    "vit_tiny last": (vit, lambda m: m.blocks[-1].norm1, grid),
    "vit_tiny inner": (vit, lambda m: m.blocks[1], grid),
}
EQUAL = ("GradCAM", "HiResCAM", "LayerCAM", "XGradCAM", "GradCAMElementWise", "GradCAMPlusPlus")


def pixels(n: int = 2, side: int = SIDE) -> Tensor:
    coarse = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")


def both(
    name: str, network: str, n: int = 2, side: int = SIDE, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Their maps and ours, for the class with the highest output; theirs on a copy, which they change."""
    make, layer, reshape = NETWORKS[network]
    model, batch = make(), pixels(n, side)
    twin = copy.deepcopy(model)
    highest = model(batch).argmax(1).tolist()
    with getattr(peers, name)(twin, [layer(twin)], reshape_transform=reshape) as cam:
        if batch_size:
            cam.batch_size = batch_size
        theirs = cam(batch.clone(), [ClassifierOutputTarget(c) for c in highest])
    ours = getattr(compat, name)(model, [layer(model)])(batch, [compat.ClassifierOutputTarget(c) for c in highest])
    return theirs, ours


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return min(float(np.corrcoef(x.ravel(), y.ravel())[0, 1]) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("network", [n for n in NETWORKS if n != "resnet18 layer1"])
@pytest.mark.parametrize("name", EQUAL)
def test_maps_are_theirs(name: str, network: str) -> None:
    theirs, ours = both(name, network)
    assert ours.shape == theirs.shape == (2, SIDE, SIDE)
    assert correlation(theirs, ours) >= 1 - 1e-6
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("network", [n for n in NETWORKS if n != "resnet18 layer1"])
@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM"])
def test_eigen_maps_are_theirs_up_to_the_sign(name: str, network: str) -> None:
    """Their sign is what the decomposition happens to give; given ours, the maps are the same."""
    make, layer, reshape = NETWORKS[network]
    kept: list[Tensor] = []
    model, batch = make(), pixels()
    ours = getattr(compat, name)(model, [layer(model)]).maps(batch, highest, False)[0]
    twin = copy.deepcopy(model)
    with getattr(peers, name)(twin, [layer(twin)], reshape_transform=reshape) as cam:
        seen = cam.get_cam_image

        def keep(*args: object) -> np.ndarray:
            kept.append(torch.from_numpy(seen(*args)))
            return kept[-1].numpy()

        cam.get_cam_image = keep
        cam(batch.clone(), None)
    for mine, theirs in zip(ours, kept[0], strict=True):
        assert abs(float(np.corrcoef(mine.flatten(), theirs.flatten())[0, 1])) >= 1 - 1e-6


@pytest.mark.filterwarnings("ignore")
def test_ablation_maps_are_theirs_behind_a_relu() -> None:
    theirs, ours = both("AblationCAM", "resnet18 layer4", n=1, side=96)
    assert correlation(theirs, ours) >= 1 - 1e-6


@pytest.mark.filterwarnings("ignore")
def test_score_maps_are_theirs() -> None:
    theirs, ours = both("ScoreCAM", "resnet18 layer1", n=2, side=64, batch_size=64)
    assert correlation(theirs, ours) >= 1 - 1e-6


def test_their_epsilon_makes_another_grad_cam_plus_plus() -> None:
    """Gradients of 1e-4 squared are far below their 1e-6: weights then go with g³, in the paper with g."""
    activations = torch.eye(2)[None, :, None]  # each channel lights a cell of its own
    gradient = torch.tensor([1e-4, 2e-4])[None, :, None, None]
    paper = GradCAMPlusPlus().weigh(activations, gradient)[0, 0]
    theirs = GradCAMPlusPlus(epsilon=1e-6).weigh(activations, gradient)[0, 0]
    assert paper[1] / paper[0] == pytest.approx(2, rel=1e-3)
    assert theirs[1] / theirs[0] == pytest.approx(8, rel=0.1)


def test_rounding_decides_no_sign() -> None:
    """Before a layer norm gradient × activation sums to zero, and what is left of the sum is rounding."""
    maps = noise(2)
    maps = maps * (1 + torch.arange(maps.shape[2])[:, None])  # cells of different sizes
    maps = maps - maps.mean(1, keepdim=True)
    left = 1e-8 * noise(2)[:, 0]
    found = first_component(maps, left)
    assert torch.equal(found, first_component(maps, -left))
    assert ((found * maps.abs().sum(1)).sum((1, 2)) > 0).all()
    # What is more than rounding decides, small or not.
    assert torch.equal(first_component(maps, 1e-3 * found), found)
    assert torch.equal(first_component(maps, -1e-3 * found), -found)
