"""Use a block of a diffusion model as an encoder: ``diffusion:/folder`` with a pixel U-Net of diffusers.

Options may follow, see :class:`Reading`: ``diffusion:/folder@block=12,t=90,pool=2,noise=0,draws=4``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError, ModelError, WeightsError, needs
from ..storage.reading import read_json, reason
from ..types import Transform
from .base import Encoder, GlobalAverage, Layout
from .fence import check_counts, loading
from .split import Split, UntilLayer, fingerprint, freeze, weights_digest
from .weights import WeightsFile, check_folder, local_folder, read_config

CONFIG, WEIGHTS, KIND = "config.json", "diffusion_pytorch_model.safetensors", "UNet2DModel"
LIBRARIES = ("diffusers",)
SCHEDULES = ("scheduler/scheduler_config.json", "scheduler_config.json")
MOST_STEPS, MOST_DRAWS = 100_000, 64


@dataclass(frozen=True)
class Reading:
    """Options that select features of a U-Net.

    Attributes:
        block: number of the block, counted from 1 as in the paper's code. The blocks are, in this order: the input
            convolution; each residual block with its attention, and each downsampler; the middle block; each residual
            block of the decoder, where the last block of a level includes the upsampler. 0 means :func:`usual_block`.
        t: timestep of the noise. The paper uses step 90 of a linear schedule with 1,000 steps; the follow-up paper uses
            step 150.
        pool: side of the grid over which features are pooled. With 1, the pooled vector is the mean, and CAMs can be
            computed in closed form.
        noise: random seed of the noise.
        draws: number of noise samples over which features are averaged.
    """

    block: int = 0
    t: int = 90
    pool: int = 1
    noise: int = 0
    draws: int = 1

    @classmethod
    def said(cls, text: str, name: str) -> Reading:
        known, found = [f.name for f in fields(cls)], {}
        for part in filter(None, text.split(",")):
            key, _, value = part.partition("=")
            if key not in known or not (value.isascii() and value.isdecimal() and len(value) < 10):
                raise InputError(
                    f"The options of the encoder {name!r} must be {', '.join(f'{k}=NUMBER' for k in known)}, got "
                    f"{part!r}. For example: diffusion:/folder@block=12,t=90"
                )
            found[key] = int(value)
        return cls(**found)


def load(name: str, *, engine: str = "auto") -> Encoder:
    """Load features of an unconditional diffusion model (2307.08702; ECCV 2024: 2311.17921).

    The input of the U-Net is the noised picture

        x_t = sqrt(a_t) x + sqrt(1 - a_t) e

    at timestep ``t``, where ``x`` is the picture, ``e`` is noise and ``a_t`` comes from the saved schedule. Without a
    saved schedule, the noise variance is linear from 1e-4 to 0.02 in 1,000 steps. The feature map is the output of one
    block, numbered as in the authors' ``get_multiple_features``. Where we differ from the authors' code: the noise is
    the same for every picture.

    Args:
        name: folder written by ``save_pretrained`` of a ``UNet2DModel`` or of a pipeline with one, in safetensors;
            options of :class:`Reading` may follow after ``@``.
        engine: engine of the U-Net; ``"auto"`` means torch.
    """
    whole = f"diffusion:{name}"
    place, _, said = name.rpartition("@") if "@" in name and not Path(name).exists() else (name, "", "")
    reading, folder = Reading.said(said, whole), local_folder(whole, Path(place).expanduser())
    with needs("diffusion", "diffusers"):
        import diffusers
    check_folder(whole, folder)
    own = folder / "unet" if (folder / "unet" / CONFIG).is_file() else folder
    config = _config(own, whole)
    check_counts(whole, config)
    file = own / WEIGHTS
    if not file.is_file():
        raise WeightsError(
            f"The folder of {whole!r} must have {WEIGHTS}, because a pickle can run code. Save the model again with "
            "save_pretrained."
        )
    with loading(lambda why: ModelError(f"{whole!r} cannot be built: {why} Save it again, or choose another model.")):
        network = WeightsFile(file, {}).fill(lambda: diffusers.UNet2DModel.from_config(config), KIND)
    return encoder_of(network, alphas_of(folder, whole), reading, whole, engine=engine)


def encoder_of(
    network: nn.Module, alphas: Float[Tensor, " steps"], reading: Reading, name: str, *, engine: str = "auto"
) -> Encoder:
    """Make an encoder from a U-Net, which is frozen in place."""
    config: Any = network.config
    side, half = config.sample_size, (0.5, 0.5, 0.5)
    height, width = map(int, (side, side) if isinstance(side, int) else side)
    transform = Transform((height, width), min(height, width), "bicubic", half, half)
    points = blocks_of(network)
    block = reading.block or usual_block(network)
    for what, value, most in (("block", block, len(points)), ("t", reading.t, len(alphas) - 1)):
        if not (what == "t") <= value + (what == "t") or value > most:
            raise InputError(f"{what} of {name!r} must be at most {most}, got {value}.")
    if not 1 <= reading.draws <= MOST_DRAWS or reading.pool < 1:
        raise InputError(
            f"`draws` of {name!r} must be from 1 to {MOST_DRAWS} and `pool` at least 1, got draws={reading.draws} and "
            f"pool={reading.pool}."
        )
    noised = Noised(freeze(network).float(), float(alphas[reading.t]), reading, transform.input_size)
    trunk = freeze(Averaged(noised, f"network.{points[block - 1]}", reading.draws))
    cells = nn.Sequential(nn.AdaptiveAvgPool2d(reading.pool), nn.Flatten())
    head = GlobalAverage() if reading.pool == 1 else cells
    key = f"{fingerprint(network, transform)}|{block}|{reading}|{float(alphas[reading.t])!r}"
    whole, engine = nn.Sequential(trunk, head), "torch" if engine == "auto" else engine
    split = Split(trunk, freeze(head), Layout())
    return split.encoder(whole, name, transform, fingerprint=weights_digest({}, key), engine=engine)


class Noised(nn.Module):
    """A U-Net with fixed noise on its input."""

    noises: Tensor

    def __init__(self, network: nn.Module, alpha: float, reading: Reading, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.alpha, self.t, self.draw = network, alpha, reading.t, 0
        draws = torch.Generator().manual_seed(reading.noise)
        self.register_buffer("noises", torch.randn(reading.draws, 3, *size, generator=draws), persistent=False)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Any:
        noisy = self.alpha**0.5 * pixels + (1 - self.alpha) ** 0.5 * self.noises[self.draw]
        return self.network(noisy, self.t)


class Averaged(nn.Module):
    """The output of one block, averaged over the noise samples."""

    def __init__(self, noised: Noised, point: str, draws: int) -> None:
        super().__init__()
        self.noised, self.draws = noised, draws
        self.until = UntilLayer(noised, point)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        found = []
        for draw in range(self.draws):
            self.noised.draw = draw
            found.append(self.until(pixels))
        return found[0] if self.draws == 1 else torch.stack(found).mean(0)


def blocks_of(network: Any) -> list[str]:
    """Return the layer names of all blocks, in the order of :class:`Reading`."""
    found = ["conv_in"]
    for side, blocks in (("down_blocks", network.down_blocks), ("up_blocks", network.up_blocks)):
        if side == "up_blocks":
            found.append("mid_block")
        for i, block in enumerate(blocks):
            place = f"{side}.{i}"
            attentions = [*(getattr(block, "attentions", None) or ())]
            kind = "attentions" if len(attentions) == len(block.resnets) else "resnets"
            inner = [f"{place}.{kind}.{j}" for j in range(len(block.resnets))]
            if side == "down_blocks":
                inner += [f"{place}.downsamplers.0"] * bool(getattr(block, "downsamplers", None))
            elif getattr(block, "upsamplers", None):
                inner[-1] = f"{place}.upsamplers.0"
            found += inner
    return found


def usual_block(network: Any) -> int:
    """Return the index of the default block (paper: block 24 of 37)."""
    per_level = len(network.up_blocks[0].resnets)
    middle = blocks_of(network).index("mid_block") + 1
    return middle + min(2 * per_level - 1, len(blocks_of(network)) - middle)


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the saved settings of the scheduler, or ``{}``."""
    file = next((folder / one for one in SCHEDULES if (folder / one).is_file()), None)
    return {} if file is None else dict(read_json(file))


