"""Evidence behind attention: what each patch's value adds, against the network with values taken out by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from seewhy.attributions.attended import reading_of
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.hires_cam import HiResCAM
from seewhy.attributions.shares import cell_evidence, shares
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder, EncoderOutput
from seewhy.encoders.huggingface import split_tower
from seewhy.encoders.module import from_module
from seewhy.encoders.open_clip import split_visual
from seewhy.encoders.split import Split, freeze
from seewhy.encoders.timm import split_timm
from seewhy.heads.head import Target
from tiny import SIDE, TRANSFORM, build, noise
from tiny_transformer import tiny_vit

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": SIDE, "num_classes": 4}
HF: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": SIDE,
    "patch_size": 8,
}
TARGET = Target(torch.tensor([0, 1, 2]))


def of_timm(name: str, **options: Any) -> Split:
    return split_timm(random(timm.create_model(name, **SMALL | options)), (SIDE, SIDE), name)[0]


def of_open_clip(**options: Any) -> Split:
    given = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": SIDE}
    pooler = {"attn_pooler_queries": 5, "attn_pooler_heads": 2} if "attentional_pool" in options else {}
    width = options.pop("embed_dim", 32)
    tower = _build_vision_tower(width, CLIPVisionCfg(**given | pooler | options), False)
    return split_visual(random(tower), (SIDE, SIDE), "tower")[0]


def of_transformers(model: type[nn.Module], config: Any, wide: bool = False) -> Split:
    classifier = nn.Linear(2 * HF["hidden_size"], 4) if wide else None
    tower: Any = model(config(**HF))
    return split_tower(random(getattr(tower, "vision_model", tower)), classifier, (SIDE, SIDE), "tower")[0]


def random(module: nn.Module) -> nn.Module:
    """Weights of a size that matters: many start at zero, or at 1e-5."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return freeze(module)


BY_CLASS_TOKEN: dict[str, Callable[[], Split]] = {
    "timm": lambda: of_timm("vit_tiny_patch16_224"),
    "timm deep scale": lambda: of_timm("vit_small_patch14_reg4_dinov2"),
    "timm registers": lambda: of_timm("vit_tiny_patch16_224", reg_tokens=3),
    "timm two tokens": lambda: of_timm("deit_tiny_distilled_patch16_224"),
    "timm rotary": lambda: of_timm("eva02_base_patch16_clip_224"),
    "timm two attentions": lambda: of_timm("vit_small_patch16_18x2_224"),
    "open_clip": of_open_clip,
    "hf clip": lambda: of_transformers(CLIPVisionModel, CLIPVisionConfig),
    "hf vit": lambda: of_transformers(ViTModel, ViTConfig),
    "hf dinov2": lambda: of_transformers(Dinov2Model, Dinov2Config),
    "hf registers": lambda: of_transformers(Dinov2WithRegistersModel, Dinov2WithRegistersConfig),
    "hf dinov3": lambda: of_transformers(DINOv3ViTModel, DINOv3ViTConfig),
}
OTHERS: dict[str, Callable[[], Split]] = {
    "timm map": lambda: of_timm("vit_base_patch16_siglip_224"),
    "timm mean": lambda: of_timm("vit_tiny_patch16_224", global_pool="avg"),
    "timm mean, rotary": lambda: of_timm("vit_small_patch16_dinov3"),
    "open_clip queries": lambda: of_open_clip(attentional_pool=True),
    "open_clip queries, narrower": lambda: of_open_clip(attentional_pool=True, embed_dim=16),
    "open_clip parallel": lambda: of_open_clip(attentional_pool="parallel"),
    "open_clip cascade": lambda: of_open_clip(attentional_pool="cascade"),
    "hf siglip": lambda: of_transformers(SiglipVisionModel, SiglipVisionConfig),
    "hf class and mean": lambda: of_transformers(Dinov2Model, Dinov2Config, wide=True),
}
ALL = BY_CLASS_TOKEN | OTHERS


