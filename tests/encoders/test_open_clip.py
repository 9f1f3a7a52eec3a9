"""open_clip encoders against open_clip itself."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from seewhy.encoders.open_clip import TextHalf, find_source, load, transform_of
from seewhy.encoders.split import example_pixels
from seewhy.encoders.text_tokens import Sentence
from seewhy.errors import ModelError, UnknownNameError, WeightsError
from tiny_words import changed_by_a_step, says_what_its_module_says

open_clip = pytest.importorskip("open_clip")

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "timm": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": TEXT,
    },
    "siglip": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "none"},
        "text_cfg": TEXT | {"context_length": 16, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}
WORDS = ["a photo of a cat.", "two dogs, one of them asleep, under a very long table in a garden", "x"]
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def save(folder: Path, config: dict[str, Any], preprocess: dict[str, Any] = PREPROCESS) -> Any:
    """A model with random weights as open_clip publishes it."""
    torch.manual_seed(0)
    custom = config.get("custom_text", False)
    cls = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    kwargs = {k: v for k, v in copy.deepcopy(config).items() if k != "custom_text"}
    model = cls(**kwargs).eval()
    data = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(data))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_equals_open_clip(tmp_path: Path, kind: str) -> None:
    golden = save(tmp_path, CONFIGS[kind])
    encoder = load(f"local-dir:{tmp_path}", engine="torch")
    pixels = example_pixels(encoder.transform.input_size, batch=2, seed=9)
    tokens = open_clip.SimpleTokenizer(context_length=CONFIGS[kind]["text_cfg"]["context_length"])(WORDS)
    with torch.no_grad():
        assert torch.allclose(encoder.encode_image(pixels), golden.encode_image(pixels, normalize=True), atol=1e-5)
        assert torch.allclose(encoder.encode_text(WORDS), golden.encode_text(tokens, normalize=True), atol=1e-5)
    assert encoder.text.logit_scale == pytest.approx(math.exp(golden.logit_scale.item()))
    assert encoder.text.templates == ("a photo of a {}.",)
    look = encoder.encode(pixels)
    grid = {"vit": (4, 4), "resnet": (2, 2)}.get(kind, (10, 10))
    assert encoder.layout.to_grid(look.features).shape[2:] == grid
    leaf = look.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoder.text.project(encoder.head(leaf))[:, 0].sum(), leaf)
    assert (encoder.layout.to_grid(gradient).abs().sum(1) > 0).all()


@pytest.mark.parametrize("kind", CONFIGS)
def test_both_halves_can_be_trained(tmp_path: Path, kind: str) -> None:
    save(tmp_path, CONFIGS[kind])
    encoder = load(f"local-dir:{tmp_path}", engine="torch")
    assert says_what_its_module_says(encoder, WORDS)
    assert not any("visual" in name for name in encoder.text.module.state_dict())
    changed = changed_by_a_step(encoder)
    parts = {name.partition(".")[0] for name in changed}
    assert {"trunk", "words"} <= parts
    assert any("token_embedding" in name for name in changed)
    assert any("text_projection" in name for name in changed)
    assert ("projection" in parts) == (kind in ("vit", "timm"))


def test_pooled_is_the_class_token_before_projection(tmp_path: Path) -> None:
    golden = save(tmp_path, CONFIGS["vit"])
    encoder = load(f"local-dir:{tmp_path}", engine="torch")
    pixels = example_pixels((32, 32), seed=9)
    golden.visual.proj = None
    with torch.no_grad():
        assert torch.allclose(encoder.encode(pixels).pooled, golden.visual(pixels), atol=1e-5)


@pytest.mark.parametrize(("kind", "cut"), [("vit", True), ("siglip", False)])
def test_padding_is_cut_only_where_it_is_exact(tmp_path: Path, kind: str, cut: bool) -> None:
    golden = save(tmp_path, CONFIGS[kind])
    tokens = open_clip.SimpleTokenizer(context_length=CONFIGS[kind]["text_cfg"]["context_length"])(WORDS)
    tower = golden.text if hasattr(golden, "text") else golden
    lengths: list[int] = []
    tower.transformer.register_forward_pre_hook(lambda _m, args: lengths.append(args[0].shape[1]))
    with torch.no_grad():
        ours, theirs = TextHalf(golden, Sentence(77))(tokens), golden.encode_text(tokens)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert (lengths[0] < lengths[1]) == cut


@pytest.mark.parametrize("mode", ["squash", "shortest"])
def test_transform_is_open_clips(tmp_path: Path, mode: str) -> None:
    save(tmp_path, CONFIGS["vit"], PREPROCESS | {"resize_mode": mode})
    transform = load(f"local-dir:{tmp_path}").transform
    _, theirs = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    size = theirs.transforms[0].size
    assert transform.resize == (tuple(size) if isinstance(size, (tuple, list)) else size)
    assert transform.input_size == (32, 32)
    assert transform.interpolation == theirs.transforms[0].interpolation.value
    assert (transform.mean, transform.std) == (tuple(theirs.transforms[-1].mean), tuple(theirs.transforms[-1].std))


def test_padding_resize_is_refused() -> None:
    with pytest.raises(ModelError, match="got 'longest'"):
        transform_of(PREPROCESS | {"size": 32, "resize_mode": "longest"}, "open_clip:x")


def test_folder_without_preprocessing_is_refused(tmp_path: Path) -> None:
    save(tmp_path, CONFIGS["vit"], {"mean": [0.5, 0.5, 0.5]})
    with pytest.raises(ModelError, match="must have std, interpolation, resize_mode"):
        load(f"local-dir:{tmp_path}")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A model name of its own, with a weights file."""
    from open_clip import factory

    before = dict(factory._MODEL_CONFIGS), list(factory._MODEL_CONFIG_PATHS)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/seewhy-tiny.json").write_text(json.dumps(CONFIGS["vit"] | {"quick_gelu": False}))
    open_clip.add_model_config(tmp_path / "configs")
    model = open_clip.create_model("seewhy-tiny")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    yield tmp_path / "weights.safetensors"
    factory._MODEL_CONFIG_PATHS[:] = before[1]
    factory._MODEL_CONFIGS.clear()
    factory._MODEL_CONFIGS.update(before[0])


