"""transformers encoders against transformers itself."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import seewhy
from seewhy.encoders.base import GlobalAverage, Layout
from seewhy.encoders.huggingface import load, transform_of
from seewhy.encoders.split import example_pixels
from seewhy.errors import ModelError, WeightsError
from tiny_words import changed_by_a_step, says_what_its_module_says

transformers = pytest.importorskip("transformers")

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VISION = VIT | {"image_size": 32, "patch_size": 8}
PLAIN = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
WORDS = ["a photo of a cat", "two dogs", "a cat"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def save(folder: Path, model: Any, processor: Any) -> Any:
    """Random weights as save_pretrained writes them; biases and norms moved away from their neutral start."""
    torch.manual_seed(0)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def tokenizer(folder: Path) -> None:
    """A word-level tokenizer with CLIP's two special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "a", "photo", "of", "cat", "two", "dogs", "<start>", "<end>"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 7), ("<end>", 8)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    fast.save_pretrained(folder)


def text_config(**more: Any) -> dict[str, Any]:
    own = {"vocab_size": 9, "max_position_embeddings": 12, "bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 0}
    return VIT | own | more


def clip() -> Any:
    config = transformers.CLIPConfig(text_config=text_config(), vision_config=VISION, projection_dim=24)
    return transformers.CLIPModel(config)


def siglip() -> Any:
    config = transformers.SiglipConfig(text_config=text_config(projection_size=32), vision_config=VISION)
    return transformers.SiglipModel(config)


def embedding(out: Any) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out.pooler_output


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_pairs_equal_transformers(tmp_path: Path, kind: str) -> None:
    golden = pair(tmp_path, kind)
    encoder = load(str(tmp_path), engine="torch")
    pixels = example_pixels((32, 32), batch=2, seed=9)
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        WORDS, padding="max_length", max_length=12, return_tensors="pt"
    )
    known = {"input_ids": ids["input_ids"]} | ({"attention_mask": ids["attention_mask"]} if kind == "clip" else {})
    with torch.no_grad():
        pictures = F.normalize(embedding(golden.get_image_features(pixel_values=pixels)), dim=-1)
        words = F.normalize(embedding(golden.get_text_features(**known)), dim=-1)
        pooled = golden.vision_model(pixel_values=pixels).pooler_output
    assert torch.allclose(encoder.encode_image(pixels), pictures, atol=1e-5)
    assert torch.allclose(encoder.encode_text(WORDS), words, atol=1e-6)
    look = encoder.encode(pixels)
    assert torch.allclose(look.pooled, pooled, atol=1e-5)
    assert encoder.layout == Layout("tokens", (4, 4), int(kind == "clip"))
    assert encoder.text.logit_scale == pytest.approx(math.exp(golden.logit_scale.item()))
    assert encoder.transform.resize == (36 if kind == "clip" else (32, 32))
    gradient_everywhere(encoder, look)


def pair(folder: Path, kind: str) -> Any:
    """A saved CLIP or SigLIP with its processor and tokenizer."""
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    if kind == "siglip":
        processor = transformers.SiglipImageProcessor(**PLAIN)
    golden = save(folder, clip() if kind == "clip" else siglip(), processor)
    tokenizer(folder)
    return golden


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_both_halves_can_be_trained(tmp_path: Path, kind: str) -> None:
    pair(tmp_path, kind)
    encoder = load(str(tmp_path), engine="torch")
    assert says_what_its_module_says(encoder, WORDS)
    assert not any("vis" in name for name in encoder.text.module.state_dict())
    changed = changed_by_a_step(encoder)
    parts = {name.partition(".")[0] for name in changed}
    assert parts == {"trunk", "pool", "words"} | ({"projection"} if kind == "clip" else set())
    assert any("token_embedding" in name for name in changed)


def gradient_everywhere(encoder: Any, look: Any) -> None:
    leaf = look.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoder.head(leaf).square().sum(), leaf)
    assert (encoder.layout.to_grid(gradient).abs().sum(1) > 0).all()


def classifiers() -> dict[str, tuple[Any, Layout]]:
    t, labels = transformers, {"num_labels": 3, "id2label": {0: "cat", 1: "dog", 2: "eel"}}
    conv = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]} | labels
    dino = VISION | {"num_register_tokens": 3} | labels
    return {
        "vit": (t.ViTForImageClassification(t.ViTConfig(**VISION, **labels)), Layout("tokens", (4, 4), 1)),
        "dinov2": (t.Dinov2ForImageClassification(t.Dinov2Config(**VISION, **labels)), Layout("tokens", (4, 4), 1)),
        "registers": (
            t.Dinov2WithRegistersForImageClassification(t.Dinov2WithRegistersConfig(**dino)),
            Layout("tokens", (4, 4), 4),
        ),
        "convnext": (t.ConvNextForImageClassification(t.ConvNextConfig(**conv)), Layout("nchw")),
        "resnet": (
            t.ResNetForImageClassification(t.ResNetConfig(**conv, embedding_size=8, layer_type="basic")),
            Layout("nchw"),
        ),
    }


@pytest.mark.parametrize("kind", ["vit", "dinov2", "registers", "convnext", "resnet"])
def test_classifiers_equal_transformers(tmp_path: Path, kind: str) -> None:
    model, layout = classifiers()[kind]
    side = {"height": 64, "width": 64} if layout.kind == "nchw" else PLAIN["size"]
    golden = save(tmp_path, model, transformers.ViTImageProcessor(**PLAIN | {"size": side}))
    encoder = load(str(tmp_path), engine="torch")
    assert encoder.layout == layout
    assert encoder.classes == ("cat", "dog", "eel")
    assert isinstance(encoder.head, GlobalAverage) == (kind == "resnet")
    pixels = example_pixels(encoder.transform.input_size, batch=2, seed=9)
    look = encoder.encode(pixels)
    with torch.no_grad():
        assert torch.allclose(encoder.classifier(look.pooled), golden(pixels).logits, atol=1e-5)
    gradient_everywhere(encoder, look)


