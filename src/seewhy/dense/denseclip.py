"""DenseCLIP (Rao et al. 2022, CVPR): texts that look at the picture, and a decoder that reads their map of scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize, relu

from ..bounds import Bound, NotNegative, Positive, check_fields
from ..encoders.base import Encoder, Layout
from ..errors import DataError, InputError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..learning.adaptation.prompts import STD, Names, opened
from ..pictures.pixel_classes import LEFT_OUT, MaskedPictures
from ..progress import Progress
from ..seeded import seeded
from ..training.batches import Batch, TrainingData
from ..training.loop import Training, train
from ..training.task import Task
from . import segmenters
from .cells import MOST, attended_cells, joint_cells, unpacked
from .finders import Scorer, Segmenter
from .linear import Affine
from .maskclip import MaskCLIP, Words
from .miou import exchanged
from .parts import PooledScore
from .reader import LARGEST, Windows

FINER, GROUPS = 4, 8
"""Pixels of a mask that is learnt from, along a cell; channels that are normalised together are these many groups."""
Prompting = Literal["post", "pre", "none"]
"""Where a picture changes texts: behind their network, before it, or nowhere."""
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
    s]`` into the decoder, loss ``CE(decoder) + .4 CE(s / τ)`` on pixels with a class. With ``n_contexts``, ``t`` are
    names behind learnt vectors, one set for all classes (section 3.2), read by the frozen text network at every step.
    Pre-model prompting draws these vectors from the picture instead, ``decoder(q, [z̄; z])`` with learnt queries ``q``.

    Differs: the encoder is frozen; the decoder is a pyramid of one convolution a level and one 3 by 3 on the finest
    map; texts are taken less their mean, and without contexts are :class:`~seewhy.dense.maskclip.MaskCLIP`'s sentences;
    cells are each by itself, as there, unless ``attended``. The context decoder, the pooling that attends and texts
    behind contexts equal the authors'.

    Cost: one pass of the trunk for each window; training, the decoder and a small transformer a step, and with contexts
    the text network. Memory: the maps of all windows at half precision, for the embedded encoder .5 to 3 MB each.

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
        maps = self.look(encoder, data, progress)
        what = json.dumps([asdict(self), encoder.fingerprint, data.classes, [i.image for i in data.items]])
        kept = None if checkpoint is None else (checkpoint, what)
        return self.learn(encoder, data.classes, maps, checkpoint=kept, progress=progress)

    def look(self, encoder: Encoder, data: MaskedPictures, progress: Progress | None = None) -> Maps:
        """The windows of all pictures, looked at once; whatever is then trained can be trained on them."""
        segmenter = self.segmenter(encoder, data.classes, Affine.empty(len(data.classes)))
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        labels: list[Tensor] = []
        layout = segmenter.encoder.layout
        for one, truth, _ in segmenter.reader.with_masks(data, progress or Progress(), "Looking"):
            if (truth != LEFT_OUT).any():
                joint, whole = self.cells(segmenter.encoder, one.features)
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
        behind = [c for c, _ in maps.layout.finer]
        channels = [maps.maps.shape[1] - sum(c * t * t for c, t in maps.layout.finer), *behind]
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
        made = self.segmenter(encoder, classes, Decoded(network.eval().requires_grad_(False), self))
        return replace(made, trained_on=f"{len(maps.maps)} windows of {maps.n_pictures} pictures with masks")

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        """The segmenter that was saved."""
        layout = self.segmenter(encoder, classes, Affine.empty(len(classes))).encoder.layout
        names = Names(opened(encoder), self._texts(encoder, classes)[0]) if self.prompting == "pre" else None
        behind = [c for c, _ in layout.finer]
        channels = [len(tensors["mean"]) - sum(behind), *behind]
        network = TextDecoder(channels, tensors["fixed"], self, names)
        unread = {"contexts"} - set(network.state_dict())  # read for the last time when training ended
        network.load_state_dict({name: t for name, t in tensors.items() if name not in unread})
        return self.segmenter(encoder, classes, Decoded(network.eval().requires_grad_(False), self))

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

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], scorer: Scorer) -> Segmenter:
        """With these scores."""
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least, levels=self.levels)

    def cells(self, encoder: Encoder, features: Tensor) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]:
        """Cells among the words, and the whole."""
        if self.texts == "none":
            return features.new_zeros(len(features), 1, 1, 1), features.new_zeros(len(features), 1)
        if self.attended:
            return attended_cells(encoder, features)
        cells = joint_cells(encoder, features)
        return cells, cells.mean((2, 3))


class Attention(nn.Module):
    """Attention of some vectors to others; queries, keys and values have no bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj, self.proj_drop = nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, asks: Float[Tensor, "b n w"], given: Float[Tensor, "b m w"]) -> Float[Tensor, "b n w"]:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, asks), (self.k_proj, given), (self.v_proj, given))
        )
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Texts among themselves, then to the picture, then each by itself; normalised before each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: Float[Tensor, "b n w"], memory: Float[Tensor, "b m w"]) -> Float[Tensor, "b n w"]:
        near = self.norm1(x)
        x = x + self.self_attn(near, near)
        x = x + self.cross_attn(self.norm2(x), memory)
        return x + self.dropout(self.mlp(self.norm3(x)))


