"""torchvision encoders against torchvision itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from seewhy.encoders.split import example_pixels
from seewhy.encoders.torchvision import load, transform_of
from seewhy.errors import ModelError, UnknownNameError, WeightsError
from seewhy.types import Transform

SMALL = Transform((64, 64), 72, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def save(tmp_path: Path, architecture: str, said: dict[str, Any] | None = None) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    model = models.get_model(architecture, weights=None, num_classes=3).eval()
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    if said is not None:
        path.with_name(path.name + ".json").write_text(json.dumps(said))
    return path, model


@pytest.mark.parametrize(
    ("architecture", "average"),
    [("resnet18", True), ("mobilenet_v3_small", False), ("shufflenet_v2_x0_5", True)],
)
def test_equals_torchvision(tmp_path: Path, architecture: str, average: bool) -> None:
    said = {"transform": SMALL.to_json(), "classes": ["cat", "dog", "eel"]}
    path, golden = save(tmp_path, architecture, said)
    encoder = load(f"{architecture}@{path}", engine="torch")
    assert encoder.transform == SMALL
    assert encoder.classes == ("cat", "dog", "eel")
    assert encoder.is_average == average
    pixels = example_pixels((64, 64), batch=2, seed=9)
    look = encoder.encode(pixels)
    assert look.features.shape[2:] == (2, 2)
    with torch.no_grad():
        assert torch.allclose(encoder.classifier(look.pooled), golden(pixels), atol=1e-5)


def test_a_network_that_ends_in_a_convolution(tmp_path: Path) -> None:
    said = {"transform": SMALL.to_json(), "classes": ["cat", "dog", "eel"]}
    path, golden = save(tmp_path, "squeezenet1_1", said)
    encoder = load(f"squeezenet1_1@{path}", engine="torch")
    assert encoder.classes == ("cat", "dog", "eel")
    pixels = example_pixels((64, 64), batch=2, seed=9)
    with torch.no_grad():
        assert torch.allclose(encoder.classifier(encoder.encode(pixels).pooled), golden(pixels), atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "weights"), [("resnet50", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("vit_b_16", "DEFAULT")]
)
def test_transform_is_the_weights_own(architecture: str, weights: str) -> None:
    preset = models.get_model_weights(architecture)[weights].transforms()
    transform = transform_of(preset)
    assert transform.resize == preset.resize_size[0] == {"IMAGENET1K_V2": 232}.get(weights, 256)
    assert transform.input_size == (224, 224)
    assert transform.interpolation == preset.interpolation.value
    assert (transform.mean, transform.std) == (tuple(preset.mean), tuple(preset.std))


def test_published_file_is_known_by_its_name(tmp_path: Path) -> None:
    entry = models.MNASNet0_5_Weights.IMAGENET1K_V1
    path = tmp_path / entry.url.rsplit("/", 1)[-1]
    torch.save(models.mnasnet0_5().state_dict(), path)
    encoder = load(f"mnasnet0_5@{path}", engine="torch")
    assert encoder.transform.resize == 256
    assert len(set(encoder.classes)) == 1000


def test_unknown_preprocessing_is_refused(tmp_path: Path) -> None:
    path, _ = save(tmp_path, "shufflenet_v2_x0_5")
    with pytest.raises(ModelError, match="must have a transform, because the file does not have the name of"):
        load(f"shufflenet_v2_x0_5@{path}")


def test_weights_of_another_network(tmp_path: Path) -> None:
    path, _ = save(tmp_path, "shufflenet_v2_x0_5", {"transform": SMALL.to_json(), "num_classes": 3})
    with pytest.raises(WeightsError, match="does not fit mnasnet0_5"):
        load(f"mnasnet0_5@{path}")


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load("resnet18")
    assert str(caught.value) == (
        "The weights of 'torchvision:resnet18' are not on this machine: "
        f"{tmp_path / 'torch/hub/checkpoints'} has no resnet18-f37072fd.pth, and HF_HUB_OFFLINE forbids asking "
        "the network. On a machine with a network download "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth, copy it here and use "
        "'torchvision:resnet18@/path/to/resnet18-f37072fd.pth'."
    )


def test_misspelt_names_get_suggestions() -> None:
    with pytest.raises(UnknownNameError, match="'resnet18'"):
        load("resnet81")
    with pytest.raises(UnknownNameError, match="IMAGENET1K_V1"):
        load("resnet18", weights="IMAGENET1K_V9")
