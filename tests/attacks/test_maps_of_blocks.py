"""Attention of other people's transformers: one map a block, in order, or a refusal; never a map too many."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from seewhy import Transform
from seewhy.attributions.attention_rollout import AttentionRollout
from seewhy.attributions.chefer import Chefer
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.module import from_module
from seewhy.encoders.timm import encoder_of
from seewhy.errors import InputError, SeeWhyError
from seewhy.heads.head import Head, Target

SMALL = {"depth": 3, "embed_dim": 48, "num_heads": 3, "num_classes": 5, "img_size": (32, 48), "patch_size": 8}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {}),
    "deeper": ("vit_tiny_patch16_224", {"depth": 12}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "beit": ("beit_base_patch16_224", {}),
    "eva": ("eva02_tiny_patch14_224", {}),
    "mean": ("vit_base_patch16_siglip_gap_224", {}),
    "class token, mean": ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": True}),
    "normed queries": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "relative positions": ("vit_relpos_small_patch16_224", {}),
    "rotary": ("vit_small_patch16_dinov3", {}),
    "scaled layers": ("deit3_small_patch16_224", {}),
}


def network(name: str, options: dict[str, Any], fused: bool = True) -> Any:
    """One of timm's with random weights, none of them neutral, oblong pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model(name, pretrained=False, **SMALL | options)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    if hasattr(model, "head_dist"):  # DeiT takes the mean of two heads
        model.head_dist.load_state_dict(model.head.state_dict())
    return model.eval()


def pixels(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def explained(model: Any, by: str = "module") -> Any:
    transform = Transform((32, 48), (32, 48), "bicubic", (0.5,) * 3, (0.5,) * 3)
    make = encoder_of if by == "timm" else from_module
    encoder = make(model, transform=transform, name="theirs", engine="torch")
    if encoder.classifier is not None:
        return Pretrained().build(encoder)
    weight = model.head.weight.detach() if by == "timm" else torch.eye(5)  # what both heads read, or what they say
    return SimpleNamespace(encoder=encoder, head=Head(lambda pooled: pooled, weight))


def plain(model: Any, given: Tensor) -> tuple[list[Tensor], Tensor]:
    """Every block's weights, as the block itself hands them to its dropout, and the logits that came of them."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        weights = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        kept.append(weights)
        return (weights,)

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with ExitStack() as stack:
        for block in model.blocks:
            stack.enter_context(block.attn.attn_drop.register_forward_pre_hook(keep))
        return kept, model(given)


def reading(model: Any, n: int) -> Tensor:
    """How much of each token the network reads after its last block."""
    prefix = n - 24
    read = torch.zeros(n)
    if getattr(model, "global_pool", "token") == "avg":
        read[prefix:] = 1 / 24
    else:
        read[: 2 if hasattr(model, "head_dist") else 1] = 1
    return read / read.sum()


def rolled(maps: list[Tensor], read: Tensor) -> Tensor:
    """``R ← (A + I) / 2 R``, with the mean of the heads."""
    eye = torch.eye(len(read))
    rollout = eye.expand(len(maps[0]), -1, -1)
    for weights in maps:
        rollout = (weights.mean(1) + eye) / 2 @ rollout
    return (read @ rollout)[:, -24:]


def relevance(maps: list[Tensor], slopes: Any, read: Tensor) -> Tensor:
    """``R ← R + mean of ReLU(∂y/∂A ⊙ A) R``, without a token's look at itself."""
    eye = torch.eye(len(read))
    found = eye.expand(len(maps[0]), -1, -1)
    for weights, slope in zip(maps, slopes, strict=True):
        found = found + (weights * slope).clamp(min=0).mean(1) @ found
    return (read @ (found - eye))[:, -24:]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
@pytest.mark.parametrize("by", ["module", "timm"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_block_counts_once(kind: str, by: str, fused: bool) -> None:
    name, options = NETWORKS[kind]
    given, target = pixels(), Target(torch.tensor([1, 3]))
    theirs = network(name, options, fused=False)
    maps, logits = plain(theirs, given)
    assert len(maps) == len(theirs.blocks)
    slopes = torch.autograd.grad(logits[0, 1] + logits[1, 3], maps)
    read = reading(theirs, maps[0].shape[-1])
    model = explained(network(name, options, fused), by)
    look = model.encoder.encode(given)
    for ours, expected in (
        (AttentionRollout()(model, look, target), rolled(maps, read).detach()),
        (Chefer()(model, look, target), relevance(maps, slopes, read).detach()),
    ):
        assert expected.std() > 1e-6
        torch.testing.assert_close(ours.flatten(1), expected, atol=1e-4 * float(expected.max()), rtol=1e-3)


@pytest.mark.parametrize("planted", [0, 7, 23])
def test_the_place_that_is_read_is_shown(planted: int) -> None:
    """Every query looks where the fourth channel is, every other channel says nothing, and one patch has it."""
    model = network("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "pos_embed": "none"})
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.bias.zero_()
        model.patch_embed.proj.weight[0] = 1.0
        for block in model.blocks:
            block.attn.qkv.weight[:96].zero_()
            block.attn.qkv.bias[:48] = 1.0
            block.attn.qkv.weight[48:96, 0] = 1.0
            block.attn.qkv.bias[48:].zero_()
    given = torch.zeros(1, 3, 32, 48)
    row, column = divmod(planted, 6)
    given[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 1.0
    explainable = explained(model)
    look = explainable.encoder.encode(given)
    for method in (AttentionRollout(), Chefer()):
        assert int(method(explainable, look, Target(torch.tensor([1]))).flatten().argmax()) == planted


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_small_patch16_18x2_224", {}),
        ("vit_dpwee_patch16_reg1_gap_256", {}),
    ],
    ids=["parallel blocks", "differential attention"],
)
def test_attention_side_by_side_is_refused(name: str, options: dict[str, Any]) -> None:
    model = explained(network(name, options))
    look = model.encoder.encode(pixels(1))
    for method in (AttentionRollout(), Chefer()):
        with pytest.raises(InputError) as caught:
            method(model, look, Target(torch.tensor([1])))
        assert str(caught.value) == (
            f"{method.name} needs a vision transformer with one attention layer per block, but 'theirs' has "
            "parallel layers. Use grad_cam, rise or occlusion."
        )


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "cait_xxs24_224", "xcit_nano_12_p16_224"])
def test_pooling_by_attention_is_refused(name: str) -> None:
    model = explained(network(name, {}))
    look = model.encoder.encode(pixels(1))
    for method in (AttentionRollout(), Chefer()):
        with pytest.raises(SeeWhyError, match="also has maps of"):
            method(model, look, Target(torch.tensor([1])))
