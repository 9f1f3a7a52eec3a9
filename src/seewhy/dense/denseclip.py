"""DenseCLIP (Rao et al. 2022, CVPR): texts that look at the picture, and a decoder that reads their map of scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from ..bounds import Bound, NotNegative, Positive, check_fields
from ..encoders.base import Encoder, Layout
from ..errors import DataError, InputError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..learning.adaptation.prompts import Names, opened
from ..pictures.pixel_classes import LEFT_OUT, MaskedPictures
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, train
from ..training.task import Task
from . import segmenters
from .cells import MOST, attended_cells, joint_cells, unpacked
from .denseclip_network import GROUPS, Prompting, TextDecoder, centred
from .finders import Scorer, Segmenter
from .linear import Affine
from .maskclip import MaskCLIP, Words
from .miou import exchanged
from .parts import PooledScore
from .reader import LARGEST
from .windows import Windows

FINER = 4
"""Pixels of a mask that is learnt from, along a cell."""
Texts = Literal["names", "shuffled", "random", "none"]
"""What stands for the classes: their names; another class's name, or a direction drawn, as controls; or nothing."""


class Maps(NamedTuple):
    """Windows that are learnt from: looked at once, whatever is then trained on them."""

    maps: Float[Tensor, "n c h w"]
    joint: Float[Tensor, "n d h w"]
    whole: Float[Tensor, "n d"]
    labels: UInt8[Tensor, "n _y _x"]
    layout: Layout
    n_pictures: int


