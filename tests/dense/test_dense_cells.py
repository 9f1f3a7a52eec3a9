"""Cells among words: the head on one cell alone is the value path of whatever attention it pools with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_refine import wave
from torch import Tensor, nn
from torch.nn.functional import linear

from seewhy.dense.cells import attended_cells, joint_cells
from seewhy.encoders.base import Encoder, Layout, can_grow, larger
from seewhy.encoders.split import example_pixels
from seewhy.errors import InputError, ModelError
from tiny import TRANSFORM, HashedWords, build, tiny_cnn, tiny_tokens

open_clip = pytest.importorskip("open_clip")


def fill(net: nn.Module) -> list[str]:
    """Numbers that the golden ones were made with; the names of what was filled."""
    named = sorted(net.named_parameters())
    with torch.no_grad():
        for i, (name, p) in enumerate(named):
            norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
            p.copy_(0.4 * wave(*p.shape, k=1.1 + 0.01 * i, i=i) + norm)
    return [name for name, _ in named]


def bare(width: int) -> Any:
    """Words into whose space pictures already come."""
    text: Any = HashedWords(width)
    text.project = lambda pooled: pooled
    return text


def clip(kind: str) -> Encoder:
    """open_clip's picture towers with random weights, cut as ``open_clip:`` names are."""
    from seewhy.encoders.open_clip import split_visual

    torch.manual_seed(0)
    if kind == "vit":
        visual: Any = open_clip.transformer.VisionTransformer(32, 8, 16, 2, 2, 4, output_dim=12)
        # Scales and shifts of norms are 1 and 0 at first, which would hide one that is left out.
        for module in visual.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 1, 0.3), nn.init.normal_(module.bias, 0, 0.3)
    else:
        visual = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], 12, 4, image_size=32, width=8)
    visual = visual.eval().requires_grad_(False)
    split, projection = split_visual(visual, (32, 32), kind)
    text: Any = HashedWords(12)
    text.project = projection or (lambda pooled: pooled)
    return Encoder(
        name=kind, transform=TRANSFORM, trunk=lambda: split.trunk, head=split.head, layout=split.layout,
        fingerprint=kind, text=lambda: text, module=lambda: visual, engine="torch",
    )  # fmt: skip


def test_a_transformer_has_maskclips_value_path() -> None:
    encoder, x = clip("vit"), example_pixels((32, 32), batch=2)
    tokens, visual = encoder.forward_features(x), encoder.module
    last: Any = visual.transformer.resblocks[-1]  # type: ignore[union-attr]
    d = 16
    value = linear(last.ln_1(tokens), last.attn.in_proj_weight[2 * d :], last.attn.in_proj_bias[2 * d :])
    y = tokens + last.attn.out_proj(value)
    y = y + last.mlp(last.ln_2(y))
    expected = visual.ln_post(y)[:, 1:] @ visual.proj  # type: ignore[operator]
    found = joint_cells(encoder, tokens)
    assert found.shape == (2, 12, 4, 4)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=2e-6, rtol=1e-5)


def test_a_residual_network_has_maskclips_two_projections() -> None:
    encoder, x = clip("resnet"), example_pixels((64, 64), batch=2)
    features = encoder.forward_features(x)  # a grid of another size than its positions
    pool: Any = encoder.head
    expected = pool.c_proj(pool.v_proj(features.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    assert features.shape[2:] == (2, 2)
    torch.testing.assert_close(joint_cells(encoder, features), expected, atol=1e-6, rtol=1e-5)


def test_cells_that_attend_are_denseclips() -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "denseclip.json").read_text("utf-8"))["pool"]
    pool = open_clip.modified_resnet.AttentionPool2d(3, 16, 2, 12)
    assert fill(pool) == golden["keys"]
    encoder = build(nn.Identity(), pool, Layout(), 16, text=bare(12))
    cells, whole = attended_cells(encoder, wave(2, 16, 2, 4, k=0.7, i=1))
    assert cells.shape == (2, 12, 2, 4)
    torch.testing.assert_close(whole.flatten(), torch.tensor(golden["whole"]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(cells.flatten(), torch.tensor(golden["cells"]), atol=2e-5, rtol=1e-4)
    tiny = tiny_cnn()
    features = tiny.forward_features(example_pixels((32, 32), batch=2))
    cells, whole = attended_cells(tiny, features)
    assert torch.equal(cells, joint_cells(tiny, features))
    torch.testing.assert_close(whole, tiny.text.project(tiny.head(features)))
    with pytest.raises(ModelError, match="The head of 'tiny' has no attention between grid cells"):
        attended_cells(tiny_tokens(), tiny_tokens().forward_features(example_pixels((32, 32))))


def test_a_mean_is_linear_in_its_cells() -> None:
    encoder = tiny_cnn()
    features = encoder.forward_features(example_pixels((32, 32), batch=2))
    found = joint_cells(encoder, features)
    torch.testing.assert_close(found.mean((2, 3)), encoder.text.project(features.mean((2, 3))))
    # The head itself, a cell at a time, says the same.
    encoder.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.testing.assert_close(joint_cells(encoder, features), found)


def test_tokens_with_a_mark_before_them_and_channels_last() -> None:
    encoder = tiny_tokens()
    features = encoder.forward_features(example_pixels((32, 32)))
    both = features[:, 3:4].expand(-1, 2, -1)
    assert torch.equal(joint_cells(encoder, features)[:, :, 0, 2], encoder.text.project(encoder.head(both)))

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2))

    nhwc = build(nn.Identity(), Last(), Layout("nhwc"), 3)
    x = torch.rand(1, 2, 2, 3)
    assert torch.equal(joint_cells(nhwc, x)[0, :, 1, 0], nhwc.text.project(x[0, 1, 0]))


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (nn.Flatten(), "cannot be"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64 * 8, 8)),
            "The head of 'tiny' cannot process a single grid cell (mat1",
        ),
    ],
)
def test_a_head_that_knows_places_is_refused(head: nn.Module, says: str) -> None:
    encoder = tiny_cnn()
    encoder.head = head.requires_grad_(False)
    features = encoder.forward_features(example_pixels((32, 32)))
    if isinstance(head, nn.Flatten):  # of one cell it is the cell
        assert torch.equal(joint_cells(encoder, features), joint_cells(tiny_cnn(), features))
        return
    with pytest.raises(ModelError) as caught:
        joint_cells(encoder, features)
    assert says in str(caught.value)
    encoder.head = nn.Threshold(9.0, float("nan"))
    with pytest.raises(ModelError, match="non-finite vector"):
        joint_cells(encoder, features)


def test_a_larger_input_has_a_finer_map_of_the_same_weights() -> None:
    encoder = tiny_cnn()
    twice = larger(encoder, 2)
    assert twice.transform.input_size == twice.transform.resize == (64, 64)
    x = example_pixels((64, 64))
    torch.testing.assert_close(twice.forward_features(x), encoder.trunk(x))
    assert twice.fingerprint != encoder.fingerprint != larger(encoder, 3).fingerprint != twice.fingerprint
    assert larger(encoder, 1) is encoder
    assert twice.text is encoder.text
    assert can_grow(encoder)
    assert not can_grow(tiny_tokens())
    for wrong, times in ((tiny_tokens(), 2.0), (encoder, -1.0)):
        with pytest.raises(InputError, match=f"cannot be enlarged {times:g} times"):
            larger(wrong, times)
