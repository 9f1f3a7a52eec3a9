"""One weights file: loaded if it says what it is, refused if not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from seewhy.encoders.split import example_pixels
from seewhy.encoders.weights import load
from seewhy.errors import ModelError, UnknownNameError, WeightsError
from seewhy.types import Transform

TRANSFORM = Transform((64, 64), (64, 64), "lanczos", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
ARCHITECTURE = "mobilenetv3_small_050"
SAID: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "num_classes": 2,
    "classes": ["healthy", "ill"],
    "transform": TRANSFORM.to_json(),
}


@pytest.fixture(scope="module")
def golden() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=2).eval()


def check(path: Path, golden: torch.nn.Module) -> None:
    encoder = load(str(path), engine="torch")
    assert encoder.transform == TRANSFORM
    assert encoder.classes == ("healthy", "ill")
    pixels = example_pixels((64, 64), batch=2, seed=9)
    with torch.no_grad():
        assert torch.allclose(encoder.classifier(encoder.encode(pixels).pooled), golden(pixels), atol=1e-5)


def sidecar(path: Path, said: dict[str, Any]) -> None:
    path.with_name(path.name + ".json").write_text(json.dumps(said))


def test_metadata_in_the_file(tmp_path: Path, golden: torch.nn.Module) -> None:
    path = tmp_path / "own.safetensors"
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in SAID.items()}
    save_file(golden.state_dict(), path, metadata=words)
    check(path, golden)


@pytest.mark.parametrize("wrap", ["", "state_dict", "model"])
def test_checkpoint_with_sidecar(tmp_path: Path, golden: torch.nn.Module, wrap: str) -> None:
    path = tmp_path / "own.pth"
    state = {f"module.{k}": v for k, v in golden.state_dict().items()} if wrap == "model" else golden.state_dict()
    torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    sidecar(path, SAID)
    check(path, golden)


@pytest.mark.parametrize("key", ["architecture", "transform"])
def test_what_is_not_said_is_refused(tmp_path: Path, golden: torch.nn.Module, key: str) -> None:
    path = tmp_path / "own.safetensors"
    save_file(golden.state_dict(), path)
    sidecar(path, {k: v for k, v in SAID.items() if k != key})
    with pytest.raises(ModelError) as caught:
        load(str(path))
    assert str(caught.value) == (
        f"The metadata of {str(path)!r} must have {key}. Write it into 'own.safetensors.json' beside "
        'the file, for example: {"architecture": "resnet18", "num_classes": 2, "classes": ["healthy", "ill"], '
        '"transform": {"input_size": [224, 224], "resize": 256, "interpolation": "bicubic", '
        '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}'
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": {"input_size": [64, 64], "resize": 64}}, "must have 'interpolation'"),
        ({"num_classes": 3}, "must equal the number of classes, got 3 and 2"),
        ({"num_classes": None, "classes": None}, "must have num_classes"),
        ({"num_classes": "two", "classes": None}, "must be a whole number, got 'two'"),
        ({"num_classes": -2, "classes": None}, "must be a whole number, got -2"),
        ({"classes": 5}, "must be a list of names, got 5"),
        ({"classes": "ab"}, "must be a list of names, got 'ab'"),
        ({"transform": "imagenet"}, "The transform of .* is invalid: string indices must be"),
        ({"transform": TRANSFORM.to_json() | {"mean": [124, 116, 104]}}, "is invalid: `mean` of a transform must be"),
        (
            {"transform": TRANSFORM.to_json() | {"mean": [0.5, 0.5]}},
            r"R, G and B, got \(0\.5, 0\.5\)\. Divide numbers from 0 to 255 by 255\.",
        ),
        (
            {"transform": TRANSFORM.to_json() | {"std": 0.5}},
            "R, G and B, got 0.5. Divide numbers from 0 to 255 by 255.",
        ),
        (
            {"transform": TRANSFORM.to_json() | {"input_size": [64]}},
            (
                r"`input_size` of a transform must be \(height, width\) in pixels, for example \(224, "
                r"224\), got \(64,\)\."
            ),
        ),
        (
            {"transform": TRANSFORM.to_json() | {"resize": "256"}},
            ("`resize` of a transform must be the short side in pixels, for example 256, or"),
        ),
        (
            {"transform": TRANSFORM.to_json() | {"interpolation": ["bicubic"]}},
            "`interpolation` of a transform must be one of",
        ),
        (
            {"transform": TRANSFORM.to_json() | {"input_size": [2**40, 64]}},
            "64 .more than 4096 pixels.. Use the input size",
        ),
    ],
)
def test_what_is_said_badly_is_refused(
    tmp_path: Path, golden: torch.nn.Module, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "own.safetensors"
    save_file(golden.state_dict(), path)
    sidecar(path, SAID | change)
    with pytest.raises(ModelError, match=message):
        load(str(path))


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=1)
    save_file(model.state_dict(), path)
    said = SAID | {"architecture": "vit_tiny_patch16_224", "transform": TRANSFORM.to_json() | {"input_size": [64, 64]}}
    sidecar(path, said)
    with pytest.raises(ModelError, match=r"does not fit vit_tiny_patch16_224: 64 × 64 \(Input"):
        load(str(path), depth=1)


@pytest.mark.parametrize("text", ["[1]", '[["classes", 2]]', "3", "{oops", '"text"', "[" * 100_000])
def test_a_sidecar_that_is_no_object_is_refused(tmp_path: Path, golden: torch.nn.Module, text: str) -> None:
    path = tmp_path / "own.safetensors"
    save_file(golden.state_dict(), path)
    path.with_name(path.name + ".json").write_text(text)
    with pytest.raises(ModelError, match=r"own.safetensors.json of .* cannot be read: "):
        load(str(path))


def test_other_weights_are_refused(tmp_path: Path, golden: torch.nn.Module) -> None:
    path = tmp_path / "own.safetensors"
    save_file(golden.state_dict(), path)
    sidecar(path, SAID | {"num_classes": 3, "classes": ["a", "b", "c"]})
    with pytest.raises(WeightsError, match=f"does not fit {ARCHITECTURE}"):
        load(str(path))
    sidecar(path, SAID | {"architecture": "mobilenetv3_smal_050"})
    with pytest.raises(UnknownNameError, match=ARCHITECTURE):
        load(str(path))


class Trap:
    """A pickle that would write a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_does_not_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "own.pth", tmp_path / "it-ran"
    torch.save({"state_dict": Trap(proof)}, path)
    sidecar(path, SAID)
    with pytest.raises(WeightsError, match="other pickled objects can run code"):
        load(str(path))
    assert not proof.exists()


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="There is no file"):
        load(str(tmp_path / "none.safetensors"))
    for name in ("own.safetensors", "own.pth"):
        path = tmp_path / name
        path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00garbage")
        sidecar(path, SAID)
        with pytest.raises(WeightsError):
            load(str(path))
