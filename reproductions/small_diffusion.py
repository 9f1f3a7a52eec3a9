"""Small networks of diffusers, trained from nothing: an autoencoder of pictures, and a diffusion model of its codes.

A folder that :func:`save` writes is what ``seewhy study generate --decoder`` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from seewhy.encoders.diffusion import schedule
from seewhy.seeded import seeded
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Task

KL = 1e-3
"""Weight of the divergence from the normal distribution, beside the mean squared error of pixels."""


class Picture(Task):
    """Pictures of -1…1 through an autoencoder."""

    needs: ClassVar[tuple[str, ...]] = ("pixels", "noise")

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        found = self.network.encode(batch["pixels"]).latent_dist
        return self.network.decode(found.mean + found.std * batch["noise"]).sample, found.kl()

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        made, divergence = features
        pixel = mse_loss(made, batch["pixels"])
        return {"loss": pixel + KL * divergence.mean() / batch["noise"][0].numel(), "pixel": pixel.detach()}


class Noise(Task):
    """The noise in codes at a step drawn evenly."""

    needs: ClassVar[tuple[str, ...]] = ("codes", "noise", "t")

    def __init__(self, network: Any, alphas: Float[Tensor, " steps"]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("alphas", alphas, persistent=False)

    def features(self, batch: Batch) -> Tensor:
        a: Any = self.alphas[batch["t"]][:, None, None, None]
        found: Tensor = self.network(a.sqrt() * batch["codes"] + (1 - a).sqrt() * batch["noise"], batch["t"]).sample
        return found

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": mse_loss(features, batch["noise"])}


def normal(*shape: int) -> Callable[[list[int], torch.Generator], Tensor]:
    """Noise of each sample, drawn anew in every step."""
    return lambda index, draw: torch.randn(len(index), *shape, generator=draw)


def fit(task: Task, columns: dict[str, Any], steps: int, seed: int, lr: float, size: int) -> nn.Module:
    """Trained on batches of a size; the network."""
    n = len(next(iter(columns.values())))
    train(task, TrainingData(n, columns), Training(steps, size, lr=lr, weight_decay=0.0, seed=seed, clip=1.0))
    network: Any = task.network
    return network


def autoencoder(pixels: Float[Tensor, "n 3 s s"], steps: int, seed: int, levels: int = 3) -> Any:
    """An ``AutoencoderKL`` of pictures of -1…1, with codes of 4 channels; its scaling factor is measured."""
    side, width = pixels.shape[-1], (8, 16, 32, 32)[:levels]
    with seeded(seed):
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=width, layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=side,
        )  # fmt: skip
    small = side // 2 ** (levels - 1)
    fit(Picture(network), {"pixels": pixels, "noise": normal(4, small, small)}, steps, seed, 4e-3, 32)
    network.register_to_config(scaling_factor=1 / float(latents(network, pixels).std()))
    return network


@torch.no_grad()
def latents(network: Any, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 4 h w"]:
    """Means of the codes, before they are scaled."""
    return torch.cat([network.encode(part).latent_dist.mean for part in pixels.split(64)])


def diffusion(codes: Float[Tensor, "n c s s"], steps: int, seed: int, width: int = 32) -> Any:
    """A ``UNet2DModel`` that predicts noise by the linear schedule of 1,000 steps."""
    with seeded(seed):
        network = UNet2DModel(
            sample_size=codes.shape[-1], in_channels=codes.shape[1], out_channels=codes.shape[1],
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(width, 2 * width), layers_per_block=1, norm_num_groups=8,
        )  # fmt: skip
    times = {"t": lambda index, draw: torch.randint(1000, (len(index),), generator=draw)}
    return fit(Noise(network, schedule({}).float()), {"codes": codes, "noise": normal(*codes.shape[1:])} | times,
               steps, seed, 2e-3, 128)  # fmt: skip


def save(folder: Path, network: Any, unet: Any) -> Path:
    """As a pipeline's folder, with the scheduler."""
    if network is not None:
        network.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder
