"""Diffusion features: which block is meant, how much noise, the same for every picture, and what is refused."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from seewhy.encoders.base import Encoder
from seewhy.encoders.diffusion import Reading, alphas_of, blocks_of, encoder_of, schedule, usual_block
from seewhy.encoders.find import encoder
from seewhy.errors import InputError, MissingExtraError, ModelError, WeightsError

sys.path.insert(0, str(Path(__file__).parents[2] / "reproductions"))

from attention_head import AttentionHead

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "diffusion_features.json").read_text())
CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
"""Of the golden numbers."""


def drawn(name: str, shape: torch.Size) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return 1 + 0.1 * values if "norm" in name and name.endswith("weight") else 0.1 * values


@pytest.fixture(scope="module")
def network() -> Any:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
    made = diffusers.UNet2DModel(**CONFIG)
    made.load_state_dict({name: drawn(name, one.shape) for name, one in made.state_dict().items()})
    return made.eval()


def reads(network: Any, alpha: float = 1.0, **settings: int) -> Encoder:
    return encoder_of(network, torch.full((1000,), alpha, dtype=torch.double), Reading(**settings), "tiny")


@pytest.mark.slow  # diffusers takes its time to be imported
def test_blocks_are_those_of_the_authors_code(network: Any) -> None:
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(GOLDEN["seed"]["x"]))
    assert len(blocks_of(network)) == len(GOLDEN["blocks"]) == 13
    for row in GOLDEN["blocks"]:
        found = reads(network, block=row["block"], t=90).encode(pixels).features
        assert list(found.shape[1:]) == row["shape"]
        assert float(found.double().mean()) == pytest.approx(row["mean"], abs=1e-4)
        assert float(found.double().square().mean()) == pytest.approx(row["square"], rel=1e-4)
        assert found[1, :4, -1, 0].tolist() == pytest.approx(row["first"], abs=1e-4)


@pytest.mark.slow
def test_the_papers_network_has_37_blocks_and_24_is_the_usual_one() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
    down, up = ("DownBlock2D",) * 3 + ("AttnDownBlock2D",) * 3, ("AttnUpBlock2D",) * 3 + ("UpBlock2D",) * 3
    with torch.device("meta"):
        adm = diffusers.UNet2DModel(
            sample_size=256, block_out_channels=(32, 32, 64, 64, 128, 128), down_block_types=down, up_block_types=up
        )
    names = blocks_of(adm)
    assert len(names) == 37
    assert names[18] == "mid_block"
    assert usual_block(adm) == 24


@pytest.mark.slow
def test_the_noise_is_the_schedules_and_the_same_for_every_picture(network: Any) -> None:
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    one = reads(network, 0.9, block=1, t=5)
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.conv_in(0.9**0.5 * pixels + 0.1**0.5 * noise)
    torch.testing.assert_close(one.encode(pixels).features, expected)
    middle = reads(network, 0.9, block=7)
    whole = middle.encode(pixels)
    for i in range(3):
        torch.testing.assert_close(middle.encode(pixels[i : i + 1]).pooled[0], whole.pooled[i], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(reads(network, 0.9, block=7, noise=1).encode(pixels).pooled, whole.pooled, atol=1e-3)
    assert not torch.allclose(reads(network, 0.9, block=7, t=500).encode(pixels).pooled, whole.pooled, atol=1e-3)


@pytest.mark.slow
def test_draws_are_averaged_and_pooling_is_by_cells(network: Any) -> None:
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    four = reads(network, 0.5, block=1, draws=4).encode(pixels).features
    noises = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = [network.conv_in(0.5**0.5 * pixels + 0.5**0.5 * noise) for noise in noises]
    torch.testing.assert_close(four, torch.stack(each).mean(0), atol=1e-5, rtol=1e-4)
    plain, cells = reads(network, block=10), reads(network, block=10, pool=2)
    assert plain.is_average
    assert not cells.is_average
    seen = cells.encode(pixels)
    assert seen.pooled.shape[1] == 4 * plain.encode(pixels).pooled.shape[1]
    torch.testing.assert_close(seen.pooled.unflatten(1, (-1, 4)).mean(2), plain.encode(pixels).pooled)
    prints = {reads(network, **s).fingerprint for s in ({}, {"t": 9}, {"block": 3}, {"noise": 1}, {"draws": 2})}
    assert len(prints) == 5


@pytest.mark.slow
def test_a_saved_one_is_loaded_by_name_with_its_own_schedule(network: Any, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    network.save_pretrained(tmp_path / "unet")
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=200)
    scheduler.save_pretrained(tmp_path / "scheduler")
    name = f"diffusion:{tmp_path}@block=8,t=30"
    found = encoder(name)
    assert found.name == name
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = scheduler.add_noise(pixels, noise, torch.tensor([30]))
    torch.testing.assert_close(found.encode(pixels).features, _at(network, noisy), atol=1e-4, rtol=1e-3)
    for kind in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        theirs = diffusers.DDPMScheduler(beta_schedule=kind).alphas_cumprod.double()
        torch.testing.assert_close(schedule({"beta_schedule": kind}), theirs, atol=1e-5, rtol=1e-4)
    for said, part in (
        ("block=14", "block of .* must be at most 13, got 14"),
        ("t=200", "t of .* must be at most 199, got 200"),
    ):
        with pytest.raises(InputError, match=part):
            encoder(f"diffusion:{tmp_path}@{said}")
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"must have diffusion_pytorch_model\.safetensors"):
        encoder(f"diffusion:{tmp_path}")
    save_file({"x": torch.zeros(1)}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="does not fit UNet2DModel"):
        encoder(f"diffusion:{tmp_path}")
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 4}))
    with pytest.raises(ModelError, match="got UNet2DModel with 4 channels"):
        encoder(f"diffusion:{tmp_path}")


def _at(network: Any, noisy: Tensor) -> Tensor:
    taken: list[Tensor] = []
    handle = network.get_submodule(blocks_of(network)[7]).register_forward_hook(lambda _m, _a, out: taken.append(out))
    with torch.no_grad():
        network(noisy, 30)
    handle.remove()
    return taken[0]


def test_the_attention_head_is_the_authors() -> None:
    head = AttentionHead(16, 5, n_heads=4, mlp_ratio=3, depth=2, pool=2)
    draw = torch.Generator().manual_seed(GOLDEN["seed"]["head"])
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)
        found = head(torch.randn(3, 16, 6, 6, generator=torch.Generator().manual_seed(GOLDEN["seed"]["f"])))
    torch.testing.assert_close(found, torch.tensor(GOLDEN["logits"]), atol=1e-4, rtol=1e-4)


def test_the_attention_head_begins_alike_for_every_order_of_cells() -> None:
    head, cells = AttentionHead(8, 3, n_heads=2), torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(head(cells), head(cells.flip(2, 3)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(head(cells), head(2 * cells), atol=1e-3)


def test_schedules() -> None:
    linear = schedule({})
    assert len(linear) == 1000
    assert float(linear[0]) == pytest.approx(1 - 1e-4)
    assert bool((linear[1:] < linear[:-1]).all())
    assert schedule({"trained_betas": [0.5, 0.5]}).tolist() == [0.5, 0.25]
    with pytest.raises(ValueError, match="its beta_schedule is 'sigmoid'"):
        schedule({"beta_schedule": "sigmoid"})


def test_a_schedule_that_is_not_known_is_named(tmp_path: Path) -> None:
    assert len(alphas_of(tmp_path, "diffusion:x")) == 1000
    (tmp_path / "scheduler_config.json").write_text('{"beta_schedule": "sigmoid"}')
    with pytest.raises(ModelError) as caught:
        alphas_of(tmp_path, "diffusion:x")
    assert str(caught.value) == (
        "The noise schedule of 'diffusion:x' must be linear, scaled_linear or squaredcos_cap_v2 of diffusers, but "
        "its beta_schedule is 'sigmoid'. Save the model's scheduler in its folder."
    )


@pytest.mark.parametrize("said", ["block", "block=x", "block=-1", "step=3", "t=1e3"])
def test_settings_that_are_none_are_refused(said: str) -> None:
    with pytest.raises(InputError) as caught:
        encoder(f"diffusion:/no-such-folder@{said}")
    assert str(caught.value) == (
        "The options of the encoder "
        f"'diffusion:/no-such-folder@{said}' must be block=NUMBER, t=NUMBER, "
        f"pool=NUMBER, noise=NUMBER, draws=NUMBER, got {said!r}. For example: diffusion:/folder@block=12,t=90"
    )


def test_a_folder_that_is_not_there_and_a_library_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"^There is no folder '/no-such-folder' for 'diffusion:/no-such-folder'\."):
        encoder("diffusion:/no-such-folder")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"seewhy\[diffusion\]"):
        encoder(f"diffusion:{tmp_path}")