def alphas_of(folder: Path, name: str) -> Float[Tensor, " steps"]:
    """Return the cumulative products ``a_t`` of the saved noise schedule."""
    try:
        return schedule(settings_of(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"The noise schedule of {name!r} must be linear, scaled_linear or squaredcos_cap_v2 of diffusers, but "
            f"{reason(error)}. Save the model's scheduler in its folder."
        ) from error


def schedule(said: Mapping[str, Any]) -> Float[Tensor, " steps"]:
    """Compute the cumulative products ``a_t`` from the settings of a diffusers scheduler."""
    n, kind = int(said.get("num_train_timesteps", 1000)), said.get("beta_schedule", "linear")
    low, high = float(said.get("beta_start", 1e-4)), float(said.get("beta_end", 0.02))
    if not 1 <= n <= MOST_STEPS:
        raise ValueError(f"it has {n} steps")
    if said.get("trained_betas") is not None:
        betas = torch.tensor(said["trained_betas"], dtype=torch.double)
    elif kind == "linear":
        betas = torch.linspace(low, high, n, dtype=torch.double)
    elif kind == "scaled_linear":
        betas = torch.linspace(low**0.5, high**0.5, n, dtype=torch.double) ** 2
    elif kind == "squaredcos_cap_v2":
        left = [cos((i / n + 0.008) / 1.008 * pi / 2) ** 2 for i in range(n + 1)]
        betas = torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(left)], dtype=torch.double)
    else:
        raise ValueError(f"its beta_schedule is {kind!r}")
    return (1 - betas).cumprod(0)


def _config(folder: Path, name: str) -> dict[str, Any]:
    """Read and check the configuration of an unconditional U-Net for RGB pictures."""
    config = read_config(name, folder / CONFIG, f"Save the {KIND} again with save_pretrained.")
    kind = config.get("_class_name")
    classes = config.get("num_class_embeds") or config.get("class_embed_type")
    if kind != KIND or config.get("in_channels") != 3 or classes or not config.get("sample_size"):
        told = f"{config.get('in_channels')} channels" + ("" if not classes else ", with classes")
        raise ModelError(
            f"{name!r} must be a {KIND} with 3 channels, a known size and no classes, got {kind} with {told}. Choose "
            "a model of pixels, not of latents."
        )
    return {k: v for k, v in config.items() if not k.startswith("_")}
