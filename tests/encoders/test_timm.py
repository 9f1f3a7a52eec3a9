"""timm encoders against timm itself."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import seewhy
from seewhy.attributions.attended import reading_of
from seewhy.attributions.shares import cell_evidence
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import EncoderOutput, GlobalAverage, Layout
from seewhy.encoders.names import distinct
from seewhy.encoders.split import example_pixels, fingerprint
from seewhy.encoders.timm import encoder_of, load
from seewhy.errors import ModelError, UnknownNameError, WeightsError
from seewhy.heads.head import Target
from seewhy.types import Transform

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16, "num_classes": 5}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def save(tmp_path: Path, architecture: str, cfg: dict | None = None, **args: object) -> tuple[Path, torch.nn.Module]:
    """A network with random weights, in timm's own format."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, **args).eval()
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)
    model.pretrained_cfg.update(cfg or {})
    folder = tmp_path / architecture
    timm.models.save_for_hf(model, folder, model_args=args, safe_serialization=True)
    return folder, model


CASES = [
    ("resnet18", {"num_classes": 7}, {"input_size": (3, 64, 64)}, "nchw", (512, 2, 2), True),
    ("mobilenetv3_small_050", {"num_classes": 7}, {"input_size": (3, 64, 64)}, "nchw", (288, 2, 2), False),
    (
        "convnext_atto",
        {"num_classes": 7, "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
        {"input_size": (3, 64, 64)},
        "nchw",
        (32, 2, 2),
        False,
    ),
    (
        "swin_tiny_patch4_window7_224",
        {"num_classes": 7, "embed_dim": 12, "depths": (1, 1, 1, 1), "img_size": 64, "window_size": 2},
        {"input_size": (3, 64, 64)},
        "nhwc",
        (96, 2, 2),
        False,
    ),
    (
        "vit_tiny_patch16_224",
        VIT | {"img_size": (32, 64)},
        {"input_size": (3, 32, 64), "crop_mode": "squash"},
        "tokens",
        (32, 2, 4),
        False,
    ),
    (
        "vit_small_patch14_reg4_dinov2",
        VIT | {"img_size": 64},
        {"input_size": (3, 64, 64)},
        "tokens",
        (32, 4, 4),
        False,
    ),
    (
        "vit_base_patch16_siglip_224",
        VIT | {"img_size": 64},
        {"input_size": (3, 64, 64)},
        "tokens",
        (32, 4, 4),
        False,
    ),
    (
        "eva02_tiny_patch14_224",
        VIT | {"img_size": 64},
        {"input_size": (3, 64, 64)},
        "tokens",
        (32, 4, 4),
        False,
    ),
    (
        "vit_small_patch16_dinov3",
        VIT | {"img_size": 64},
        {"input_size": (3, 64, 64)},
        "tokens",
        (32, 4, 4),
        False,
    ),
    (
        "deit_tiny_distilled_patch16_224",
        VIT | {"img_size": 64},
        {"input_size": (3, 64, 64)},
        "tokens",
        (32, 4, 4),
        False,
    ),
]


@pytest.mark.parametrize(("architecture", "args", "cfg", "kind", "grid", "average"), CASES, ids=[c[0] for c in CASES])
def test_equals_timm(
    tmp_path: Path, architecture: str, args: dict, cfg: dict, kind: str, grid: tuple, average: bool
) -> None:
    folder, golden = save(tmp_path, architecture, cfg, **args)
    encoder = load(str(folder), engine="torch")
    assert encoder.layout.kind == kind
    assert isinstance(encoder.head, GlobalAverage) == average
    pixels = example_pixels(encoder.transform.input_size, batch=2, seed=9)
    look = encoder.encode(pixels)
    with torch.no_grad():
        pooled = golden.forward_head(golden.forward_features(pixels), pre_logits=True)
        assert torch.allclose(look.pooled, pooled, atol=1e-5)
        if encoder.classifier is not None:
            assert torch.allclose(encoder.classifier(look.pooled), golden(pixels), atol=1e-5)
            assert encoder.classes == tuple(f"class {i}" for i in range(golden.num_classes))
    assert (encoder.classifier is None) == (architecture.startswith("deit"))
    assert encoder.layout.to_grid(look.features).shape == (2, *grid)
    leaf = look.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoder.head(leaf)[:, 0].sum(), leaf)
    places = encoder.layout.to_grid(gradient).abs().sum(1)
    assert (places > 0).all(), "a place without a gradient would be silently white on every map"
    assert not any(p.requires_grad for p in encoder.module.parameters())
    assert not encoder.module.training


def test_registers_are_dropped(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "vit_small_patch14_reg4_dinov2", {"input_size": (3, 64, 64)}, **VIT | {"img_size": 64})
    assert load(str(folder)).layout == Layout("tokens", (4, 4), prefix=5)


