"""Attention rollout and Chefer's rule: the authors' numbers, a computation by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seewhy.attributions import attributions
from seewhy.attributions.attention import Capture, read_tokens, run_with_attention
from seewhy.attributions.attention_rollout import AttentionRollout
from seewhy.attributions.chefer import Chefer
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder
from seewhy.encoders.split import Split, freeze
from seewhy.errors import InputError
from seewhy.heads.head import Target
from tiny import build, noise, tiny_cnn, tiny_tokens
from tiny_transformer import tiny_network, tiny_vit, waves

GOLDEN = Path(__file__).parents[1] / "golden"
TARGET = Target(torch.tensor([1, 3]))
METHODS = [AttentionRollout(), Chefer()]


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def explained(encoder: Encoder) -> Classifier:
    return Pretrained().build(encoder)


def test_chefer_gives_the_authors_numbers() -> None:
    known = golden("chefer")
    model = explained(tiny_vit())
    maps = Chefer()(model, model.encoder.encode(waves()), Target(torch.tensor(known["index"])))
    expected = torch.tensor(known["maps"]).reshape(2, 4, 4)
    assert expected.std() > 1e-3
    torch.testing.assert_close(maps, expected, atol=known["tolerance"], rtol=1e-5)


def test_rollout_gives_the_numbers_of_vit_explain() -> None:
    known = golden("attention_rollout")
    model = explained(tiny_vit())
    maps = AttentionRollout()(model, model.encoder.encode(waves()), TARGET)
    expected = torch.tensor(known["maps"]).reshape(2, 4, 4)
    torch.testing.assert_close(maps / maps.amax((1, 2), keepdim=True), expected, atol=known["tolerance"], rtol=1e-5)


def test_rollout_of_two_written_out_layers() -> None:
    first = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.1, 0.1, 0.8]])
    second = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    residual = AttentionRollout().residual
    rolled = residual(second[None, None])[0] @ residual(first[None, None])[0]
    torch.testing.assert_close(rolled[0], torch.tensor([0.30, 0.625, 0.075]))


def test_fusions_and_discarding() -> None:
    heads = torch.tensor([[[[0.9, 0.1], [0.4, 0.6]], [[0.3, 0.7], [0.2, 0.8]]]])
    one = AttentionRollout(head_fusion="max").residual(heads)[0]
    torch.testing.assert_close(one, torch.tensor([[1.9 / 2.6, 0.7 / 2.6], [0.4 / 2.2, 1.8 / 2.2]]))
    one = AttentionRollout(head_fusion="min").residual(heads)[0]
    torch.testing.assert_close(one, torch.tensor([[1.3 / 1.4, 0.1 / 1.4], [0.2 / 1.8, 1.6 / 1.8]]))
    # The mean is [[.6, .4], [.3, .7]]; the lower half, .3 and .4, goes.
    one = AttentionRollout(discard_ratio=0.5).residual(heads)[0]
    torch.testing.assert_close(one, torch.eye(2))


def test_chefer_is_the_rule_on_a_forward_pass_written_out() -> None:
    network = freeze(tiny_network(reg_tokens=2, global_pool="avg", fc_norm=True))
    model = explained(tiny_vit(network))
    pixels = waves()
    maps = Chefer()(model, model.encoder.encode(pixels), TARGET)
    tokens, kept = network._pos_embed(network.patch_embed(pixels)), []
    for block in network.blocks:
        weights, tokens = by_hand(block, tokens)
        kept.append(weights)
    logits = network.forward_head(network.norm(tokens))
    torch.testing.assert_close(logits, network(pixels), atol=1e-5, rtol=1e-5)
    slopes = torch.autograd.grad(logits[0, 1] + logits[1, 3], kept)
    relevance = torch.eye(19).expand(2, -1, -1)
    for weights, slope in zip(kept, slopes, strict=True):
        relevance = relevance + (weights * slope).clamp(min=0).mean(1) @ relevance
    rows = (relevance - torch.eye(19))[:, 3:].mean(1)  # one class and two register tokens lead
    torch.testing.assert_close(maps.flatten(1), rows[:, 3:], atol=1e-6, rtol=1e-4)


def by_hand(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A block of timm's, its attention as an explicit matrix."""
    attn = block.attn
    query, key, value = (
        part.unflatten(2, (attn.num_heads, -1)).transpose(1, 2) for part in attn.qkv(block.norm1(tokens)).chunk(3, 2)
    )
    weights = (query @ key.mT / attn.head_dim**0.5).softmax(-1)
    weights = weights if weights.requires_grad else weights.requires_grad_()
    tokens = tokens + attn.proj((weights @ value).transpose(1, 2).flatten(2))
    return weights, tokens + block.mlp(block.norm2(tokens))


