"""Trains a generator: from an encoder's code back to the picture (Nguyen et al. 2017, arXiv:1612.00005).

    python reproductions/train_generator.py photos/ -o gen --reads 96
    seewhy study generate -m birds --generator gen --class wren -o made/

A stopped run continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

import seewhy
from seewhy.classifiers.encoded_set import parted
from seewhy.cli.terminal import Terminal
from seewhy.encoders.base import Encoder
from seewhy.errors import DataError, ImageError, InputError
from seewhy.generation.generator import (
    ARCHIVE,
    FILE,
    LEAK,
    SIDES,
    Generator,
    GeneratorNetwork,
    Reader,
    batched,
    errors,
    some,
    unit,
)
from seewhy.pictures.images import read_picture
from seewhy.pictures.samples import Sample, load_pictures
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.storage.marks import CHECKPOINT
from seewhy.storage.output import check_checkpoint, make_folder, remove
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Task
from seewhy.types import Failure

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
                f"reads={self.reads}. Expected weights of 0 or more, a part between 0 and 1 and a side of 8 or "
                "more. Change them."
            )
        GeneratorNetwork(1, self.side, self.width, self.hidden)

    def fit(
        self,
        encoder: Encoder,
        items: Sequence[Sample],
        *,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Generator:
        """Train on these pictures; labels are not used."""
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
        done = train(task, data, how, checkpoint=where, progress=progress)
        first = torch.randperm(len(own), generator=torch.Generator().manual_seed(self.seed))[:KEPT]
        low, high = (float(torch.quantile(some(codes[own]), q)) for q in (1 - CLIPPED, CLIPPED))
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
        transform = encoder.transform.at(self.side)
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


def _errors(
    network: GeneratorNetwork,
    read: Reader,
    pictures: UInt8[Tensor, "n h w 3"],
    codes: Float[Tensor, "n d"],
    own: list[int],
    held: list[int],
) -> dict[str, float]:
    """How far made pictures are from held-out ones, and their codes from the codes; beside them the mean picture's."""
    real = unit(pictures[held])
    with torch.no_grad():
        found = torch.cat([network(part) for part in codes[held].split(64)])
    code = batched(read, found) - codes[held]
    around = codes[held] - codes[own].mean(0)
    return {
        **errors(found, real, pictures[own]),
        "code_error": round(float(code.square().sum() / around.square().sum().clamp_min(1e-12)) ** 0.5, 5),
    }


class Reconstruct(Task):
    """The generator, and its discriminator where there is one."""

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


def discriminator(side: int, width: int = 32) -> nn.Module:
    """Pictures → one number, high for real ones; halves the side down to 4 × 4."""
    n_down = SIDES.index(side) + 2
    channels = [3, *(width * min(4, 2**i) for i in range(n_down))]
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(channels):
        layers += [nn.Conv2d(n_in, n_out, 4, 2, 1), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels[-1], 1), nn.Flatten(0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on a folder of pictures and save what :func:`seewhy.generate` reads."""
    parser = argparse.ArgumentParser(description="Trains a generator on pictures; run again, it goes on.")
    parser.add_argument("data", help="class folders, a folder of pictures, or a table; classes are not used")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the generator's folder")
    parser.add_argument("-e", "--encoder", default="lite0")
    parser.add_argument("--engine", default="auto")
    for field in fields(FitGenerator):
        kind = int if field.name == "reads" else type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = vars(parser.parse_args(arguments))
    fit = FitGenerator(**{field.name: given[field.name] for field in fields(FitGenerator)})
    folder = make_folder(given["output"])
    ARCHIVE.check(folder / FILE)
    checkpoint = check_checkpoint(folder / ".generator.checkpoint")
    on = seewhy.encoder(given["encoder"], engine=given["engine"])
    made = fit.fit(on, load_pictures(given["data"]).items, checkpoint=checkpoint, progress=Terminal(False))
    path = made.save(folder)
    remove(checkpoint, CHECKPOINT)
    print(f"{path}: {made.recipe}")


if __name__ == "__main__":
    main()