def model_of(split: Split) -> Classifier:
    with torch.no_grad():
        width = split.head(split.trunk(noise(1))).shape[1]
    layer = nn.Linear(width, 4)
    wave = torch.sin(torch.arange(layer.weight.numel(), dtype=torch.float64) * 1.7).float()
    layer.weight.data[:] = wave.reshape(layer.weight.shape)
    return Pretrained().build(build(split.trunk, split.head, split.layout, width, classifier=layer))


@pytest.mark.parametrize("name", ALL)
def test_parts_are_no_rounding_noise(name: str) -> None:
    model = model_of(ALL[name]())
    look = model.encoder.encode(noise(3))
    assert reading_of(model.encoder, look.features).numbers
    parts = cell_evidence(model, look, TARGET)
    assert parts.shape == (3, 4, 4)
    assert parts.abs().sum() > 1e-3
    sign = torch.randn(look.features.shape, generator=torch.Generator().manual_seed(1)).sign()
    moved = replace(look, features=look.features * (1 + 1e-6 * sign))
    for one, other in (
        (parts, cell_evidence(model, moved, TARGET)),
        (shares(parts), shares(cell_evidence(model, moved, TARGET))),
    ):
        assert (one - other).norm() < 1e-4 * one.norm()
    assert (HiResCAM()(model, moved, TARGET) - HiResCAM()(model, look, TARGET)).norm() < 1e-3 * parts.norm()
    one_by_one = [cell_evidence(model, look[i : i + 1], Target(TARGET.index[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(torch.cat(one_by_one), parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_single_precision_is_double_precision(name: str) -> None:
    model = model_of(ALL[name]())
    look = model.encoder.encode(noise(3))
    parts = cell_evidence(model, look, TARGET).flatten(1)
    model.encoder.head.double()
    model.head.double()
    exact = cell_evidence(model, EncoderOutput(look.features.double(), look.pooled.double()), TARGET).flatten(1)
    for one, other in zip(parts.double(), exact, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.9999


def values_out(encoder: Encoder, features: Tensor, keep: Tensor) -> Tensor:
    """What timm's own block pools when patches' values count as much as ``keep`` says, their keys as ever."""
    attention = encoder.head.block.attn
    width = attention.qkv.out_features // 3
    n = len(keep)

    def weaken(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, -n:, 2 * width :] *= keep[:, None]
        return out

    handle = attention.qkv.register_forward_hook(weaken)
    try:
        with torch.no_grad():
            return encoder.head(features)
    finally:
        handle.remove()


def lead(model: Classifier, pooled: Tensor) -> Tensor:
    logits = model.head(pooled)
    return TARGET(logits) - logits.mean(1)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 3}, {"init_values": 0.5}, {"qk_norm": True}])
def test_parts_add_up_to_the_difference(options: dict) -> None:
    """Values are taken out by a hook on timm's own layer, which knows nothing of ours."""
    model = model_of(of_timm("vit_tiny_patch16_224", **options))
    look = model.encoder.encode(noise(3))
    parts = cell_evidence(model, look, TARGET).flatten(1)
    lost = lead(model, look.pooled) - lead(model, values_out(model.encoder, look.features, torch.zeros(16)))
    assert ((parts.sum(1) - lost).abs() < 1e-3 * parts.abs().sum(1)).all()
    hires = HiResCAM()(model, look, TARGET).flatten(1)
    whole = TARGET(model.head(look.pooled)) - TARGET(
        model.head(values_out(model.encoder, look.features, torch.zeros(16)))
    )
    assert ((hires.sum(1) - whole).abs() < 1e-3 * hires.abs().sum(1)).all()
    assert not torch.allclose(lost, torch.zeros(3), atol=1e-3)


def test_without_mlp_and_norm_a_part_is_what_one_value_adds() -> None:
    network = random(VisionTransformer(**SMALL, class_token=True, global_pool="token"))
    block = network.blocks[-1]
    block.mlp.fc2.weight.data.zero_()
    network.norm = nn.Identity()
    model = model_of(split_timm(network, (SIDE, SIDE), "linear")[0])
    look = model.encoder.encode(noise(3))
    parts = cell_evidence(model, look, TARGET).flatten(1)
    for patch in (0, 6, 15):
        keep = torch.ones(16)
        keep[patch] = 0
        lost = lead(model, look.pooled) - lead(model, values_out(model.encoder, look.features, keep))
        torch.testing.assert_close(parts[:, patch], lost, rtol=1e-3, atol=1e-5)


def test_a_mean_over_tokens_is_its_closed_form() -> None:
    """Behind a mean and a norm, length held: slope · (token - its mean) / count, by hand."""
    network = random(VisionTransformer(**SMALL, class_token=False, global_pool="avg"))
    model = model_of(split_timm(network, (SIDE, SIDE), "mean")[0])
    look = model.encoder.encode(noise(3))
    with torch.no_grad():
        tokens = network.blocks[-1](look.features)
        pooled = tokens.mean(1)
        length = (pooled.var(1, unbiased=False) + network.fc_norm.eps).sqrt()
        slope = (model.head.weight - model.head.weight.mean(0))[TARGET.index] * network.fc_norm.weight / length[:, None]
        centred = tokens - tokens.mean(2, keepdim=True)
        expected = (centred * slope[:, None]).sum(2) / tokens.shape[1]
    torch.testing.assert_close(cell_evidence(model, look, TARGET).flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_another_target_than_a_class() -> None:
    model = model_of(of_timm("vit_tiny_patch16_224"))
    look = model.encoder.encode(noise(3))
    parts = cell_evidence(model, look, lambda logits: logits.logsumexp(1)).sum((1, 2))
    bare = values_out(model.encoder, look.features, torch.zeros(16))
    lost = model.head(look.pooled).logsumexp(1) - model.head(bare).logsumexp(1)
    torch.testing.assert_close(parts, lost, rtol=1e-3, atol=1e-3)


def test_what_is_read_otherwise_is_gradient_times_feature() -> None:
    """A network whose class token is not read, and one that takes the largest number beside the mean."""
    model = model_of(of_timm("vit_tiny_patch16_224", global_pool="max"))
    look = model.encoder.encode(noise(3))
    assert not reading_of(model.encoder, look.features).numbers
    expected = HiResCAM()(model, look, TARGET)
    torch.testing.assert_close(cell_evidence(model, look, TARGET), expected)
    both = model_of(of_timm("vit_tiny_patch16_224", global_pool="avgmax"))
    assert not reading_of(both.encoder, both.encoder.encode(noise(1)).features).alone


def test_inner_layers_keep_the_papers_product() -> None:
    model = model_of(of_timm("vit_tiny_patch16_224"))
    look = model.encoder.encode(noise(3))
    inner = HiResCAM(layer="blocks.0")(model, look, TARGET)
    assert inner.abs().sum() > 1e-4
    assert not torch.allclose(inner, HiResCAM()(model, look, TARGET))


class OnePatch(VisionTransformer):
    """A class token that looks at all patches alike and takes from their values how red, green or blue they are."""

    def __init__(self) -> None:
        super().__init__(**SMALL)
        for parameter in self.parameters():
            parameter.data.zero_()
        for norm in (m for m in self.modules() if isinstance(m, nn.LayerNorm)):
            norm.weight.data.fill_(1)
        self.cls_token.data[0, 0, 8:16], self.cls_token.data[0, 0, 16:24] = 1, -1
        for channel in range(3):
            self.patch_embed.proj.weight.data[channel, channel] = 1 / 64
            self.patch_embed.proj.weight.data[channel + 24, channel] = -1 / 64
            self.head.weight.data[channel, channel] = 1
        block = self.blocks[-1]
        block.attn.qkv.weight.data[2 * 32 :] = torch.eye(32)
        block.attn.proj.weight.data[:] = torch.eye(32)


@pytest.mark.parametrize("make", ["timm", "module"])
def test_a_model_that_reads_one_patch_through_a_class_token_is_explained_by_it(make: str) -> None:
    torch.manual_seed(0)
    network = OnePatch().eval()
    if make == "timm":
        split, classifier = split_timm(freeze(network), (SIDE, SIDE), "one patch")
        encoder = build(split.trunk, split.head, split.layout, 32, classifier=classifier)
    else:
        encoder = from_module(network, transform=TRANSFORM, engine="torch")
    model = Pretrained().build(encoder)
    for row, column, channel in ((0, 0, 0), (1, 2, 1), (3, 3, 2)):
        pixels = torch.zeros(1, 3, SIDE, SIDE)
        pixels[:, channel, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
        look = encoder.encode(pixels)
        target = Target(model.head(look.pooled).argmax(1))
        assert target.index.item() == channel
        for found in (shares(cell_evidence(model, look, target)), HiResCAM()(model, look, target)):
            assert found[0].argmax() == 4 * row + column
            assert found[0, row, column] > 0.99 * found.clamp(min=0).sum()


def marked(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with one patch of its class's colour: pixels, class, patch."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.5 * torch.randn(n, 3, SIDE, SIDE, generator=generator)
    label, patch = (torch.randint(top, (n,), generator=generator) for top in (3, 16))
    for i, (k, p) in enumerate(zip(label.tolist(), patch.tolist(), strict=True)):
        pixels[i, k, p // 4 * 8 : p // 4 * 8 + 8, p % 4 * 8 : p % 4 * 8 + 8] += 2
    return pixels, label, patch


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "map"])
def test_trained_weights_find_the_planted_patch(pool: str) -> None:
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL | {"depth": 1, "num_classes": 3}, global_pool=pool, class_token=pool == "token")
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(150):
        pixels, label, _ = marked(48, step)
        optimiser.zero_grad()
        functional.cross_entropy(network(pixels), label).backward()
        optimiser.step()
    split, classifier = split_timm(freeze(copy.deepcopy(network)), (SIDE, SIDE), "trained")
    model = Pretrained().build(build(split.trunk, split.head, split.layout, 32, classifier=classifier))
    pixels, label, patch = marked(100, 1000)
    look = model.encoder.encode(pixels)
    assert (model.head(look.pooled).argmax(1) == label).float().mean() > 0.95
    share = shares(cell_evidence(model, look, Target(label))).flatten(1)
    moved = replace(look, features=look.features * (1 + 1e-6))
    assert (shares(cell_evidence(model, moved, Target(label))).flatten(1) - share).abs().max() < 1e-3
    assert (share.argmax(1) == patch).float().mean() > 0.9


def test_grad_cam_is_what_it_was() -> None:
    """Grad-CAM's weights are means over cells, which are no zero there; it stays on the last map."""
    encoder = tiny_vit()
    model = Pretrained().build(encoder)
    look = encoder.encode(noise(3))
    leaf = look.features.clone().requires_grad_()
    gradient = torch.autograd.grad(TARGET(model.head(encoder.head(leaf))).sum(), leaf)[0][:, 1:]
    expected = torch.einsum("bc,btc->bt", gradient.mean(1), look.features[:, 1:])
    torch.testing.assert_close(GradCAM()(model, look, TARGET).flatten(1), expected)


def test_the_largest_beside_the_mean_is_gradient_times_feature() -> None:
    """By hand: the mean's part adds up with the largest held, the largest's is its product with the mean held."""
    network = random(timm.create_model("vit_tiny_patch16_224", **SMALL, global_pool="avgmax"))
    model = model_of(split_timm(network, (SIDE, SIDE), "both")[0])
    look = model.encoder.encode(noise(3))
    leaf = look.features.clone().requires_grad_()
    tokens = network.blocks[-1](leaf)[:, 1:]
    largest, mean = tokens.amax(1) / 2, tokens.mean(1).detach() / 2
    slope = torch.autograd.grad(lead(model, network.fc_norm(largest + mean)).sum(), leaf)[0][:, 1:]
    own = (slope * look.features[:, 1:]).sum(2)
    rest = cell_evidence(model, look, TARGET).flatten(1) - own
    lost = lead(model, look.pooled) - lead(model, network.fc_norm(largest.detach()))
    assert own.abs().sum() > 1e-2
    assert ((rest.sum(1) - lost).abs() < 1e-3 * rest.abs().sum(1)).all()