@segmenters.register
@dataclass(frozen=True)
class DenseCLIP:
    """A small decoder on the encoder's frozen maps, beside them the scores of texts that have looked at the picture.

    ``t' = t + γ · decoder(t, [z̄; z])``, ``s = cos(z, t')`` (post-model prompting, section 3.3), the map ``[features;
    s]`` into the decoder, loss ``CE(decoder) + .4 CE(s / τ)`` on pixels with a class (the authors' identity head). With
    ``n_contexts``, ``t`` are names behind learnt vectors, one set for all classes (section 3.2), read by the frozen
    text network at every step. Pre-model prompting draws these vectors from the picture instead, ``decoder(q, [z̄; z])``
    with learnt queries ``q``, and texts are read for each picture.

    Differs: the encoder is frozen; the decoder is a pyramid of one convolution a level and one 3 by 3 on the finest
    map; texts are taken less their mean, as :class:`~seewhy.dense.maskclip.MaskCLIP` has them, and without contexts are
    its sentences; cells are each by itself, as there, unless ``attended``. The context decoder, the pooling that
    attends and texts behind contexts equal the authors'.

    Cost: one pass of the trunk for each window; training, the decoder and a small transformer a step, and with contexts
    the text network on as many sentences as classes (pre-model: times windows). Memory: the maps of all windows at half
    precision, for the embedded encoder .5 MB each, 1.6 with two levels, 3 with three.

    Args:
        n_steps: of training.
        batch_size: windows a step.
        lr: learning rate, at its highest.
        width: channels of the decoder.
        levels: maps of the trunk that it reads at most, the last and finer ones, which a convolutional trunk has.
        prompting: where the picture changes texts: ``"post"`` behind their network, ``"pre"`` before it, ``"none"``.
        n_contexts: vectors before each name, the authors' 8; 0 for sentences in their place.
        texts: ``"names"``; ``"shuffled"`` and ``"random"`` are controls; ``"none"`` is the decoder alone.
        attended: cells as a pooling by attention makes them when all ask, which is DenseCLIP's own form.
        gamma: at first, the authors' 1e-4.
        tau: temperature of the auxiliary loss; the authors' .07.
        auxiliary: its weight; the authors' .4.
        zoom: the picture's short side, in inputs of the encoder.
        least: probability below which a pixel is given no name.
        seed: of weights, order and mirroring, and of texts that are drawn.

    Raises:
        InputError: a parameter is out of its range.
        DataError: fewer than two pictures can be used.
        ModelError: the encoder has no words, or lacks what a parameter asks of it.
    """

    name: ClassVar[str] = "denseclip"
    spelt: ClassVar[str] = "DenseCLIP"
    paper: ClassVar[str] = "Rao et al. 2022, arXiv:2112.01518"
    needs: ClassVar[str] = "pictures with masks and an image-text encoder"
    cost: ClassVar[str] = "one per window, and its decoder's"
    needs_words: ClassVar[bool] = True

    n_steps: int = 300
    batch_size: int = 4
    lr: float = 2e-3
    width: int = 64
    levels: Annotated[int, Bound(1, MOST)] = 2
    prompting: Prompting = "post"
    n_contexts: Annotated[int, Bound(0, 64)] = 0
    texts: Texts = "names"
    attended: bool = False
    gamma: float = 1e-4
    tau: Positive = 0.07
    auxiliary: NotNegative = 0.4
    zoom: float = LARGEST
    least: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width < GROUPS or self.width % GROUPS:
            raise InputError(f"denseclip was given width={self.width}. A multiple of {GROUPS} was expected. Change it.")
        read = self.n_contexts > 0
        if (self.prompting == "pre" and not read) or (read and self.texts in ("random", "none")):
            raise InputError(
                f"denseclip was given prompting={self.prompting!r}, n_contexts={self.n_contexts}, "
                f"texts={self.texts!r}. Vectors before names were expected to have names behind them, and pre-model "
                "prompting to have vectors. Change one of them."
            )

    def fit(
        self,
        encoder: Encoder,
        data: MaskedPictures,
        *,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Segmenter:
        """Train the decoder."""
        progress = progress or Progress()
        maps = self.look(encoder, data, progress)
        what = json.dumps([asdict(self), encoder.fingerprint, data.classes, [i.image for i in data.items]])
        kept = None if checkpoint is None else (checkpoint, what)
        return self.learn(encoder, data.classes, maps, checkpoint=kept, progress=progress)

    def look(self, encoder: Encoder, data: MaskedPictures, progress: Progress | None = None) -> Maps:
        """The windows of all pictures, looked at once; whatever is then trained can be trained on them."""
        empty = self.segmenter(encoder, data.classes, Affine.empty(len(data.classes)))
        return _gathered(empty, self, data, progress or Progress())

    def learn(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        maps: Maps,
        *,
        checkpoint: tuple[Path, str] | None = None,
        progress: Progress | None = None,
    ) -> Segmenter:
        """Train the decoder on what was looked at."""
        said, texts = self._texts(encoder, classes)
        names = Names(opened(encoder), said) if self.n_contexts else None
        channels = _channels(maps.maps.shape[1], maps.layout)
        with seeded(self.seed):
            network = TextDecoder(channels, texts, self, names)
        mean, spread = _moments(maps.maps, maps.layout)
        network.mean.copy_(mean)
        network.spread.copy_(spread.clamp(min=1e-6))
        how = Training(
            self.n_steps, self.batch_size, lr=self.lr, weight_decay=1e-4, schedule="cosine",
            warmup=min(20, self.n_steps), seed=self.seed,
        )  # fmt: skip
        columns = {"maps": maps.maps, "joint": maps.joint, "whole": maps.whole, "labels": maps.labels}
        task = _Learning(network, self, maps.layout)
        train(task, TrainingData(len(maps.maps), columns), how, checkpoint=checkpoint, progress=progress)
        network.settle()
        made = self.segmenter(encoder, classes, self._decoded(network))
        return made.with_trained_on(f"{len(maps.maps)} windows of {maps.n_pictures} pictures with masks")

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        """The segmenter that was saved."""
        layout = self.segmenter(encoder, classes, Affine.empty(len(classes))).encoder.layout
        names = Names(opened(encoder), self._texts(encoder, classes)[0]) if self.prompting == "pre" else None
        behind = sum(c for c, _ in layout.finer)
        channels = [len(tensors["mean"]) - behind, *(c for c, _ in layout.finer)]
        network = TextDecoder(channels, tensors["fixed"], self, names)
        unread = {"contexts"} - set(network.state_dict())  # read for the last time when training ended
        network.load_state_dict({name: t for name, t in tensors.items() if name not in unread})
        return self.segmenter(encoder, classes, self._decoded(network))

    def _texts(self, encoder: Encoder, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Float[Tensor, "k d"]]:
        """What each class is called, and the vectors that stand for it before anything is learnt."""
        generator, k = torch.Generator().manual_seed(self.seed), len(classes)
        if self.texts == "none":
            return classes, torch.zeros(k, 1)
        said = tuple(classes[i] for i in exchanged(k, generator)) if self.texts == "shuffled" else classes
        scorer = MaskCLIP(zoom=self.zoom).build(encoder, said).scorer
        assert isinstance(scorer, Words)
        random = centred(torch.randn(scorer.texts.shape, generator=generator))
        return said, random if self.texts == "random" else scorer.texts

    def _decoded(self, network: TextDecoder) -> Decoded:
        return Decoded(network.eval().requires_grad_(False), self)

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], scorer: Scorer) -> Segmenter:
        """With these scores."""
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least, levels=self.levels)

    def cells(self, encoder: Encoder, features: Tensor) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]:
        """Cells among the words, and the whole."""
        if self.texts == "none":
            return features.new_zeros(len(features), 1, 1, 1), features.new_zeros(len(features), 1)
        if self.attended:
            whole, cells = attended_cells(encoder, features)
            return cells, whole
        cells = joint_cells(encoder, features)
        return cells, cells.mean((2, 3))