class ContextDecoder(nn.Module):
    """Texts and what a picture shows → what is added to the texts."""

    def __init__(
        self, visual_dim: int, width: int = 256, heads: int = 4, layers: int = 3, dropout: float = 0.1, out: int = 0
    ) -> None:
        super().__init__()
        self.memory_proj = nn.Sequential(nn.LayerNorm(visual_dim), nn.Linear(visual_dim, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(visual_dim), nn.Linear(visual_dim, width))
        self.decoder = nn.ModuleList([Layer(width, heads, dropout) for _ in range(layers)])
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out or visual_dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, text: Float[Tensor, "b n d"], visual: Float[Tensor, "b m d"]) -> Float[Tensor, "b n d"]:
        memory, x = self.memory_proj(visual), self.text_proj(text)
        for layer in self.decoder:
            x = layer(x, memory)
        return self.out_proj(x)


class TextDecoder(nn.Module):
    """Maps, and cells among the words → scores of classes on the finest map, and cosines with texts on the coarsest."""

    fixed: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self, channels: Sequence[int], texts: Float[Tensor, "k d"], how: DenseCLIP, names: Names | None = None
    ) -> None:
        super().__init__()
        (k, d), width = texts.shape, how.width
        self.channels, self.names, self.prompting = tuple(channels), names, how.prompting
        self.shows = how.texts != "none"
        self.register_buffer("fixed", texts.clone())
        self.register_buffer("mean", torch.zeros(sum(channels)))
        self.register_buffer("spread", torch.ones(sum(channels)))
        if self.shows and self.prompting == "post":
            self.context = ContextDecoder(d)
            self.gamma = nn.Parameter(torch.full((d,), how.gamma))
        if self.shows and names is not None and self.prompting == "pre":
            self.context = ContextDecoder(d, out=names.width)
            self.queries = nn.Parameter(torch.randn(how.n_contexts, d))
        elif self.shows and names is not None:
            self.contexts = nn.Parameter(STD * torch.randn(how.n_contexts, names.width))
        self.enter = nn.Sequential(nn.Conv2d(channels[0] + k * self.shows, width, 1), nn.GroupNorm(GROUPS, width))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(GROUPS, width)) for c in channels[1:]
        )
        self.leave = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, k, 1)
        )

    def texts(self, joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]) -> Float[Tensor, "b k d"]:
        """Of the classes, for each picture."""
        visual = torch.cat([whole[:, None], joint.flatten(2).transpose(1, 2)], 1)  # the whole picture, then its cells
        if self.prompting == "pre":
            assert self.names is not None
            return centred(self.names.read(self.context(self.queries.expand(len(joint), -1, -1), visual)))
        own = self.fixed if self.names is None else centred(self.names.read(self.contexts))
        text = own.expand(len(joint), -1, -1)
        return text + self.gamma * self.context(text, visual) if self.prompting == "post" else text

    def forward(
        self, maps: Sequence[Tensor], joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b k _y _x"], Float[Tensor, "b k _h _w"]]:
        parts = zip(maps, self.mean.split(self.channels), self.spread.split(self.channels), strict=True)
        first, *finer = ((x - m[:, None, None]) / s[:, None, None] for x, m, s in parts)
        if self.shows:
            text = normalize(self.texts(joint, whole), dim=2)
            cosine = torch.einsum("bdhw,bkd->bkhw", normalize(joint, dim=1), text)
            first = torch.cat([first, cosine], 1)
        else:
            cosine = first.new_zeros(len(first), len(self.fixed), *first.shape[2:])
        x = relu(self.enter(first))
        for level, across in zip(finer, self.across, strict=True):
            x = relu(across(level) + interpolate(x, size=level.shape[2:], mode="nearest"))
        return self.leave(x), cosine

    @torch.no_grad()
    def settle(self) -> None:
        """Read names behind what was learnt for the last time, where no picture changes what stands before them."""
        if self.names is not None and self.prompting != "pre":
            self.fixed.copy_(centred(self.names.read(self.contexts)))
            self.names = None


def centred(texts: Float[Tensor, "*b k d"]) -> Float[Tensor, "*b k d"]:
    """Less the mean of all classes, at unit length again: what all names have in common parts none."""
    return normalize(texts - texts.mean(-2, keepdim=True), dim=-1)


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
        return self.network(unpacked(encoder.layout, features), *self.how.cells(encoder, features))[0]

    def pooled(self, looks: Segmenter) -> PooledScore:
        return looks.score(self.scores, Head(Normalise(), torch.eye(len(looks.classes))))

    def tensors(self) -> dict[str, Tensor]:
        return self.network.state_dict()


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
