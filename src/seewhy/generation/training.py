"""Training of a generator: from an encoder's code back to the picture (Nguyen et al. 2017, arXiv:1612.00005)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from ..encoders.base import Encoder
from ..errors import DataError, ImageError, InputError
from ..learning.seen_pairs import parted
from ..pictures.images import read_picture
from ..pictures.samples import Sample
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, train
from ..training.task import Task
from ..types import Failure
from .generator import Generator, GeneratorNetwork, Reader, batched, discriminator, shown_at, unit

LEAST = 16
"""Pictures from which a generator can be trained at all."""
KEPT = 512
"""Codes of training pictures that are kept with a generator, to start from."""
CLIPPED = 0.999
"""Quantile of all units of all training codes that a code may reach."""
PAUSE = (0.1, 10.0)
"""The authors': below, the discriminator waits; above, the generator."""


@dataclass(frozen=True)
class FitGenerator:
    """Trains ``G`` with ``L = L_img + h1 · L_h1 + gan · L_GAN``, the encoder frozen (noiseless joint PPGN-h).

    ``L_img`` is the mean squared error of pixels of 0…1; ``L_h1`` that of the trunk's features, as a part of their
    variance, so that its weight means the same for every encoder (the authors' is not known). With ``gan``, the
    discriminator waits while its loss is below a tenth of the generator's, and the generator's game in the other
    case; the optimiser's momentum goes on meanwhile. Codes are those of pictures as coarse as the ones that are made,
    so that a code and its picture's code can be equal.

    Args:
        side: of the pictures made.
        reads: side at which the encoder reads them; left out, its own. Less is faster, where the encoder takes it.
        width: of the network.
        hidden: of the network.
        h1: weight of features.
        gan: weight of the discriminator; 0 trains none.
        n_steps: batches in all.
        batch_size: pictures at once.
        lr: highest learning rate; 1e-3 on one cycle (the authors' code for training is not public).
        held_out: part of the pictures that the reconstruction is measured on.
        seed: of weights, order and what is held out.
    """

    side: int = 64
    reads: int | None = None
    width: int = 32
    hidden: int = 512
    h1: float = 0.05
    gan: float = 0.0
    n_steps: int = 2000
    batch_size: int = 32
    lr: float = 1e-3
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.h1 < 0 or self.gan < 0 or not 0 < self.held_out < 1 or (self.reads is not None and self.reads < 8):
            raise InputError(
                f"The generator was given h1={self.h1:g}, gan={self.gan:g}, held_out={self.held_out:g}, "
                f"reads={self.reads}. Weights of 0 or more, a part between 0 and 1 and a side of 8 or more were "
                "expected. Change them."
            )
        GeneratorNetwork(1, self.side, self.width, self.hidden)

    def fit(
        self,
        encoder: Encoder,
        items: Sequence[Sample],
        *,
        checkpoint: Path | None = None,
        history: Path | None = None,
        progress: Progress | None = None,
    ) -> Generator:
        """Train on these pictures; labels are not used.

        Args:
            encoder: whose code is turned round; it stays as it is.
            items: the pictures.
            checkpoint: where to keep what a stopped run goes on from; the caller deletes it when the result is safe.
            history: a file of JSON lines to which each step's terms are added.
            progress: hears of progress and of pictures that cannot be read.

        Raises:
            DataError: fewer than 16 pictures can be read.
            InputError: the loss is not finite.
            ModelError: the encoder does not take pictures of that side.
        """
        progress = progress or Progress()
        read = Reader(encoder, self.reads)
        kept, digests, pictures = self._read(encoder, items, progress)
        own, held = parted(kept, digests, self.held_out, self.seed)
        parts = list(progress.track(pictures.split(self.batch_size), "Looking", -(-len(kept) // self.batch_size)))
        codes = torch.cat([batched(read, unit(part)) for part in parts])
        with seeded(self.seed):
            network = GeneratorNetwork(codes.shape[1], self.side, self.width, self.hidden)
            network.scale_to(codes[own])
            task = Reconstruct(network, read, self.h1, self.gan)
        how = Training(self.n_steps, min(self.batch_size, len(own)), lr=self.lr, weight_decay=0.0, seed=self.seed)
        seal = json.dumps([asdict(self), encoder.fingerprint, digests])
        data = TrainingData(len(own), {"pictures": pictures[own], "codes": codes[own]})
        where = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, how, checkpoint=where, history=history, progress=progress)
        first = torch.randperm(len(own), generator=torch.Generator().manual_seed(self.seed))[:KEPT]
        low, high = (float(torch.quantile(_some(codes[own]), q)) for q in (1 - CLIPPED, CLIPPED))
        facts = {
            **asdict(self),
            "n_pictures": len(own),
            "n_held_out": len(held),
            "last_loss": round(sum(s["loss"] for s in done.history[-20:]) / len(done.history[-20:]), 5),
            **_errors(network, read, pictures, codes, own, held),
        }
        network.eval().requires_grad_(False)
        return Generator(network, read, (low, high), codes[own][first].half().float(), facts)

    def _read(
        self, encoder: Encoder, items: Sequence[Sample], progress: Progress
    ) -> tuple[list[Sample], list[str], UInt8[Tensor, "n h w 3"]]:
        transform = shown_at(encoder, self.side)
        kept, digests, pictures = [], [], []
        for item in progress.track(items, "Reading", len(items)):
            try:
                found = read_picture(item.source, transform)
            except ImageError as error:
                progress.failed(Failure(item.image, error.reason))
                continue
            kept.append(item)
            digests.append(found.digest)
            pictures.append(torch.from_numpy(found.pixels.copy()))
        if len(set(digests)) < LEAST:
            raise DataError(
                f"{len(set(digests))} different picture(s) can be read. A generator needs {LEAST} or more, and some "
                "hundreds to be of use. Give more pictures."
            )
        return kept, digests, torch.stack(pictures)


def _some(codes: Float[Tensor, "n d"]) -> Float[Tensor, " m"]:
    """Numbers enough for a quantile, evenly taken: torch sorts no more than 16 million."""
    flat = codes.flatten()
    return flat[:: max(1, len(flat) // 2**23)]


def _errors(
    network: GeneratorNetwork,
    read: Reader,
    pictures: UInt8[Tensor, "n h w 3"],
    codes: Float[Tensor, "n d"],
    own: list[int],
    held: list[int],
) -> dict[str, float]:
    """How far made pictures are from held-out ones, and their codes from the codes; beside them the mean picture's."""
    mean = unit(pictures[own].float().mean(0).to(torch.uint8)[None])
    real = unit(pictures[held])
    with torch.no_grad():
        found = torch.cat([network(part) for part in codes[held].split(64)])
    code = batched(read, found) - codes[held]
    around = codes[held] - codes[own].mean(0)
    return {
        "held_out_error": round(float((found - real).square().mean().sqrt()), 5),
        "mean_picture_error": round(float((mean - real).square().mean().sqrt()), 5),
        "code_error": round(float(code.square().sum() / around.square().sum().clamp_min(1e-12)) ** 0.5, 5),
    }


class Reconstruct(Task):
    """The generator, and its discriminator where there is one.

    Args:
        network: codes → pictures.
        read: pictures → features; frozen, and no part of the task.
        h1: weight of features.
        gan: weight of the discriminator.
    """

    needs: ClassVar[tuple[str, ...]] = ("pictures", "codes")
    moves: ClassVar[bool] = False

    def __init__(self, network: GeneratorNetwork, read: Reader, h1: float, gan: float) -> None:
        super().__init__()
        self.network, self.read, self.h1, self.gan = network, read, h1, gan
        self.judge = discriminator(network.side) if gan else None

    def features(self, batch: Batch) -> Tensor:
        made: Tensor = self.network(batch["codes"])
        return made

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        real = unit(batch["pictures"])
        pixel, total = mse_loss(features, real), features.new_zeros(())
        if self.h1:
            with torch.no_grad():
                wanted = self.read.features(real)
            total = mse_loss(self.read.features(features), wanted) / wanted.var().clamp_min(1e-8)
        found = {"pixels": pixel.detach(), "h1": total.detach()}
        loss = pixel + self.h1 * total
        if self.judge is None:
            return {"loss": loss, **found}
        fooled = softplus(-self.judge(features)).mean()
        told = (softplus(-self.judge(real)).mean() + softplus(self.judge(features.detach())).mean()) / 2
        ratio = (told / fooled).detach()
        plays, judges = (ratio <= PAUSE[1]).float(), (ratio >= PAUSE[0]).float()
        return {"loss": loss + self.gan * plays * fooled, "discriminator": judges * told, **found}

    def players(self) -> Mapping[str, nn.Module]:
        if self.judge is None:
            return {"loss": self.network}
        return {"loss": self.network, "discriminator": self.judge}


def recipe_of(facts: Mapping[str, Any]) -> str:
    """What a generator was made from and how well it does, in a sentence."""
    return (
        f"trained on {facts['n_pictures']:,} pictures for {facts['n_steps']:,} steps; on {facts['n_held_out']:,} held "
        f"out its pictures are {facts['held_out_error']:.3f} off (the mean picture: {facts['mean_picture_error']:.3f}; "
        f"root mean square, black to white being 1), and their codes {facts['code_error']:.2f} of the codes' spread"
    )
