"""A decoder that a user brings: its codes there and back, what is measured of it, and when nothing will come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import seewhy
from seewhy.cli import app
from seewhy.errors import DataError, InputError, ModelError, WeightsError
from seewhy.generation import decoders
from seewhy.generation.decoders import Bring, CodesOf, Decoder, load_decoder
from seewhy.generation.generate import prepared
from seewhy.generation.generator import POOR, check_errors, errors
from seewhy.generation.priors import Score
from seewhy.generation.sampler import PPGN
from seewhy.pictures.samples import Sample
from tiny import tiny_cnn

SIDE = 16


def painted(codes: Tensor) -> Tensor:
    """Codes of ``(3, 2)``: the colours of the left half and of the right."""
    return (0.5 + codes / 2)[:, :, None, :].repeat_interleave(SIDE // 2, 3).expand(-1, -1, SIDE, -1)


def read(pictures: Tensor) -> Tensor:
    return 2 * pictures.unflatten(3, (2, SIDE // 2)).mean((2, 4)) - 1


def halves(n: int = 40, seed: int = 0) -> list[Sample]:
    """Pictures of two colours, each near one of two pairs."""
    rng = np.random.default_rng(seed)
    pairs = np.array([[[200, 40, 30], [30, 60, 190]], [[40, 180, 50], [220, 200, 40]]])
    made = []
    for i in range(n):
        tints = (pairs[i % 2] + rng.integers(-25, 25, (2, 3))).clip(0, 255).astype(np.uint8)
        pixels = tints[None].repeat(SIDE // 2, 1).repeat(SIDE, 0)
        made.append(Sample(f"picture {i}", pixels=pixels))
    return made


MINE = Decoder(painted, (3, 2), read)
QUICK = Bring(prior_steps=20)


def test_what_is_brought_is_measured_and_gets_a_prior() -> None:
    found = QUICK.ready(MINE, halves())
    facts = found.facts
    assert (facts["side"], facts["code"], facts["prior"]) == (SIDE, [3, 2], "autoencoder")
    assert (facts["n_pictures"], facts["n_held_out"]) == (36, 4)
    assert facts["held_out_error"] < 0.01 < 0.2 < facts["mean_picture_error"]
    assert 0 < facts["noise_left"] < 1
    codes = found.codes
    torch.testing.assert_close(found.read(found.network(codes)), codes)
    low, high = found.bounds
    assert codes.min() - 1e-3 <= low < high <= codes.max() + 1e-3
    pulled = found.pull(codes, found.network(codes))
    torch.testing.assert_close(pulled, found.denoise(codes) - codes)  # type: ignore[misc]
    again = QUICK.ready(MINE, halves())
    assert torch.equal(again.denoise(codes), found.denoise(codes))  # type: ignore[misc]


def test_pictures_are_cut_to_their_range() -> None:
    made = MINE(torch.tensor([[9.0, -9.0, 0.0, 0.0, 0.0, 0.0]]))
    assert (float(made.max()), float(made.min())) == (1.0, 0.0)


def test_decoded_and_encoded_again_is_a_prior_too() -> None:
    found = Bring(prior="joint").ready(Decoder(painted, (3, 2), lambda x: 0.9 * read(x)), halves())
    codes = found.codes
    torch.testing.assert_close(found.pull(codes, found.network(codes)), -0.1 * codes)


def test_a_step_is_the_equation_with_all_three_weights() -> None:
    """``h + ε1 (R(h) - h) + ε2 ∂log p/∂h + ε3 n``; of a linear world each term is written down."""
    from test_ppgn import towards

    found = QUICK.ready(MINE, halves())
    start, wanted = found.codes[:1], torch.tensor([0.6, -0.2, 0.1])
    how = PPGN(eps1=0.3, eps2=0.2, eps3=0.1, n_steps=1, normalise=False, clip=False)
    end = how.sample(found, towards(wanted), start, seed=4).codes
    colour = start.unflatten(1, (3, 2)).mean(2)
    slope = ((wanted - colour) / 2)[:, :, None].expand(-1, 3, 2).flatten(1)
    noise = torch.randn(6, generator=torch.Generator().manual_seed(4 * 1_000_003))
    by_hand = start + 0.3 * (found.denoise(start) - start) + 0.2 * slope + 0.1 * noise  # type: ignore[misc]
    torch.testing.assert_close(end, by_hand)


def test_without_an_encoder_codes_are_searched() -> None:
    blind = Decoder(painted, (3, 2))
    pictures = painted(torch.tensor([[[0.5, -0.5], [0.2, 0.1], [-0.9, 0.3]]]))
    torch.testing.assert_close(CodesOf(blind)(pictures), read(pictures).flatten(1), atol=2e-2, rtol=0)
    with torch.no_grad():
        found = QUICK.ready(blind, halves(20))
    assert found.facts["held_out_error"] < 0.02


def test_a_decoder_that_does_not_draw_such_pictures_is_refused_before_anything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*given: Any, **how: Any) -> None:
        raise AssertionError("a prior was trained")

    monkeypatch.setattr(decoders, "autoencoder", never)
    grey = Decoder(lambda codes: 0.5 + 0 * painted(codes), (3, 2), read, name="grey")
    with pytest.raises(ModelError) as told:
        QUICK.ready(grey, halves())
    assert str(told.value).startswith(
        "The reconstruction error of grey on held-out pictures must be at most 90 % of the mean picture's error, "
        "got 0.3"
    )
    assert "against 0.2" in str(told.value)


def test_the_errors_are_root_mean_squares_beside_the_mean_picture() -> None:
    made, real = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), 0.2)
    others = torch.stack([torch.full((4, 4, 3), v, dtype=torch.uint8) for v in (0, 153)])
    assert errors(made, real, others) == {"held_out_error": 0.3, "mean_picture_error": 0.1}
    bad = {"held_out_error": 0.3, "mean_picture_error": 0.1}
    with pytest.raises(ModelError) as told:
        check_errors("vae/", bad)
    assert str(told.value) == (
        f"The reconstruction error of vae/ on held-out pictures must be at most {100 * POOR:.0f} % of the mean "
        "picture's error, got 0.300 against 0.100 (root mean square, values 0 to 1). Give pictures of the kind on "
        "which the decoder was trained, or use another decoder."
    )
    check_errors("vae/", {"held_out_error": 0.99 * POOR, "mean_picture_error": 1.0})
    check_errors("vae/", {})


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(InputError, match=r"From codes of shape \(6,\), .* must make .*, got .* of shape \(2, 6\)"):
        Decoder(lambda codes: codes, (6,))
    with pytest.raises(InputError, match=r"your decoder must be in evaluation mode"):
        Decoder(nn.Sequential(nn.Dropout()), (3, 8, 8))
    with pytest.raises(InputError, match="prior='score' needs a diffusion model, but your decoder has none"):
        Bring(prior="score").ready(MINE, halves())
    with pytest.raises(DataError, match=r"At least 16 different pictures are needed to evaluate the decoder, got 4"):
        QUICK.ready(MINE, halves(4))
    with pytest.raises(InputError, match=r"must be a number above 0, got 0\."):
        Bring(noise=0.0)
    with pytest.raises(InputError, match=r"Only generators of train_generator\.py can be saved"):
        QUICK.ready(MINE, halves()).save("nowhere")
    for given in ((None, None, None), ("g", MINE, "p"), (None, MINE, None), ("g", None, "p")):
        with pytest.raises(InputError, match="Either a generator, or a decoder with pictures, must be given, got"):
            prepared(*given)


def test_at_most_so_many_pictures_are_read_evenly() -> None:
    found = Bring(most=20, prior_steps=2).ready(MINE, halves(50))
    assert found.facts["n_pictures"] + found.facts["n_held_out"] == 17  # every third


def test_pictures_are_made_of_what_is_brought(tmp_path: Path) -> None:
    for sample in halves(24):
        Image.fromarray(sample.pixels).save(tmp_path / f"{sample.image}.png")
    made = seewhy.generate(
        model=tiny_cnn(), decoder=MINE, pictures=str(tmp_path), bring=QUICK, target="moss", n=2,
        judge=tiny_cnn(seed=1), sampler=PPGN(n_steps=3),
    )  # fmt: skip
    assert made.data["generator"]["encoder"] == "your decoder"
    assert made.data["judge"]["is_the_prior"] is False
    assert [p.shape for p in made.pictures] == [(SIDE, SIDE, 3)] * 2
    page = made.to_html()
    assert "your decoder, given; prior: autoencoder, which leaves" in page
    like = seewhy.generate(
        model=tiny_cnn(), decoder=MINE, pictures=str(tmp_path), bring=QUICK, target="moss", n=2, controls=False,
        like=str(tmp_path / "picture 0.png"), sampler=PPGN(n_steps=1, eps1=0.0, lr=1e-6),
    )  # fmt: skip
    photo = np.asarray(Image.open(tmp_path / "picture 0.png"))
    assert np.abs(like.strips["ppgn"][0][0].astype(int) - photo).max() <= 1


def test_a_score_is_walked_by_at_the_step_of_its_noise() -> None:
    told: list[int] = []

    def network(noisy: Tensor, t: int) -> Tensor:
        told.append(t)
        return 0.5 * noisy

    alphas = torch.linspace(0.99, 0.01, 100)
    found = Bring(noise=0.5).ready(Decoder(painted, (3, 2), read, Score(network, alphas)), halves())
    assert found.facts["prior"] == "score"
    sigma = 0.5 * float(decoders.spread_of(torch.stack([read(MINE(found.codes))]).flatten(2)[0]))
    t = Score(network, alphas).step(sigma)
    assert abs(told[-1] - t) <= 2
    a = float(alphas[told[-1]])
    by_hand = found.codes - ((1 - a) / a) ** 0.5 * 0.5 * a**0.5 * found.codes
    torch.testing.assert_close(found.denoise(found.codes), by_hand)  # type: ignore[misc]


# --- folders of diffusers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of an autoencoder and a diffusion model, a small autoencoder, and a U-Net of pictures."""
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
    root = tmp_path_factory.mktemp("brought")
    blocks: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    unet = {
        **blocks,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
            sample_size=SIDE, scaling_factor=0.25, shift_factor=0.1, **blocks,
        )  # fmt: skip
        diffusers.UNet2DModel(sample_size=8, in_channels=4, out_channels=8, **unet).save_pretrained(root / "p/unet")
        diffusers.UNet2DModel(sample_size=SIDE, **unet).save_pretrained(root / "pixels")
        few: dict[str, Any] = {f"{half}_block_out_channels": (8,) * 4 for half in ("encoder", "decoder")}
        few |= {f"num_{half}_blocks": (1,) * 4 for half in ("encoder", "decoder")}
        diffusers.AutoencoderTiny(latent_channels=4, scaling_factor=0.5, **few).save_pretrained(root / "small")
    vae.save_pretrained(root / "p/vae")
    diffusers.DDPMScheduler(prediction_type="v_prediction").save_pretrained(root / "p/scheduler")
    diffusers.DDPMScheduler().save_pretrained(root / "pixels")
    return root