def test_bare_file_needs_its_preprocessing(tiny: Path) -> None:
    with pytest.raises(ModelError, match="must have mean, std, interpolation, resize_mode"):
        load(f"seewhy-tiny/{tiny}")


@pytest.mark.parametrize("quick", [True, False])
def test_bare_file_with_sidecar(tiny: Path, quick: bool) -> None:
    tiny.with_name(tiny.name + ".json").write_text(json.dumps({"preprocess_cfg": PREPROCESS, "quick_gelu": quick}))
    encoder = load(f"seewhy-tiny/{tiny}", engine="torch")
    assert encoder.transform.resize == (32, 32)
    golden = open_clip.create_model("seewhy-tiny", str(tiny), force_quick_gelu=quick).eval()
    pixels = example_pixels((32, 32), seed=3)
    with torch.no_grad():
        assert torch.allclose(encoder.encode_image(pixels), F.normalize(golden.encode_image(pixels), dim=-1), atol=1e-5)


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_activation_follows_the_tag(tag: str, quick: bool) -> None:
    """ViT-B-32 is defined with GELU, but OpenAI's weights were trained with QuickGELU."""
    assert find_source(f"ViT-B-32/{tag}").quick_gelu is quick


def test_missing_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load("ViT-B-32/laion2b_s34b_b79k")
    assert "of laion/CLIP-ViT-B-32-laion2B-s34B-b79K, and" in str(caught.value)
    assert "'open_clip:local-dir:/path/to/CLIP-ViT-B-32-laion2B-s34B-b79K'" in str(caught.value)


def test_misspelt_names_get_suggestions() -> None:
    with pytest.raises(UnknownNameError, match="ViT-B-32"):
        load("ViT-B32/openai")
    with pytest.raises(UnknownNameError, match="laion2b_s34b_b79k"):
        load("ViT-B-32/laion2b_s34b_b79")
    with pytest.raises(WeightsError, match="does not exist"):
        load("ViT-B-32//nowhere/weights.pt")


def test_unclear_activation_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "weights.safetensors"
    path.touch()
    with caplog.at_level(logging.WARNING, "seewhy"):
        source = find_source(f"ViT-B-32/{path}")
    assert "does not name its activation, so SeeWhy uses GELU" in caplog.text
    assert source.preprocess["resize_mode"] == "shortest"


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_openvino_sees_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    save(tmp_path, CONFIGS[kind])
    encoder = load(f"local-dir:{tmp_path}", engine="openvino")
    pixels = example_pixels(encoder.transform.input_size, batch=2, seed=4)
    with torch.no_grad():
        golden = encoder._trunk()(pixels)
    assert torch.allclose(encoder.forward_features(pixels), golden, atol=2e-2 * float(golden.abs().max()))