def test_chefer_knows_the_class_and_rollout_does_not() -> None:
    model = explained(tiny_vit())
    look = model.encoder.encode(waves())
    other = Target(torch.tensor([0, 2]))
    assert not torch.allclose(Chefer()(model, look, TARGET), Chefer()(model, look, other))
    assert torch.equal(AttentionRollout()(model, look, TARGET), AttentionRollout()(model, look, other))
    contrast = Chefer()(model, look, Target(torch.tensor([1, 3]), torch.tensor([0, 0])))
    assert not torch.allclose(contrast, Chefer()(model, look, TARGET))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_batch_size_changes_nothing(method: Any) -> None:
    model = explained(tiny_vit())
    look = model.encoder.encode(waves(3))
    target = Target(torch.tensor([1, 3, 0]))
    one = type(method)(batch_size=1)(model, look, target)
    torch.testing.assert_close(one, method(model, look, target), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, {0: 1.0}),
        ({"reg_tokens": 4}, {0: 1.0}),
        ({"global_pool": "avg", "reg_tokens": 1}, dict.fromkeys(range(2, 18), 1 / 16)),
        ({"global_pool": "avg", "class_token": False}, dict.fromkeys(range(16), 1 / 16)),
    ],
    ids=["class token", "registers", "mean after two", "mean of all"],
)
def test_the_pooled_tokens_are_found(options: dict[str, Any], rows: dict[int, float]) -> None:
    model = explained(tiny_vit(**options))
    prefix = model.encoder.layout.prefix
    look = model.encoder.encode(waves(1))
    (seen,) = run_with_attention("this", model, look, 4)
    found = read_tokens(seen, prefix)[0]
    torch.testing.assert_close(found, torch.tensor([rows.get(i, 0.0) for i in range(16 + prefix)]))
    torch.testing.assert_close(seen.pooled, look.pooled, atol=1e-5, rtol=1e-5)
    for method in METHODS:
        assert method(model, look, Target(torch.tensor([1]))).shape == (1, 4, 4)


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": "bool"}, {"attn_mask": "f"}]
)
def test_unfused_attention_is_attention(options: dict[str, Any]) -> None:
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 6, generator=random)
    mask = torch.randn(5, 5, generator=random)
    if "attn_mask" in options:
        options = {"attn_mask": mask > -1 if options["attn_mask"] == "bool" else mask}
    expected = scaled_dot_product_attention(query, key, value, **options)
    with Capture() as capture:
        found = scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(capture.maps[0].sum(-1), torch.ones(2, 4, 5))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_unfused_packed_attention_is_attention(masked: bool, need_weights: bool) -> None:
    layer = freeze(nn.MultiheadAttention(8, 2, batch_first=True))
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if masked else None
    expected, weights = layer(tokens, tokens, tokens, attn_mask=mask, need_weights=True)
    with Capture() as capture:
        found, shown = layer(tokens, tokens, tokens, attn_mask=mask, need_weights=need_weights)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(capture.maps[0].mean(1), weights, atol=1e-6, rtol=1e-5)
    assert (shown is not None) == need_weights


def vision_towers() -> dict[str, Any]:
    """A picture tower of every library, as its own encoder cuts it."""
    import transformers
    from open_clip.transformer import VisionTransformer

    from seewhy.encoders.huggingface import split_tower
    from seewhy.encoders.open_clip import split_visual

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    visual = VisionTransformer(32, 8, 16, 2, 2, 2.0, output_dim=8)
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes, intermediate_size=32))
    registers = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes, mlp_ratio=2))
    siglip = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes, intermediate_size=32))

    def tower(model: Any) -> Split:
        return split_tower(getattr(model, "vision_model", model), None, (32, 32), "tower")[0]

    return {
        "open_clip": split_visual(freeze(visual), (32, 32), "tower")[0],
        "hf clip": tower(freeze(clip)),
        "hf registers": tower(freeze(registers)),
        "hf siglip": tower(freeze(siglip)),
    }


def test_towers_of_every_library_are_read_or_refused() -> None:
    pytest.importorskip("open_clip")
    pytest.importorskip("transformers")
    with torch.random.fork_rng():
        towers = vision_towers()
    for name, split in towers.items():
        model = explained(build(split.trunk, split.head, split.layout, 16, name=name))
        look = model.encoder.encode(noise(2))
        if name == "hf siglip":
            with pytest.raises(InputError) as caught:
                Chefer()(model, look, TARGET)
            assert str(caught.value) == (
                "chefer needs a vision transformer whose attention maps are 16 x 16, but 'hf siglip' also has maps of "
                "1 x 16, perhaps from windows or attention pooling. Use grad_cam, rise or occlusion."
            )
            continue
        (seen,) = run_with_attention("this", model, look, 4)
        assert len(seen.maps) == 2
        torch.testing.assert_close(seen.pooled, look.pooled, atol=1e-5, rtol=1e-5)
        for method in METHODS:
            assert method(model, look, TARGET).shape == (2, 4, 4)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("make", [tiny_cnn, tiny_tokens])
def test_networks_without_attention_are_refused(method: Any, make: Any) -> None:
    model = explained(make())
    with pytest.raises(InputError) as caught:
        method(model, model.encoder.encode(noise(2)), TARGET)
    assert str(caught.value) == (
        f"{method.name} needs a vision transformer, but 'tiny' has no attention between patch tokens. Use "
        "grad_cam, rise or occlusion."
    )


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"`head_fusion` of .* must be"):
        AttentionRollout(head_fusion="sum")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`discard_ratio` of .* must be"):
        AttentionRollout(discard_ratio=1.0)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_or_not_is_left_as_it_was_and_makes_no_difference(fused: bool) -> None:
    network = tiny_network()
    for block in network.blocks:
        block.attn.fused_attn = fused
    model = explained(tiny_vit(network))
    maps = Chefer()(model, model.encoder.encode(waves()), TARGET)
    expected = torch.tensor(golden("chefer")["maps"]).reshape(2, 4, 4)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-5)
    assert all(block.attn.fused_attn is fused for block in network.blocks)


def test_both_are_registered() -> None:
    assert {"attention_rollout", "chefer"} <= set(attributions)