PICTURES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow  # diffusers takes its time to be imported
def test_codes_of_an_autoencoder_are_scaled_as_its_diffusion_model_has_them(folder: Path) -> None:
    import diffusers

    found = load_decoder(folder / "p")
    assert (found.shape, found.side) == ((4, 8, 8), SIDE)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "p/vae").eval()
    assert found.encode is not None
    with torch.no_grad():
        plain = vae.encode(2 * PICTURES - 1).latent_dist.mode()
        codes = found.encode(PICTURES)
        torch.testing.assert_close(codes, (plain - 0.1) * 0.25)
        torch.testing.assert_close(found(codes.flatten(1)), (vae.decode(plain).sample / 2 + 0.5).clamp(0, 1))
    assert found.score is not None
    assert found.score.predicts == "v_prediction"
    alone = load_decoder(folder / "p/vae")
    assert alone.score is None
    assert alone.digest != found.digest


@pytest.mark.slow
def test_the_small_autoencoder_and_a_u_net_of_pictures(folder: Path) -> None:
    import diffusers

    with pytest.raises(ModelError, match="configuration has no sample_size"):
        load_decoder(folder / "small")
    small = load_decoder(folder / "small", side=32)
    tiny = diffusers.AutoencoderTiny.from_pretrained(folder / "small").eval()
    pictures = torch.rand(2, 3, 32, 32)
    assert small.encode is not None
    with torch.no_grad():
        latents = tiny.encode(2 * pictures - 1).latents
        torch.testing.assert_close(small.encode(pictures), latents * 0.5)
        torch.testing.assert_close(small.decode(latents * 0.5), tiny.decode(latents).sample / 2 + 0.5)
    pixels = load_decoder(folder / "pixels")
    assert (pixels.shape, pixels.encode is not None) == ((3, SIDE, SIDE), True)
    torch.testing.assert_close(pixels.decode(pixels.encode(PICTURES)), PICTURES)  # type: ignore[misc]
    net = diffusers.UNet2DModel.from_pretrained(folder / "pixels").eval()
    codes, t = 2 * PICTURES - 1, 300
    with torch.no_grad():
        a = float(diffusers.DDPMScheduler().alphas_cumprod[t])
        noise = net(a**0.5 * codes, t).sample
        wanted = (a**0.5 * codes - (1 - a) ** 0.5 * noise) / a**0.5
        torch.testing.assert_close(pixels.score.denoised(codes, t), wanted, atol=1e-4, rtol=1e-4)  # type: ignore[union-attr]
        step = diffusers.DDPMScheduler().step(noise, t, a**0.5 * codes).pred_original_sample
        torch.testing.assert_close(wanted.clamp(-1, 1), step, atol=1e-4, rtol=1e-4)  # the library's own, of the same