class _Learning(Task):
    """The decoder's loss and, beside it, that of the map of scores."""

    needs: ClassVar = ("maps", "joint", "whole", "labels")

    def __init__(self, network: TextDecoder, how: DenseCLIP, layout: Layout) -> None:
        super().__init__()
        self.network, self.how, self.layout = network, how, layout
        self.moves = network.names is None  # type: ignore[misc]  # the text network stays where it is

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        maps = unpacked(self.layout, batch["maps"].float())
        joint, labels = batch["joint"].float(), batch["labels"].long()
        if self.training and bool(torch.rand(()) < 0.5):
            maps, joint, labels = [one.flip(3) for one in maps], joint.flip(3), labels.flip(2)
        return (*self.network(maps, joint, batch["whole"].float()), labels)

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
class Decoded(Scorer):
    """Scores of cells by a trained decoder."""

    network: TextDecoder
    how: DenseCLIP
    scale: float = 1.0

    @torch.no_grad()
    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k _h _w"]:
        found: Tensor = self.network(unpacked(encoder.layout, features), *self.how.cells(encoder, features))[0]
        return found

    def pooled(self, looks: Segmenter) -> PooledScore:
        return looks.score(self.scores, Head(Normalise(), torch.eye(len(looks.classes))))

    def tensors(self) -> dict[str, Tensor]:
        return self.network.state_dict()


def _channels(packed: int, layout: Layout) -> list[int]:
    """Of each map, the coarsest first."""
    return [packed - sum(c * t * t for c, t in layout.finer), *(c for c, _ in layout.finer)]


def _moments(maps: Float[Tensor, "n c h w"], layout: Layout) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Mean and spread of every channel of every level, a few windows at a time."""
    total = square = torch.zeros(())
    parts = maps.split(16)
    for part in parts:
        levels = unpacked(layout, part.double())
        total = total + torch.cat([x.mean((2, 3)).sum(0) for x in levels])
        square = square + torch.cat([(x * x).mean((2, 3)).sum(0) for x in levels])
    mean = total / len(maps)
    return mean.float(), (square / len(maps) - mean**2).clamp(min=0).sqrt().float()


def _gathered(segmenter: Segmenter, how: DenseCLIP, data: MaskedPictures, progress: Progress) -> Maps:
    """Of all windows of the pictures that can be used."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    labels: list[Tensor] = []
    layout = segmenter.encoder.layout
    for one, truth, _ in segmenter.reader.with_masks(data, progress, "Looking"):
        if (truth == LEFT_OUT).all():
            continue
        joint, whole = how.cells(segmenter.encoder, one.features)
        maps = one.features if layout.finer else layout.to_grid(one.features)
        found.append((maps.half(), joint.half(), whole.half()))
        labels += _labels(one.windows, truth)
    if len(found) < 2:
        raise DataError(
            f"{len(found)} picture(s) with masks can be learnt from. Two or more were expected. Give more pictures "
            "with masks."
        )
    maps, joint, whole = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Maps(maps, joint, whole, torch.stack(labels), Layout(finer=layout.finer), len(found))


def _labels(windows: Windows, truth: np.ndarray) -> list[UInt8[Tensor, "y x"]]:
    """The mask in each window, so many pixels along a cell."""
    (height, width), found = truth.shape, []
    down, across = (FINER * c for c in windows.cells)
    for crop in windows.crops():
        left, top, right, bottom = crop.box
        rows = ((top + (np.arange(down) + 0.5) / down * (bottom - top)) * height).astype(int).clip(0, height - 1)
        columns = ((left + (np.arange(across) + 0.5) / across * (right - left)) * width).astype(int)
        found.append(torch.from_numpy(truth[rows][:, columns.clip(0, width - 1)]))
    return found