@pytest.mark.parametrize(
    ("cfg", "resize"),
    [({"crop_pct": 0.875}, 73), ({"crop_pct": 1.0}, 64), ({"crop_pct": 0.9, "crop_mode": "squash"}, (71, 71))],
)
def test_transform_is_timms(tmp_path: Path, cfg: dict, resize: object) -> None:
    own = {"input_size": (3, 64, 64), "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    folder, golden = save(tmp_path, "resnet18", own | cfg, num_classes=2)
    transform = load(str(folder)).transform
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(golden), is_training=False).transforms
    size = theirs[0].size
    assert transform.resize == resize == (tuple(size) if isinstance(size, (tuple, list)) else size)
    assert transform.input_size == tuple(theirs[1].size)
    assert transform.interpolation == theirs[0].interpolation.value == "bilinear"
    assert transform.mean == pytest.approx(tuple(theirs[3].mean.tolist()))
    assert transform.std == pytest.approx(tuple(theirs[3].std.tolist()))


def test_border_crop_is_refused(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "resnet18", {"crop_mode": "border"}, num_classes=2)
    with pytest.raises(ModelError, match="got 'border'"):
        load(str(folder))


def test_unknown_preprocessing_is_refused(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "resnet18", num_classes=2)
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"]["mean"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="must have mean"):
        load(str(folder))


def test_missing_weights_say_how_to_bring_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load("resnet18.a1_in1k")
    assert str(caught.value) == (
        f"The weights of 'timm:resnet18.a1_in1k' are not on this machine: {tmp_path} has no model.safetensors of "
        "timm/resnet18.a1_in1k, and HF_HUB_OFFLINE forbids asking the hub. On a machine with a network run "
        "'huggingface-cli download timm/resnet18.a1_in1k --local-dir resnet18.a1_in1k', copy the folder here and use "
        "'timm:/path/to/resnet18.a1_in1k', or set HF_HOME to a cache that holds it."
    )