@pytest.mark.slow
def test_a_folder_that_cannot_be_used_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="There is no folder"):
        load_decoder(tmp_path / "none")
    with pytest.raises(
        ModelError, match=r"must be a diffusers folder with an autoencoder \(AutoencoderKL or AutoencoderTiny\)"
    ):
        load_decoder(tmp_path)

    def copy(of: str, name: str, **changes: Any) -> Path:
        new = tmp_path / name
        new.mkdir(parents=True)
        for file in (folder / of).iterdir():
            (new / file.name).write_bytes(file.read_bytes())
        config = json.loads((new / "config.json").read_text())
        (new / "config.json").write_text(json.dumps({**config, **changes}))
        return new

    with pytest.raises(ModelError, match=r"got UNet2DConditionModel"):
        load_decoder(copy("pixels", "texts", _class_name="UNet2DConditionModel"))
    lone = copy("pixels", "lone")
    (lone / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match="must have a beta_schedule"):
        load_decoder(lone)
    pickled = copy("p/vae", "pickled")
    torch.save(load_file(pickled / "diffusion_pytorch_model.safetensors"), pickled / "diffusion_pytorch_model.bin")
    (pickled / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be used"):
        load_decoder(pickled)
    torn = copy("p/vae", "torn")
    file = torn / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith("decoder.conv_out")}, file)
    with pytest.raises(WeightsError, match=r"lack decoder.conv_out"):
        load_decoder(torn)


@pytest.mark.slow
def test_the_command_line_refuses_first_and_walks_with_a_score(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for sample in halves(24):
        Image.fromarray(sample.pixels).save(photos / f"{sample.image}.png")
    given = ["study", "generate", "--pictures", str(photos), "--labels", "red,blue", "--class", "red", "-q", "--json",
             "-e", "new:resnet/16", "--engine", "torch", "--set", "n_steps=2", "--set", "n=1"]  # fmt: skip
    done = CliRunner().invoke(app, [*given, "--decoder", str(folder / "p")])
    assert done.exit_code == 2 or isinstance(done.exception, ModelError)
    assert str(done.exception or done.output).startswith("The reconstruction error of ")
    wide = ["--set", "prior=autoencoder", "--set", "prior_steps=5", "-o", str(tmp_path / "made")]
    done = CliRunner().invoke(app, [*given, "--decoder", str(folder / "pixels"), *wide])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)["generator"]
    assert (facts["prior"], facts["code"], facts["held_out_error"]) == ("autoencoder", [3, SIDE, SIDE], 0)
