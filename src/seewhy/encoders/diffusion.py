"""Diffusion models as encoders: ``diffusion:/folder`` with a pixel U-Net of diffusers, one block of it at one step.

Block, step, pooling, noise and draws may follow: ``diffusion:/folder@block=12,t=90,pool=2,noise=0,draws=4``.
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
from .split import Split, UntilLayer, fingerprint, freeze, in_single, weights_digest
from .weights import WeightsFile, check_folder, local_folder, read_config

CONFIG, WEIGHTS, KIND = "config.json", "diffusion_pytorch_model.safetensors", "UNet2DModel"
SCHEDULES = ("scheduler/scheduler_config.json", "scheduler_config.json")
MOST_STEPS, MOST_DRAWS = 100_000, 64


@dataclass(frozen=True)
class Reading:
    """Which features of the U-Net are read.

    Attributes:
        block: number of the block, counted from 1 as in the paper's code: the input, each residual block with its
            attention, each halving; the middle; each residual block of the way up, the last of a level with its
            doubling. 0 is :func:`usual_block`.
        t: step of the noise. The paper's 90 of a linear schedule of 1,000; the follow-up's 150.
        pool: cells per side of the pooled vector; with 1, maps are closed forms of the decision.
        noise: seed of the noise.
        draws: noises whose features are averaged; each is a pass.
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
                    f"The encoder {name!r} was given {part!r}. Expected {', '.join(f'{k}=NUMBER' for k in known)}. For "
                    "example: diffusion:/folder@block=12,t=90"
                )
            found[key] = int(value)
        return cls(**found)


def load(name: str, *, engine: str = "auto") -> Encoder:
    """Features of a diffusion model that was trained on pictures without labels (2307.08702; ECCV 2024: 2311.17921).

    ``x_t = sqrt(a_t) x + sqrt(1 - a_t) e`` is shown to the U-Net at step ``t``, and the output of one block is the map.
    ``a_t`` comes from the model's own schedule or, if none is saved, from the linear one from 1e-4 to 0.02 in 1,000
    steps. Blocks are those of the authors' ``get_multiple_features``, which draws new noise at every pass. Here the
    noise is the same for every picture. So a picture gives the same features alone and in a batch, and a change of a
    few pixels changes little.

    The name is a folder written by ``save_pretrained`` of a ``UNet2DModel``, or of a pipeline with one, in safetensors;
    after ``@`` follows what is read, see :class:`Reading`. With the engine ``"auto"``, the U-Net runs in torch.
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
            f"{whole!r} has no {WEIGHTS}. Expected weights in safetensors, because a pickle can run code. Save the "
            "model again with save_pretrained."
        )
    with loading(lambda why: ModelError(f"{whole!r} cannot be built: {why} Save it again, or choose another model.")):
        network = WeightsFile(file, {}).fill(lambda: diffusers.UNet2DModel.from_config(config), KIND)
    return encoder_of(network, alphas_of(folder, whole), reading, whole, engine=engine)


def encoder_of(
    network: nn.Module, alphas: Float[Tensor, " steps"], reading: Reading, name: str, *, engine: str = "auto"
) -> Encoder:
    """Make an encoder from a U-Net in memory, which it freezes and keeps."""
    config: Any = network.config
    side, half = config.sample_size, (0.5, 0.5, 0.5)
    height, width = map(int, (side, side) if isinstance(side, int) else side)
    transform = Transform((height, width), min(height, width), "bicubic", half, half)
    points = blocks_of(network)
    block = reading.block or usual_block(network)
    for what, value, most in (("block", block, len(points)), ("t", reading.t, len(alphas) - 1)):
        if not (what == "t") <= value + (what == "t") or value > most:
            raise InputError(f"{name!r} was given {what}={value}. Expected a number up to {most}. Change it.")
    if not 1 <= reading.draws <= MOST_DRAWS or reading.pool < 1:
        raise InputError(
            f"{name!r} was given draws={reading.draws}, pool={reading.pool}. Expected 1 to {MOST_DRAWS} draws, and at "
            "least one cell. Change them."
        )
    noised = Noised(in_single(freeze(network)), float(alphas[reading.t]), reading, transform.input_size)
    trunk = freeze(Averaged(noised, f"network.{points[block - 1]}", reading.draws))
    cells = nn.Sequential(nn.AdaptiveAvgPool2d(reading.pool), nn.Flatten())
    head = GlobalAverage() if reading.pool == 1 else cells
    key = f"{fingerprint(network, transform)}|{block}|{reading}|{float(alphas[reading.t])!r}"
    whole, engine = nn.Sequential(trunk, head), "torch" if engine == "auto" else engine
    split = Split(trunk, freeze(head), Layout())
    return split.encoder(whole, name, transform, fingerprint=weights_digest({}, key), engine=engine)


class Noised(nn.Module):
    """A U-Net that sees pictures under a fixed noise, which leaves the fraction ``alpha`` of their power."""

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
    """The output of one block, averaged over the noises."""

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
    """Names of the layers whose outputs are the blocks, as the paper's code counts them; see :class:`Reading`."""
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
    """The block before the second doubling after the bottleneck: in the paper, block 24 of 37."""
    per_level = len(network.up_blocks[0].resnets)
    middle = blocks_of(network).index("mid_block") + 1
    return middle + min(2 * per_level - 1, len(blocks_of(network)) - middle)


def settings_of(folder: Path) -> dict[str, Any]:
    """Settings of the scheduler that was saved with a model; empty if there is none."""
    file = next((folder / one for one in SCHEDULES if (folder / one).is_file()), None)
    return {} if file is None else dict(read_json(file))


def alphas_of(folder: Path, name: str) -> Float[Tensor, " steps"]:
    """The fraction of the picture's power left at each step, by the schedule that was saved with the model."""
    try:
        return schedule(settings_of(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"The schedule of {name!r} cannot be used ({reason(error)}). Expected one of diffusers: linear, "
            "scaled_linear or squaredcos_cap_v2. Save the model's own scheduler beside it."
        ) from error


def schedule(said: Mapping[str, Any]) -> Float[Tensor, " steps"]:
    """The noise schedule from a scheduler's settings, with diffusers' names."""
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
    """Of a U-Net that can be read: pixels in colour, without classes."""
    config = read_config(name, folder / CONFIG, f"Save the {KIND} again with save_pretrained.")
    kind = config.get("_class_name")
    classes = config.get("num_class_embeds") or config.get("class_embed_type")
    if kind != KIND or config.get("in_channels") != 3 or classes or not config.get("sample_size"):
        told = f"{config.get('in_channels')} channels" + ("" if not classes else ", with classes")
        raise ModelError(
            f"{name!r} is a {kind} of {told}. Expected a {KIND} for pictures with 3 channels, of a known size and "
            "without classes. Models of latent pictures or texts do not fit. Choose another model."
        )
    return {k: v for k, v in config.items() if not k.startswith("_")}
