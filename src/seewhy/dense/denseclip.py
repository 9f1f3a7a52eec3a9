"""DenseCLIP (Rao et al. 2022, CVPR): texts that look at the picture, and a decoder that reads their map of scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize

from ..encoders.base import Encoder
from ..errors import DataError, InputError
from ..pictures.pixel_classes import LEFT_OUT, MaskedPictures
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, train
from ..training.task import Task
from . import segmenters
from .cells import joint_cells
from .context_decoder import ContextDecoder, visual_context
from .maskclip import MaskCLIP, Words
from .segmenter import LARGEST, Segmenter
from .truths import with_truth

FINER = 4
"""Pixels of a mask that is learnt from, along a cell."""
GROUPS = 8


@segmenters.register
@dataclass(frozen=True)
class DenseCLIP:
    """A small decoder on the encoder's frozen map, beside it the scores of texts that have looked at the picture.

    ``t' = t + γ · decoder(t, [z̄; z])``, ``s = cos(z, t')`` (post-model prompting, section 3.3), the map ``[features;
    s]`` into the decoder, loss ``CE(decoder) + .4 CE(s / τ)`` on pixels with a class (the authors' identity head).

    Differs: the encoder is frozen and shows its last map alone, so that the decoder is three convolutions at that grid
    and no pyramid; texts are those of :class:`~seewhy.dense.maskclip.MaskCLIP`, without learnt contexts; cells are each
    by itself, as there. The context decoder equals the authors'.

    Cost: one pass of the trunk for each window; training, 3 convolutions and a small transformer a step. Memory: the
    maps of all windows at half precision, .5 MB each for the embedded encoder.

    Args:
        n_steps: of training.
        batch_size: windows a step.
        lr: learning rate, at its highest.
        width: channels of the decoder.
        gamma: at first, the authors' 1e-4.
        tau: temperature of the auxiliary loss; the authors' .07.
        auxiliary: its weight; the authors' .4.
        scores: whether the decoder is shown the map of scores; without it, and auxiliary=0, it is a decoder alone.
        zoom: the picture's short side, in inputs of the encoder.
        least: probability below which a pixel is given no name.
        seed: of weights, order and mirroring.

    Raises:
        InputError: a parameter is out of its range.
        DataError: fewer than two pictures can be used.
        ModelError: the encoder has no words, or its head cannot take a cell alone.
    """

    name: ClassVar[str] = "denseclip"
    spelt: ClassVar[str] = "DenseCLIP"
    paper: ClassVar[str] = "Rao et al. 2022, arXiv:2112.01518"
    needs: ClassVar[str] = "pictures with masks and an image-text encoder"

    n_steps: int = 400
    batch_size: int = 8
    lr: float = 1e-3
    width: int = 128
    gamma: float = 1e-4
    tau: float = 0.07
    auxiliary: float = 0.4
    scores: bool = True
    zoom: float = LARGEST
    least: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < GROUPS or self.width % GROUPS or self.tau <= 0 or self.auxiliary < 0:
            raise InputError(
                f"denseclip was given width={self.width}, tau={self.tau:g}, auxiliary={self.auxiliary:g}. A multiple "
                f"of {GROUPS}, a number above 0 and one from 0 on were expected. Change them."
            )

    def fit(
        self,
        encoder: Encoder,
        data: MaskedPictures,
        *,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Segmenter:
        """Train the decoder.

        Args:
            encoder: with words; it stays as it is.
            data: pictures with masks.
            progress: hears of progress and failures.
            checkpoint: a file from which a stopped training goes on.
        """
        progress = progress or Progress()
        words = MaskCLIP(zoom=self.zoom).build(encoder, data.classes)
        assert isinstance(words.scorer, Words)
        maps, joint, labels, n = _gathered(words, data, progress)
        with seeded(self.seed):
            network = Decoder(maps.shape[1], words.scorer.texts, self)
        network.mean.copy_(maps.float().mean((0, 2, 3)))
        network.spread.copy_(maps.float().std((0, 2, 3)).clamp(min=1e-6))
        how = Training(
            self.n_steps, self.batch_size, lr=self.lr, weight_decay=1e-4, schedule="cosine",
            warmup=min(20, self.n_steps), seed=self.seed,
        )  # fmt: skip
        columns = {"maps": maps, "joint": joint, "labels": labels}
        what = json.dumps([asdict(self), encoder.fingerprint, data.classes, [i.image for i in data.items]])
        kept = None if checkpoint is None else (checkpoint, what)
        train(_Learning(network, self), TrainingData(len(maps), columns), how, checkpoint=kept, progress=progress)
        made = self.segmenter(encoder, data.classes, network)
        return made.with_trained_on(f"{len(maps)} windows of {n} pictures with masks")

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        """The segmenter that was saved."""
        network = Decoder(len(tensors["mean"]), tensors["texts"], self)
        network.load_state_dict(dict(tensors))
        return self.segmenter(encoder, classes, network)

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], network: Decoder) -> Segmenter:
        """With these scores."""
        scorer = Decoded(network.eval().requires_grad_(False))
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least)


class Decoder(nn.Module):
    """The encoder's map, and its cells among the words → scores of classes, and cosines with texts.

    Args:
        channels: of the map.
        texts: of the classes.
        how: its sizes.
    """

    texts: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, channels: int, texts: Float[Tensor, "k d"], how: DenseCLIP) -> None:
        super().__init__()
        (k, d), width = texts.shape, how.width
        self.register_buffer("texts", texts.clone())
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.shows = how.scores
        self.context = ContextDecoder(d)
        self.gamma = nn.Parameter(torch.full((d,), how.gamma))
        self.decode = nn.Sequential(
            nn.Conv2d(channels + (k if self.shows else 0), width, 1), nn.GroupNorm(GROUPS, width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, k, 1),
        )  # fmt: skip

    def forward(
        self, maps: Float[Tensor, "b c h w"], joint: Float[Tensor, "b d h w"]
    ) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"]]:
        text = self.texts.expand(len(maps), -1, -1)
        text = text + self.gamma * self.context(text, visual_context(joint))
        cosine = torch.einsum("bdhw,bkd->bkhw", normalize(joint, dim=1), normalize(text, dim=2))
        seen = (maps - self.mean[:, None, None]) / self.spread[:, None, None]
        return self.decode(torch.cat([seen, cosine], 1) if self.shows else seen), cosine


class _Learning(Task):
    """The decoder's loss and, beside it, that of the map of scores."""

    needs: ClassVar = ("maps", "joint", "labels")

    def __init__(self, network: Decoder, how: DenseCLIP) -> None:
        super().__init__()
        self.network, self.how = network, how

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        maps, joint, labels = batch["maps"].float(), batch["joint"].float(), batch["labels"].long()
        if self.training and bool(torch.rand(()) < 0.5):
            maps, joint, labels = maps.flip(3), joint.flip(3), labels.flip(2)
        return (*self.network(maps, joint), labels)

    def loss(self, features: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        scores, cosine, labels = features
        decoded, beside = _pixel_loss(scores, labels), _pixel_loss(cosine / self.how.tau, labels)
        return {"loss": decoded + self.how.auxiliary * beside, "decoded": decoded, "scores": beside}


def _pixel_loss(scores: Float[Tensor, "b k h w"], labels: Tensor) -> Float[Tensor, ""]:
    """Over pixels with a class; 0 where there is none."""
    finer = interpolate(scores, size=labels.shape[1:], mode="bilinear", align_corners=False)
    total = cross_entropy(finer, labels, ignore_index=LEFT_OUT, reduction="sum")
    return total / (labels != LEFT_OUT).sum().clamp(min=1)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Scores of cells by a trained decoder."""

    network: Decoder

    scale: ClassVar[float] = 1.0
    compares: ClassVar[bool] = False

    @torch.no_grad()
    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        found: Tensor = self.network(encoder.layout.to_grid(features), joint_cells(encoder, features))[0]
        return found

    def random(self, seed: int) -> None:
        return None

    def tensors(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        return scores


def _gathered(segmenter: Segmenter, data: MaskedPictures, progress: Progress) -> tuple[Tensor, Tensor, Tensor, int]:
    """Maps, cells among the words and masks of all windows, and of how many pictures.

    Raises:
        DataError: fewer than two pictures can be used.
    """
    maps, joint, labels, n = [], [], [], 0
    for one, truth, _ in with_truth(segmenter, data, progress, "Looking"):
        if (truth == LEFT_OUT).all():
            continue
        n += 1
        grid = segmenter.encoder.layout.to_grid(one.features)
        maps.append(grid.half())
        joint.append(joint_cells(segmenter.encoder, one.features).half())
        height, width = truth.shape
        for crop in one.windows.crops():
            left, top, right, bottom = crop.box
            down, across = (FINER * c for c in one.windows.cells)
            rows = ((top + (np.arange(down) + 0.5) / down * (bottom - top)) * height).astype(int).clip(0, height - 1)
            columns = ((left + (np.arange(across) + 0.5) / across * (right - left)) * width).astype(int)
            labels.append(torch.from_numpy(truth[rows][:, columns.clip(0, width - 1)]))
    if n < 2:
        raise DataError(
            f"{n} picture(s) with masks can be learnt from. Two or more were expected. Give more pictures with masks."
        )
    return torch.cat(maps), torch.cat(joint), torch.stack(labels), n