def test_refused_connection_is_quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="does not answer"):
        load("hf-hub:timm/resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnett18", "'resnet18'"), ("resnet18.a1_in1", "'resnet18.a1_in1k'"), ("resnet18.zz", "resnet18")],
)
def test_misspelt_names_get_suggestions(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(name)
    assert hint in str(caught.value)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must have config\.json and weights, but it is"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="but weights are missing"):
        load(str(tmp_path))


class Harm:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_code_in_a_folders_weights_is_never_run(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with a timm that would run it, as versions before 1.0.26 do."""
    folder, model = save(tmp_path, "test_resnet", num_classes=2)
    (folder / "model.safetensors").unlink()
    torch.save({**model.state_dict(), "harm": Harm(tmp_path / "harm")}, folder / name)

    def older(path: Path, **_: object) -> dict:
        return torch.load(Path(path) / name, weights_only=False)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_path", older)
    with pytest.raises(WeightsError) as caught:
        load(str(folder))
    assert not (tmp_path / "harm").exists()
    assert str(caught.value) == (
        f"{str(folder / name)!r} must contain only tensors, because other pickled objects can run code. If you "
        "trust it, save it again with torch.save(model.state_dict(), path) or, better, as safetensors."
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "mine.safetensors"])
def test_weights_of_any_name_and_kind(tmp_path: Path, name: str) -> None:
    folder, model = save(tmp_path, "test_resnet", num_classes=2)
    if name.endswith(".safetensors"):
        (folder / "model.safetensors").rename(folder / name)
        torch.save({}, folder / "other.pth")
    else:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / name)
    encoder = load(str(folder))
    assert encoder.fingerprint == fingerprint(model, encoder.transform)
    assert "state_dict" not in encoder.module.pretrained_cfg


def test_weights_that_do_not_fit_a_folder(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "test_resnet", num_classes=2)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["num_classes"] = config["num_classes"] = config["pretrained_cfg"]["num_classes"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError) as caught:
        load(str(folder))
    assert str(caught.value).startswith(f"'timm:{folder}' cannot be loaded: Error(s) in loading state_dict for ResNet")
    assert str(caught.value).endswith("Write the folder again with timm.models.save_for_hf.")


def test_a_network_far_larger_than_its_weights_takes_no_memory(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "test_vit", num_classes=2)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {"img_size": 1 << 16}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"it has at least 1,0\d\d,\d{3},\d{3} parameters, but its files have 3"):
        load(str(folder))


@pytest.mark.parametrize(
    "wrong", [{"mean": True}, {"std": ["t", 1, 1]}, {"input_size": [3, "a", 64]}, {"label_names": 3}]
)
def test_a_configuration_that_makes_no_sense_is_told(tmp_path: Path, wrong: dict[str, Any]) -> None:
    folder, _ = save(tmp_path, "test_resnet", num_classes=2)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= wrong
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"The configuration of timm:.* is invalid: .* Correct its pretrained_cfg"):
        load(str(folder))


@pytest.mark.parametrize("text", ["{oops", "[1]", "3", '{"pretrained_cfg": 5}'])
def test_a_damaged_config_is_said_to_be(tmp_path: Path, text: str) -> None:
    folder, _ = save(tmp_path, "test_resnet", num_classes=2)
    (folder / "config.json").write_text(text)
    said = r"config\.json of .* must have" if "cfg" in text else r"config\.json of .* cannot be read: "
    with pytest.raises(ModelError, match=said):
        load(str(folder))


def test_imagenet_labels_are_words() -> None:
    model = timm.create_model("mobilenetv3_small_050").eval()
    model.pretrained_cfg["input_size"] = (3, 64, 64)
    encoder = encoder_of(model, "timm:mobilenetv3_small_050")
    assert len(set(encoder.classes)) == 1000
    assert "goldfish" in encoder.classes[1].lower()


@pytest.mark.parametrize(
    ("names", "told_apart"),
    [
        (("crane", "cat", "crane"), ("crane (0)", "cat", "crane (2)")),
        (("a", "a", "a (0)"), ("a (0) (0)", "a (1)", "a (0) (2)")),
        (("a", "b"), ("a", "b")),
        ((), ()),
    ],
)
def test_repeated_names_are_told_apart(names: tuple[str, ...], told_apart: tuple[str, ...]) -> None:
    assert distinct(names) == told_apart


def test_a_network_with_two_classes_of_one_name_can_be_used(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "test_resnet", num_classes=3)
    config = json.loads((folder / "config.json").read_text())
    config["label_names"] = ["crane", "cat", "crane"]
    (folder / "config.json").write_text(json.dumps(config))
    model = seewhy.pretrained(load(str(folder), engine="torch"))
    assert model.classes == ("crane (0)", "cat", "crane (2)")


def test_two_grids_at_once_are_refused_in_one_sentence() -> None:
    model = timm.create_model("crossvit_tiny_240", num_classes=3).eval()
    with pytest.raises(ModelError) as caught:
        encoder_of(model, "timm:crossvit_tiny_240")
    assert str(caught.value) == (
        "timm:crossvit_tiny_240 must return a feature map (b, c, h, w) or the tokens of one stack of blocks. "
        "Use seewhy.encoders.module.from_module with a target_layer."
    )


def test_fingerprint_follows_weights_and_transform(tmp_path: Path) -> None:
    folder, golden = save(tmp_path, "resnet18", num_classes=2)
    encoder = load(str(folder))
    assert encoder.fingerprint == load(str(folder)).fingerprint == fingerprint(golden, encoder.transform)
    golden.fc.bias.data[0] += 1e-3
    assert fingerprint(golden, encoder.transform) != encoder.fingerprint


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
@pytest.mark.parametrize("case", [CASES[0], CASES[5]], ids=["resnet", "vit"])
def test_openvino_sees_the_same(tmp_path: Path, case: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    architecture, args, cfg = case[:3]
    folder, _ = save(tmp_path, architecture, cfg, **args)
    encoder = load(str(folder), engine="openvino")
    pixels = example_pixels(encoder.transform.input_size, batch=2, seed=4)
    with torch.no_grad():
        golden = encoder._trunk()(pixels)
    seen = encoder.forward_features(pixels)
    assert torch.allclose(seen, golden, atol=2e-2 * float(golden.abs().max()))


@pytest.mark.parametrize("name", ["cait_xxs24_224", "xcit_nano_12_p16_224"])
def test_class_attention_is_cut_behind_the_last_block_of_patches(name: str) -> None:
    """No class token is among its features, and both its layers read the patches by their values alone."""
    torch.manual_seed(0)
    options = {"img_size": 64} if name.startswith("cait") else {}
    model = timm.create_model(name, num_classes=5, embed_dim=32, num_heads=2, depth=2, **options).eval()
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    encoder = encoder_of(
        model, name, engine="torch", transform=Transform((64, 64), 64, "bicubic", (0.5,) * 3, (0.5,) * 3)
    )
    assert encoder.layout == Layout("tokens", (4, 4), 0)
    pixels = example_pixels((64, 64), 2, 4)
    look = encoder.encode(pixels)
    with torch.no_grad():
        assert torch.allclose(encoder.classifier(look.pooled), model(pixels), atol=1e-5)
    reading = reading_of(encoder, look.features)
    assert reading.numbers in ((0, 1), (2, 3))  # timm 1.0.26 has no cut before XCiT's class token: two more are heard
    assert reading.alone
    explained = Pretrained().build(encoder)
    target = Target(torch.tensor([0, 3]))
    parts = cell_evidence(explained, look, target)
    moved = EncoderOutput(look.features * (1 + 1e-6 * torch.randn(look.features.shape).sign()), look.pooled)
    assert (cell_evidence(explained, moved, target) - parts).norm() < 1e-4 * parts.norm()
