"""How a layer arranges its output, on networks whose answer is known; and what is no map is not taken for one."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.hires_cam import HiResCAM
from seewhy.attributions.layers import refuse_windows
from seewhy.attributions.shares import cell_evidence
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder, Layout
from seewhy.encoders.module import Arrangements, from_module
from seewhy.encoders.split import example_pixels
from seewhy.errors import ModelError
from seewhy.heads.head import Target
from seewhy.types import Transform

VIT: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 5}
TARGET = Target(torch.tensor([0, 3]))


def transform(size: tuple[int, int]) -> Transform:
    return Transform(size, size, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def encoder_at(module: nn.Module, layer: str | None, size: tuple[int, int], **options: Any) -> Encoder:
    return from_module(module, target_layer=layer, transform=transform(size), engine="torch", **options)


def tiny_swin() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1, 1], [2, 2, 4], [2, 2], num_classes=5).eval()


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    return tiny_swin()


@pytest.mark.parametrize(
    ("layer", "layout", "grid"),
    [
        ("features.5", Layout("nhwc"), (4, 6)),
        ("features.3.0", Layout("nhwc"), (8, 12)),
        ("features.4.norm", Layout("nhwc"), None),
        ("norm", Layout("nhwc"), (4, 6)),
        ("permute", Layout("nchw"), (4, 6)),
        ("features.0.0", Layout("nchw"), (16, 24)),
        ("features.0", Layout("nhwc"), (16, 24)),
        (None, Layout("nchw"), (4, 6)),
    ],
)
def test_swin_of_torchvision(swin: nn.Module, layer: str | None, layout: Layout, grid: tuple[int, int] | None) -> None:
    """Its blocks give (b, h, w, c), which was once taken for c = h."""
    encoder = encoder_at(swin, layer, (64, 96))
    assert encoder.layout == layout
    if grid is None:
        return
    model = Pretrained().build(encoder)
    look = encoder.encode(example_pixels((64, 96), 2, 4))
    for maps in (GradCAM()(model, look, TARGET), cell_evidence(model, look, TARGET)):
        assert maps.shape == (2, *grid)
        assert maps.abs().max() > 1e-4


def test_before_and_behind_the_norm_a_cell_has_the_same_part(swin: nn.Module) -> None:
    """Behind it the closed form of a mean; before it gradient · feature would be zero, as behind a class token."""
    pixels = example_pixels((64, 64), 2, 4)
    found = []
    for layer in ("permute", "norm", "features.5"):
        model = Pretrained().build(encoder_at(swin, layer, (64, 64)))
        found.append(cell_evidence(model, model.encoder.encode(pixels), TARGET))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-6)
    hires = HiResCAM()(model, model.encoder.encode(pixels), TARGET)
    assert torch.corrcoef(torch.stack([hires[0].flatten(), found[0][0].flatten()]))[0, 1] > 0.5


def test_a_norm_behind_the_mean_keeps_its_length() -> None:
    """ConvNeXt: gradient · feature adds up to zero there; with the length held, to the logit but for constants."""
    torch.manual_seed(0)
    block = torchvision.models.convnext.CNBlockConfig
    network = torchvision.models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=5).eval()
    model = Pretrained().build(encoder_at(network, None, (64, 64)))
    look = model.encoder.encode(example_pixels((64, 64), 2, 4))
    parts = cell_evidence(model, look, TARGET).sum((1, 2))
    logits = model.head(look.pooled)
    norm = network.classifier[0]
    constant = (model.head.weight @ norm.bias + model.head.bias)[None]
    mean = look.features.mean((2, 3))
    whole = (TARGET(logits) - logits.mean(1)) - (TARGET(constant.expand(2, -1)) - constant.mean(1))
    assert mean.shape == look.pooled.shape
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize(
    ("options", "prefix"), [({}, 1), ({"reg_tokens": 4}, 5), ({"global_pool": "avg", "class_token": False}, 0)]
)
def test_vit_blocks_by_name(size: tuple[int, int], options: dict, prefix: int) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=size, qk_norm=True, **VIT | options).eval()
    last = ["blocks.2"] if prefix == 0 else []
    for layer in ("blocks.0", "blocks.1", *last):
        encoder = encoder_at(vit, layer, size)
        assert encoder.layout == Layout("tokens", (size[0] // 16, size[1] // 16), prefix)
        look = encoder.encode(example_pixels(size, 2, 4))
        with torch.no_grad():
            torch.testing.assert_close(encoder.classifier(look.pooled), vit(example_pixels(size, 2, 4)))
    assert encoder_at(vit, "patch_embed.proj", size).layout == Layout("nchw")


@pytest.mark.parametrize("n_heads", [2, 16])
def test_heads_are_no_grid(n_heads: int) -> None:
    """(1, heads, t, d) of the norm of queries and (1, heads, t, t) of attention, also where heads = patches."""
    torch.manual_seed(0)
    options = VIT | {"num_heads": n_heads}
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, qk_norm=True, **options).eval()
    for block in vit.blocks:
        block.attn.fused_attn = False
    for layer in ("blocks.1.attn.q_norm", "blocks.1.attn.attn_drop"):
        with pytest.raises(ModelError, match=r"got \(1, .* Choose another layer, or pass layout=Layout\('nchw'\)"):
            encoder_at(vit, layer, (64, 64))
    assert encoder_at(vit, None, (64, 64)).layout == Layout("tokens", (4, 4), 1)
    plain = Pretrained().build(encoder_at(vit, None, (64, 64)))
    look = plain.encoder.encode(example_pixels((64, 64), 2, 4))
    for layer in ("blocks.0.attn.q_norm", "blocks.0.attn.attn_drop"):
        with pytest.raises(ModelError, match=r"The layer 'blocks.0.attn.* must return"):
            GradCAM(layer=layer)(plain, look, TARGET)


def test_attention_of_a_convolutional_network_is_no_map() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 16, 16)
            self.softmax = nn.Softmax(-1)
            self.fc = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            tokens = x.flatten(2).transpose(1, 2)[:, None]
            tokens = self.softmax(tokens @ tokens.transpose(2, 3)) @ tokens
            return self.fc((x + tokens[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])).mean((2, 3)))

    torch.manual_seed(0)
    model = Pretrained().build(encoder_at(Attentive(), "stem", (64, 64)))
    pixels = example_pixels((64, 64), 2, 4)
    assert GradCAM()(model, model.encoder.encode(pixels), TARGET).shape == (2, 4, 4)
    whole = Pretrained().build(
        from_module(nn.Sequential(Attentive(), nn.Identity()), transform=transform((64, 64)), engine="torch")
    )
    assert whole.encoder.layout == Layout("nchw")
    with pytest.raises(ModelError, match=r"must return one feature map per picture, got 8 maps for 2 pictures"):
        refuse_windows(torch.zeros(8, 4, 49, 49), 2, "x")
    with pytest.raises(ModelError, match=r"a feature map or tokens, got attention weights \(4 heads, 49 tokens\)\."):
        refuse_windows(torch.randn(2, 4, 49, 49).softmax(3), 2, "x")
    refuse_windows(torch.randn(2, 4, 49, 49), 2, "x")


class Silent(nn.Module):
    """Nothing in it says where channels are."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.body = nn.Identity()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(x, 16)
        x = self.body(x.permute(0, 2, 3, 1) if self.last else x)
        return x.mean((1, 2) if self.last else (2, 3)) @ self.weight


