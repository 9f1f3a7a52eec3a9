"""Inner layers: the same as the whole graph differentiated, at the cost of the tail, with the model left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from seewhy.attributions import attributions
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.hires_cam import HiResCAM
from seewhy.attributions.layers import layer_alone, layer_and_gradient, layout_of
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder, Layout
from seewhy.encoders.module import from_module
from seewhy.encoders.split import example_pixels
from seewhy.encoders.timm import encoder_of
from seewhy.errors import InputError, ModelError, UnknownNameError
from seewhy.evidence.explain import ExplainOptions
from seewhy.heads.head import Target
from seewhy.types import Transform
from tiny import noise, tiny_cnn, tiny_tokens

SIDE = 64
TRANSFORM = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TARGET = Target(torch.tensor([0, 3]))


def resnet() -> Encoder:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    return from_module(model, transform=TRANSFORM, engine="torch")


def vit() -> Encoder:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=10, depth=3).eval()
    return encoder_of(model, "vit", engine="torch", transform=TRANSFORM)


def convnext() -> Encoder:
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", num_classes=10).eval()
    return encoder_of(model, "convnext", engine="torch", transform=TRANSFORM)


def swin() -> Encoder:
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=SIDE, window_size=2, num_classes=10, depths=(1,) * 4
    )
    return encoder_of(model.eval(), "swin", engine="torch", transform=TRANSFORM)


def pixels(n: int = 2) -> Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


CASES: list[tuple[Callable[[], Encoder], str, tuple[int, int]]] = [
    (resnet, "layer3.1.bn2", (4, 4)),
    (resnet, "layer2", (8, 8)),
    (vit, "blocks.0", (4, 4)),
    (vit, "blocks.1.norm1", (4, 4)),
    (vit, "patch_embed.proj", (4, 4)),
    (vit, "patch_embed", (4, 4)),
    (convnext, "stages.1", (8, 8)),
    (convnext, "stages.1.blocks.0.mlp.fc1", (8, 8)),
    (swin, "layers.1", (8, 8)),
]


def whole_graph(model: Classifier, layer: str, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output and its gradient with a hook and a backward pass through everything."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: object, out: Tensor) -> Tensor:
        out.retain_grad()
        kept.append(out)
        return out.clone()  # what follows may work in place

    network = model.encoder.module.requires_grad_(True)
    handle = network.get_submodule(layer).register_forward_hook(keep)
    model_logits = network(batch)
    handle.remove()
    TARGET(model_logits).sum().backward()
    network.requires_grad_(False)
    network.zero_grad()
    return kept[0].detach(), kept[0].grad


@pytest.mark.parametrize(("make", "layer", "cells"), CASES)
def test_activations_and_gradients_are_those_of_the_whole_graph(
    make: Callable[[], Encoder], layer: str, cells: tuple[int, int]
) -> None:
    model = Pretrained().build(make())
    look = model.encoder.encode(pixels())
    activations, gradient = layer_and_gradient(model, look, TARGET, layer)
    assert tuple(activations.shape[2:]) == cells
    expected, slope = whole_graph(model, layer, pixels())
    if expected.ndim == 3:
        kind = Layout("tokens", cells, expected.shape[1] - cells[0] * cells[1])
    else:
        kind = Layout("nchw" if tuple(expected.shape[2:]) == cells else "nhwc")
    torch.testing.assert_close(activations, kind.to_grid(expected), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(gradient, kind.to_grid(slope), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(layer_alone(model, look, layer), activations)


def test_the_last_map_by_name_is_the_default() -> None:
    model = Pretrained().build(tiny_cnn())
    look = model.encoder.encode(noise(3))
    target = Target(torch.tensor([0, 3, 1]))
    for method in (GradCAM, HiResCAM):
        torch.testing.assert_close(method(layer="3")(model, look, target), method()(model, look, target))


def test_chunks_do_not_show() -> None:
    model = Pretrained().build(tiny_cnn())
    target = Target(torch.arange(9) % 4)
    look = model.encoder.encode(noise(9))
    whole = GradCAM(layer="1")(model, look, target)
    for i in range(9):
        one = GradCAM(layer="1")(model, look[i : i + 1], Target(target.index[i : i + 1]))
        torch.testing.assert_close(one[0], whole[i], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("around", [torch.no_grad, torch.enable_grad])
def test_the_model_is_left_alone(around: Callable[[], torch.no_grad]) -> None:
    """Open parameters get no gradient, hooks are gone, and nothing below the layer is recorded."""
    encoder = resnet()
    module = encoder.trunk.requires_grad_(True)
    model = Pretrained().build(encoder)
    with around():
        before = torch.is_grad_enabled()
        GradCAM(layer="layer2.0.conv1")(model, encoder.encode(pixels()), TARGET)
        assert torch.is_grad_enabled() == before
    assert all(p.grad is None for p in module.parameters())
    assert all(not m._forward_hooks for m in module.modules())


def test_no_convolution_below_the_layer_runs_backwards() -> None:
    model = Pretrained().build(resnet())
    look = model.encoder.encode(pixels())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        GradCAM(layer="layer3.1")(model, look, TARGET)
    counts = {e.key: e.count for e in seen.key_averages()}
    assert counts["aten::convolution"] == 20  # every one once, forward
    assert counts["aten::convolution_backward"] == 5  # those of layer4 alone, one of them on the way round


def test_wrong_names_and_layers_without_places() -> None:
    model = Pretrained().build(vit())
    look = model.encoder.encode(pixels())
    with pytest.raises(UnknownNameError) as unknown:
        GradCAM(layer="bloks.1")(model, look, TARGET)
    assert "There is no layer in the trunk of vit called 'bloks.1'. Did you mean 'blocks.1'" in str(unknown.value)
    with pytest.raises(UnknownNameError):
        GradCAM(layer="blocks.2")(model, look, TARGET)  # the last block is the encoder's head
    several = Pretrained().build(resnet())
    with pytest.raises(ModelError) as often:
        GradCAM(layer="layer3.1.relu")(several, several.encoder.encode(pixels()), TARGET)
    assert str(often.value) == (
        "The layer 'layer3.1.relu' must run once per picture, but it runs more often. Choose its parent module."
    )
    with pytest.raises(InputError) as bare:
        GradCAM(layer="blocks.1")(model, type(look)(look.features, look.pooled), TARGET)
    assert str(bare.value) == "grad_cam needs an encoder output with pixels. Pass encoder.encode(pixels)."


@pytest.mark.parametrize(
    ("shape", "picture", "own", "expected"),
    [
        ((2, 8, 14, 14), (224, 224), Layout(), Layout()),
        ((2, 14, 14, 8), (224, 224), Layout(), Layout("nhwc")),
        ((2, 14, 14, 14), (224, 224), Layout("nhwc"), Layout("nhwc")),
        ((2, 8, 7, 10), (224, 320), Layout(), Layout()),
        ((2, 8, 7, 12), (200, 333), Layout(), Layout()),
        ((2, 196, 8), (224, 224), Layout(), Layout("tokens", (14, 14))),
        ((2, 197, 8), (224, 224), Layout(), Layout("tokens", (14, 14), 1)),
        ((2, 201, 8), (224, 224), Layout(), Layout("tokens", (14, 14), 5)),
        ((2, 201, 8), (224, 224), Layout("tokens", (14, 14), 5), Layout("tokens", (14, 14), 5)),
        ((2, 71, 8), (224, 320), Layout(), Layout("tokens", (7, 10), 1)),
    ],
)
def test_the_arrangement_is_told_by_the_shape(
    shape: tuple[int, ...], picture: tuple[int, int], own: Layout, expected: Layout
) -> None:
    assert layout_of(shape, picture, own, "x") == expected


def test_an_arrangement_that_cannot_be_told_is_refused() -> None:
    for shape in ((2, 8), (2, 3, 100, 7), (2, 1, 64)):
        with pytest.raises(ModelError, match=r"The layer 'x' must return .* Choose another layer\."):
            layout_of(shape, (224, 224), Layout(), "x")


def test_options_name_the_layer() -> None:
    assert ExplainOptions(where="hires_cam", layer="1").method() == HiResCAM(layer="1")
    assert ExplainOptions(where=GradCAM(layer="1")).method() == GradCAM(layer="1")
    with pytest.raises(
        InputError, match=r"score_cam has no layer to choose, got layer='1'\. Methods that have: eigen_cam, "
    ):
        ExplainOptions(where="score_cam", layer="1").method()
    assert "layer_cam" in attributions


def test_an_explanation_at_an_inner_layer_says_so() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    why = Pretrained().build(tiny_cnn()).explain(picture, where="layer_cam", layer="0", measure=False)
    assert why.where.method == "layer_cam at 0"
    assert why.where.heat.shape == (8, 8)


def test_a_sentence_is_a_target() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for make in (tiny_cnn, tiny_tokens):
        model = Pretrained().build(make())
        why = model.explain(picture, target_text="a red beak", contrast_text="a blue one")
        assert (why.where.target, why.where.contrast) == ('"a red beak"', '"a blue one"')
        assert "a mean similarity of " in why.where.verdict.figures
        alone = model.explain(picture, target_text="a red beak", measure=False)
        other = model.explain(picture, target_text="a blue one", measure=False)
        np.testing.assert_allclose(alone.where.heat - other.where.heat, why.where.heat, atol=1e-6)
    with pytest.raises(InputError, match="A class and a sentence cannot be explained together"):
        model.explain(picture, target="moss", target_text="a red beak")
    with pytest.raises(InputError, match="`target_text` must not be empty"):
        model.explain(picture, contrast_text="a red beak")


class Windowed(nn.Module):
    """As in Hiera: 8 x 8 tokens, those of a window one after the other, and then one token per window."""

    def __init__(self, is_windowed: bool) -> None:
        super().__init__()
        self.is_windowed = is_windowed
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        windows = self.stem(x).unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 3, 5, 1)
        if self.is_windowed:
            tokens = self.first(windows.flatten(3, 4).flatten(1, 3))
            windows = tokens.unflatten(1, (4, 4, 2, 2))
        else:
            tokens = self.first(windows.transpose(2, 3).flatten(1, 4))
            windows = tokens.unflatten(1, (4, 2, 4, 2)).transpose(2, 3)
        return self.fc(self.second(windows.mean((3, 4)).flatten(1, 2)).relu().mean(1))


@pytest.mark.parametrize("is_windowed", [False, True])
def test_tokens_in_the_order_of_windows_are_refused(is_windowed: bool) -> None:
    """Their number fits the picture, but a map of them would show other places."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Windowed(is_windowed).eval()
    transform = Transform((32, 32), 32, "bilinear", (0.5,) * 3, (0.5,) * 3)
    encoder = from_module(network, target_layer="second", transform=transform, engine="torch")
    assert encoder.layout == Layout("tokens", (4, 4), 0)
    model, look = Pretrained().build(encoder), encoder.encode(example_pixels((32, 32), 2))
    if not is_windowed:
        assert layer_alone(model, look, "first").shape == (2, 8, 8, 8)
        assert from_module(network, target_layer="first", transform=transform).layout.grid == (8, 8)
        return
    for _ in range(2):
        with pytest.raises(ModelError, match=r"'first' are not in the order of the picture's rows"):
            layer_alone(model, look, "first")
    with pytest.raises(ModelError, match=r"'first' are not in the order of the picture's rows"):
        from_module(network, target_layer="first", transform=transform)
    own = Layout("tokens", (8, 8), 0)
    assert from_module(network, target_layer="first", layout=own, transform=transform).layout == own