def test_two_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    model, _ = classifiers()["vit"]
    model.config.id2label = {0: "crane", 1: "cat", 2: "crane"}
    save(tmp_path, model, transformers.ViTImageProcessor(**PLAIN))
    assert seewhy.pretrained(load(str(tmp_path), engine="torch")).classes == ("crane (0)", "cat", "crane (2)")


@pytest.mark.parametrize("kind", ["vit", "registers", "dinov3"])
def test_backbones_pool_the_class_token(tmp_path: Path, kind: str) -> None:
    t = transformers
    dino = VISION | {"num_register_tokens": 3}
    if kind == "vit":
        model: Any = t.ViTModel(t.ViTConfig(**VISION), add_pooling_layer=False)
    elif kind == "registers":
        model = t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**dino))
    else:
        model = t.DINOv3ViTModel(t.DINOv3ViTConfig(**dino))
    golden = save(tmp_path, model, t.ViTImageProcessor(**PLAIN))
    encoder = load(str(tmp_path), engine="torch")
    pixels = example_pixels((32, 32), batch=2, seed=9)
    with torch.no_grad():
        tokens = golden(pixels).last_hidden_state
    look = encoder.encode(pixels)
    assert torch.allclose(look.pooled, tokens[:, 0], atol=1e-5)
    assert encoder.layout.prefix == (1 if kind == "vit" else 4)
    assert encoder.classifier is None
    assert encoder.fingerprint == load(str(tmp_path)).fingerprint
    gradient_everywhere(encoder, look)


@pytest.mark.parametrize(
    ("said", "size", "resize"),
    [
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, (224, 224), 256),
        ({"size": {"height": 224, "width": 200}, "do_center_crop": False}, (224, 200), (224, 200)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "do_center_crop": None}, (224, 224), 256),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875, "do_center_crop": None}, (384, 384), (384, 384)),
    ],
)
def test_transform(said: dict[str, Any], size: tuple[int, int], resize: object) -> None:
    base = {"do_center_crop": True, "resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    transform = transform_of(base | said, "hf:x")
    assert (transform.input_size, transform.resize, transform.interpolation) == (size, resize, "bicubic")
    assert (transform.mean, transform.std) == ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    "said",
    [
        {"size": {"shortest_edge": 224}},
        {"size": {"height": 8, "width": 8}, "resample": 0},
        {"size": {"height": 8, "width": 8}, "do_rescale": False},
        {"size": {"height": 8, "width": 8}, "do_pad": True},
    ],
)
def test_other_preprocessing_is_refused(said: dict[str, Any]) -> None:
    base = {"resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    with pytest.raises(ModelError, match="The preprocessing of hf:x must be a resize"):
        transform_of(base | said, "hf:x")


def test_pixels_equal_the_processor(tmp_path: Path) -> None:
    """Same numbers for a picture that already has the input size: mean, std, scale and channel order."""
    processor = transformers.ViTImageProcessor(**PLAIN)
    save(tmp_path, transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False), processor)
    picture = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    theirs = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    assert torch.allclose(load(str(tmp_path)).pixels([picture]), theirs, atol=1e-5)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False)
    with pytest.raises(WeightsError, match=r"must have config\.json and weights, but it is"):
        load(str(tmp_path))
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is missing"):
        load(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="but weights are missing"):
        load(str(tmp_path))
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(WeightsError, match=r"a pickle such as pytorch_model\.bin"):
        load(str(tmp_path))


def test_unknown_family_is_refused(tmp_path: Path) -> None:
    config = transformers.BeitConfig(**VISION)
    save(tmp_path, transformers.BeitModel(config, add_pooling_layer=False), transformers.ViTImageProcessor(**PLAIN))
    with pytest.raises(ModelError, match="got the type 'beit'"):
        load(str(tmp_path))


def test_missing_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load("openai/clip-vit-base-patch32")
    assert "has no model.safetensors of openai/clip-vit-base-patch32" in str(caught.value)
    assert "'hf:/path/to/clip-vit-base-patch32'" in str(caught.value)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}})
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
def test_openvino_sees_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    config = transformers.DINOv3ViTConfig(**VISION, num_register_tokens=3)
    save(tmp_path, transformers.DINOv3ViTModel(config), transformers.ViTImageProcessor(**PLAIN))
    encoder = load(str(tmp_path), engine="openvino")
    pixels = example_pixels((32, 32), batch=2, seed=4)
    with torch.no_grad():
        golden = encoder._trunk()(pixels)
    assert torch.allclose(encoder.forward_features(pixels), golden, atol=2e-2 * float(golden.abs().max()))


def test_vectors_inside_both_halves_have_a_gradient(tmp_path: Path) -> None:
    from seewhy.learning.adaptation.prompts import Names
    from seewhy.learning.adaptation.tower_prompts import TowerPrompt, Towers, TowerTask
    from seewhy.training.batches import Batch

    pair(tmp_path, "clip")
    towers = Towers.of(load(str(tmp_path), engine="torch"))
    assert (towers.n_layers, towers.n_text, towers.width) == (2, 2, 32)
    prompt = TowerPrompt.begun(towers, "a photo of", 3, 2, None)
    task = TowerTask(towers, prompt, Names(towers.text, ["cat", "two dogs"]))
    batch = Batch([0, 1], {"pixels": example_pixels((32, 32), 2), "labels": torch.tensor([0, 1])})
    task.loss(task.features(batch), batch)["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in prompt.parameters())