def test_the_pictures_proportions_tell_where_no_layer_does() -> None:
    for last, kind in ((False, "nchw"), (True, "nhwc")):
        assert encoder_at(Silent(last), "body", (64, 96)).layout == Layout(kind)  # type: ignore[arg-type]


def test_what_cannot_be_told_is_asked_for() -> None:
    cube = Silent(last=True)  # (1, 3, 3, 3)
    with pytest.raises(ModelError) as caught:
        encoder_at(cube, "body", (48, 48))
    assert str(caught.value) == (
        "The layer 'body' of module must return a feature map (b, c, h, w) or (b, h, w, c), or tokens (b, t, d) that "
        "fill a grid, got (1, 3, 3, 3) for a picture of 48 x 48. Choose another layer, or pass "
        "layout=Layout('nchw'), Layout('nhwc') or Layout('tokens', grid=(h, w), prefix=n)."
    )
    assert encoder_at(cube, "body", (48, 48), layout=Layout("nhwc")).layout == Layout("nhwc")


def test_a_cube_is_told_by_the_layers_around_it() -> None:
    """3 by 3 by 3: a convolution before it, or a linear layer behind it, says which."""
    for layers, kind in (
        ([nn.Conv2d(3, 3, 16, 16), nn.Tanh()], "nchw"),
        ([nn.AvgPool2d(16), nn.Tanh(), nn.BatchNorm2d(3)], "nchw"),
    ):
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(27, 2)).eval()
        trace = Arrangements(module, example_pixels((48, 48)))
        assert trace.kind("1") == kind

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.body, self.fc = nn.AvgPool2d(16), nn.Identity(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(self.pool(x).permute(0, 2, 3, 1))).mean((1, 2))

    module = Rows().eval()
    assert Arrangements(module, example_pixels((48, 48))).kind("body") == "nhwc"
