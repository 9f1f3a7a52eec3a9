"""Models with too few, misnamed, wrong or too many tensors: refused by name, in no memory; never answered by chance."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from damage import in_time
from safetensors.torch import load_file, save_file
from torch import Tensor

import seewhy
from seewhy.encoders.fence import building, silent
from seewhy.errors import ModelError, WeightsError

transformers = pytest.importorskip("transformers")
open_clip = pytest.importorskip("open_clip")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VISION = SMALL | {"image_size": 32, "patch_size": 8}
TEXT = SMALL | {"vocab_size": 9, "max_position_embeddings": 12, "bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 0}
SIDE = {"size": {"height": 32, "width": 32}}
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def hf(folder: Path, model: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng(), silent():
        model = model or transformers.ViTForImageClassification(transformers.ViTConfig(**VISION, num_labels=3))
        model.save_pretrained(folder)
    transformers.ViTImageProcessor(**SIDE).save_pretrained(folder)
    return folder


def saved_timm(folder: Path) -> Path:
    from timm.models._hub import save_for_hf

    with torch.random.fork_rng():
        model = timm.create_model("test_vit", pretrained=False, num_classes=3)
    save_for_hf(model, folder, safe_serialization=True)
    (folder / "pytorch_model.bin").unlink(missing_ok=True)
    return folder


def saved_file(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng():
        model = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    transform = seewhy.Transform((64, 64), 64, "bicubic", (0.5,) * 3, (0.5,) * 3).to_json()
    card = {"architecture": "test_resnet", "num_classes": 3, "transform": transform}
    (folder / "model.safetensors.json").write_text(json.dumps(card))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def saved_open_clip(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
    with torch.random.fork_rng():
        model = open_clip.model.CLIP(24, dict(vision), dict(text))
    way = {"mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    card = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": way}
    (folder / "open_clip_config.json").write_text(json.dumps(card))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


KINDS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "hf": (hf, "hf:{}", "vit.encoder.layer.1.layernorm_after.weight"),
    "timm": (saved_timm, "timm:{}", "blocks.1.norm1.weight"),
    "file": (saved_file, "file:{}/model.safetensors", "layer2.0.conv1.weight"),
    "open_clip": (saved_open_clip, "open_clip:local-dir:{}", "visual.transformer.resblocks.1.ln_1.weight"),
}


def changed(folder: Path, change: Change) -> None:
    (file,) = folder.glob("*.safetensors")
    save_file({name: t.contiguous() for name, t in change(load_file(file)).items()}, file, {"format": "pt"})


def without(part: str) -> Change:
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


def with_(part: str, how: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: {name: how(t) if part in name else t for name, t in tensors.items()}


def nan(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan)


CHANGES: dict[str, Callable[[str], Change]] = {
    "one is missing": without,
    "all are missing": lambda _: lambda tensors: {"x": torch.zeros(3)},
    "one is misnamed": lambda part: lambda tensors: {n.replace(part, f"{part}_"): t for n, t in tensors.items()},
    "all are misnamed": lambda _: lambda tensors: {f"net.{n}": t for n, t in tensors.items()},
    "another shape": lambda part: with_(part, lambda t: t[:2].clone()),
    "whole numbers": lambda part: with_(part, lambda t: t.long()),
    "no numbers": lambda part: with_(part, nan),
    "infinite": lambda part: with_(part, lambda t: t / 0 + torch.inf),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_its_weights_is_refused(tmp_path: Path, kind: str, change: str) -> None:
    save, name, part = KINDS[kind]
    folder = save(tmp_path / "m")
    assert seewhy.encoder(name.format(folder), engine="torch").fingerprint
    changed(folder, CHANGES[change](part))
    with pytest.raises(WeightsError) as caught:
        seewhy.encoder(name.format(folder), engine="torch")
    told = str(caught.value)
    assert "\n" not in told
    assert str(folder) in told
    if not change.startswith("all"):
        assert part.removeprefix("vit.encoder.layer.1.") in told


def test_transformers_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = hf(tmp_path / "m")
    seewhy.encoder(f"hf:{folder}", engine="torch")
    changed(folder, without("layer.1."))
    with pytest.raises(WeightsError):
        seewhy.encoder(f"hf:{folder}", engine="torch")
    assert capfd.readouterr() == ("", "")


def test_what_no_answer_reads_may_be_missing(tmp_path: Path) -> None:
    """A pooler, a mask's token, the other half's bias, and a decoder that only training needs."""
    vit = hf(tmp_path / "vit", transformers.ViTModel(transformers.ViTConfig(**VISION), use_mask_token=True))
    full = seewhy.encoder(f"hf:{vit}", engine="torch")
    changed(vit, without("pooler"))
    changed(vit, without("mask_token"))
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    again = seewhy.encoder(f"hf:{vit}", engine="torch")
    assert torch.equal(full.encode(pixels).pooled, again.encode(pixels).pooled)
    more = {"head.weight": torch.zeros(2), "decoder.layer.0.weight": torch.zeros(3)}
    changed(vit, lambda tensors: tensors | more)
    assert torch.equal(seewhy.encoder(f"hf:{vit}", engine="torch").encode(pixels).pooled, full.encode(pixels).pooled)


def test_a_layer_more_than_the_configuration_says_is_refused(tmp_path: Path) -> None:
    folder = hf(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(WeightsError, match=r"have vit\.layers\.1\..* and 13 more, but its network does not\."):
        seewhy.encoder(f"hf:{folder}", engine="torch")


def test_half_a_pair_is_refused_for_the_half_that_is_read(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    pair = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    folder = hf(tmp_path / "m", transformers.CLIPModel(pair))
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "a", "b"])}, unk_token="<pad>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>").save_pretrained(folder)
    assert seewhy.encoder(f"hf:{folder}", engine="torch").encode_text(["a"]).isfinite().all()
    changed(folder, without("text_model.encoder.layers.1.mlp.fc1.bias"))
    with pytest.raises(WeightsError, match=r"lack text_model\.encoder\.layers\.1\.mlp\.fc1\.bias\. Save the model"):
        seewhy.encoder(f"hf:{folder}", engine="torch")


def test_a_head_of_other_classes_is_refused(tmp_path: Path) -> None:
    """timm drops a head whose classes are not those its configuration says the weights have, and draws another."""
    folder = saved_timm(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_classes": 5, "pretrained_cfg": config["pretrained_cfg"] | {"num_classes": 3}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"lack head\.bias, head\.weight"):
        seewhy.encoder(f"timm:{folder}", engine="torch")


@pytest.mark.parametrize(
    ("kind", "config", "edit"),
    [
        ("hf", "config.json", {"hidden_size": 32_768, "intermediate_size": 131_072}),
        ("hf", "config.json", {"num_hidden_layers": 900}),
        ("hf", "config.json", {"num_hidden_layers": 1_000_000_000}),
        ("hf", "config.json", {"num_labels": 1_000_000_000}),
        ("hf", "config.json", {"image_size": 400_000}),
        ("timm", "config.json", {"model_args": {"embed_dim": 65_536}}),
        ("timm", "config.json", {"model_args": {"depth": 900}}),
        ("timm", "config.json", {"model_args": {"depth": 1_000_000_000}}),
        ("timm", "config.json", {"num_classes": 100_000_000}),
        ("file", "model.safetensors.json", {"num_classes": 1_000_000_000}),
        ("file", "model.safetensors.json", {"architecture": "vit_giant_patch14_224"}),
        ("open_clip", "open_clip_config.json", {"vision_cfg": {"width": 65_536}}),
        ("open_clip", "open_clip_config.json", {"vision_cfg": {"image_size": 400_000}}),
        ("open_clip", "open_clip_config.json", {"vision_cfg": {"layers": 100_000_000}}),
    ],
    ids=lambda v: json.dumps(v) if isinstance(v, dict) else None,
)
def test_a_network_far_larger_than_its_weights_is_not_built(
    tmp_path: Path, kind: str, config: str, edit: dict[str, Any]
) -> None:
    save, name, _ = KINDS[kind]
    folder = save(tmp_path / "m")
    seewhy.encoder(name.format(folder), engine="torch")
    card = json.loads((folder / config).read_text())
    inner = card.get("model_cfg", card)
    for key, value in edit.items():
        inner[key] = inner.get(key, {}) | value if isinstance(value, dict) else value
    (folder / config).write_text(json.dumps(card))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with in_time(60), pytest.raises(ModelError) as caught:
        seewhy.encoder(name.format(folder), engine="torch")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("way", ["up", "absolute", "link", "folder", "list", "number"])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path: Path, way: str) -> None:
    folder, out = hf(tmp_path / "m"), tmp_path / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(out)
    link = folder / "part.safetensors"
    link.symlink_to(out)
    (folder / "inner").mkdir()
    (folder / "inner" / "part.safetensors").symlink_to(out)
    file = {"up": "../elsewhere.safetensors", "absolute": str(out), "link": link.name, "list": [link.name], "number": 3}
    named = file.get(way, "inner/part.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(out), named)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="must name files in its own folder"):
        seewhy.encoder(f"hf:{folder}", engine="torch")


def test_shards_are_read_where_they_are_copied_and_where_the_cache_links_them(tmp_path: Path) -> None:
    plain = hf(tmp_path / "m")
    tensors = load_file(plain / "model.safetensors")
    (plain / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, plain / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    (plain / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    first = seewhy.encoder(f"hf:{plain}", engine="torch").fingerprint
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "1f").mkdir(parents=True)
    for number, file in enumerate(sorted(plain.iterdir())):
        file.rename(cache / "blobs" / str(number))
        (cache / "snapshots" / "1f" / file.name).symlink_to(Path("../../blobs") / str(number))
    assert seewhy.encoder(f"hf:{cache / 'snapshots' / '1f'}", engine="torch").fingerprint == first


def test_detectors_and_writers_need_all_their_weights(tmp_path: Path) -> None:
    from seewhy.dense.pretrained import open_network
    from seewhy.language.writers import LocalWriter

    own = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 24}
    folder = hf(tmp_path / "owl", transformers.Owlv2ForObjectDetection(transformers.Owlv2Config(**own)))
    changed(folder, without("box_head.dense1.bias"))
    with pytest.raises(WeightsError, match=r"lack box_head\.dense1\.bias"):
        open_network("owlv2", str(folder))
    config = transformers.LlamaConfig(**SMALL, vocab_size=9, num_key_value_heads=2)
    writer = hf(tmp_path / "llama", transformers.LlamaForCausalLM(config))
    changed(writer, without("layers.1.mlp.down_proj"))
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(writer)
    with pytest.raises(WeightsError, match=r"lack model\.layers\.1\.mlp\.down_proj\.weight"):
        _ = LocalWriter(str(writer))._loaded


def test_pipelines_need_all_the_weights_of_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "reproductions"))
    from make_pictures import load_pipeline

    with torch.random.fork_rng():
        unet = diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "p")
    assert load_pipeline(tmp_path / "p", steps=2).picture(None, "", 0).shape == (8, 8, 3)
    changed(tmp_path / "p" / "unet", without("conv_out.bias"))
    with pytest.raises(ModelError, match=r"conv_out\.bias"):
        load_pipeline(tmp_path / "p", steps=2)


def test_the_hooks_are_gone_after_building() -> None:
    from torch.nn.modules import module

    before = len(module._global_parameter_registration_hooks), len(module._global_module_registration_hooks)
    from seewhy.encoders.fence import Stored

    with pytest.raises(ValueError, match="it has at least"), building(Stored(1, 1)):
        torch.nn.Linear(5_000, 5_000)
    assert before == (len(module._global_parameter_registration_hooks), len(module._global_module_registration_hooks))
