"""Training data of segmentation decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from ..encoders.base import Encoder, Layout
from ..errors import DataError
from ..learning.encoders.image_copy import ImageCopy
from ..pictures.pixel_classes import LEFT_OUT, MaskedPictures
from ..progress import Progress
from ..training.augmentation import Augmentation, TrainingPictures
from ..training.batches import Batch, TrainingData
from ..training.task import Task
from .cells import unpacked
from .pixel_text import TextDecoder
from .reader import Reader, Windows

FINER = 4
"""Label pixels along each side of a grid cell."""
SMALLEST = 0.5
"""Smallest area of a random crop, as a share of the window's area."""
KEPT = 4
"""Resolution of stored masks, as a multiple of the training labels' resolution."""
MEASURED = 64
"""Windows from which the mean and deviation of the channels are computed before training on random crops."""
WHOLE_BOX, NOT_FLIPPED = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([False])
Cells = Callable[[Encoder, Tensor], tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]]
"""A function from an encoder and its features to the embeddings of grid cells and of the whole picture."""


class Maps(NamedTuple):
    """Feature maps of training windows, each encoded once."""

    maps: Float[Tensor, "n c h w"]
    joint: Float[Tensor, "n d h w"]
    whole: Float[Tensor, "n d"]
    labels: UInt8[Tensor, "n _y _x"]
    layout: Layout
    n_pictures: int

    @classmethod
    def of(cls, reader: Reader, data: MaskedPictures, cells: Cells, progress: Progress) -> Maps:
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        labels: list[Tensor] = []
        layout = reader.encoder.layout
        for one, truth, _ in reader.with_masks(data, progress, "Looking at pictures"):
            if (truth != LEFT_OUT).any():
                joint, whole = cells(reader.encoder, one.features)
                maps = one.features if layout.finer else layout.to_grid(one.features)
                found.append((maps.half(), joint.half(), whole.half()))
                labels += labels_of(one.windows, truth)
        _check(len(found))
        maps, joint, whole = (torch.cat(parts) for parts in zip(*found, strict=True))
        return cls(maps, joint, whole, torch.stack(labels), Layout(finer=layout.finer), len(found))

    def data(self) -> TrainingData:
        columns = {"maps": self.maps, "joint": self.joint, "whole": self.whole, "labels": self.labels}
        return TrainingData(len(self.maps), columns)


class Crops(NamedTuple):
    """Pictures and masks from which crops are drawn, with some feature maps to compute means and deviations."""

    pictures: TrainingPictures
    masks: UInt8[Tensor, "n _y _x"]
    maps: Float[Tensor, "m c h w"]
    layout: Layout

    @classmethod
    def of(cls, reader: Reader, data: MaskedPictures, progress: Progress) -> Crops:
        layout, n = reader.encoder.layout, 0
        kept: list[Tensor] = []
        images: list[str] = []
        masks: list[Tensor] = []
        part = 0.0
        for one, truth, _ in reader.with_masks(data, progress, "Looking at pictures"):
            if (truth != LEFT_OUT).any():
                if n < MEASURED:
                    kept.append((one.features if layout.finer else layout.to_grid(one.features)).half())
                    n += len(kept[-1])
                (high, wide), (h, w) = one.windows.whole, one.windows.cells
                part += h * w / (high * wide)
                side = KEPT * FINER * max(h, w)
                masks.append(labels_in(torch.from_numpy(truth)[None], WHOLE_BOX, NOT_FLIPPED, (side, side))[0])
                images.append(one.name)
        _check(len(masks))
        part /= len(masks)
        how = Augmentation((SMALLEST * part, part), jitter=0.0, grey=0.0, blur=(0.0,))
        pictures = TrainingPictures(reader.encoder, images, None, progress, augmentation=how)
        return cls(pictures, torch.stack(masks), torch.cat(kept), Layout(finer=layout.finer))

    def data(self) -> TrainingData:
        return TrainingData(len(self.masks), {"pixels": self.pictures, "masks": self.masks})


def _check(n: int) -> None:
    if n < 2:
        raise DataError(f"At least 2 pictures with masks are needed for training, got {n}.")


def channels_of(maps: Float[Tensor, "n c h w"], layout: Layout) -> list[int]:
    """Return the number of channels of each feature map, coarsest first."""
    return [maps.shape[1] - sum(c * t * t for c, t in layout.finer), *(c for c, _ in layout.finer)]


class MaskTask(Task):
    """The segmentation loss plus the auxiliary loss of the score map."""

    def __init__(self, network: TextDecoder, tau: float, auxiliary: float) -> None:
        super().__init__()
        self.network, self.tau, self.auxiliary = network, tau, auxiliary
        self.moves = network.names is None  # type: ignore[misc]  # the text network stays where it is

    def loss(self, features: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        scores, cosine, labels = features
        decoded, beside = pixel_loss(scores, labels), pixel_loss(cosine / self.tau, labels)
        return {"loss": decoded + self.auxiliary * beside, "decoded": decoded, "scores": beside}


class FromMaps(MaskTask):
    """A training task on stored feature maps, which are mirrored at random."""

    needs: ClassVar = ("maps", "joint", "whole", "labels")

    def __init__(self, network: TextDecoder, tau: float, auxiliary: float, layout: Layout) -> None:
        super().__init__(network, tau, auxiliary)
        self.layout = layout

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        maps = unpacked(self.layout, batch["maps"].float())
        joint, labels = batch["joint"].float(), batch["labels"].long()
        if self.training and bool(torch.rand(()) < 0.5):
            maps, joint, labels = [one.flip(3) for one in maps], joint.flip(3), labels.flip(2)
        return (*self.network(maps, joint, batch["whole"].float()), labels)


class FromPixels(MaskTask):
    """Joint training of encoder and decoder."""

    needs: ClassVar = ("pixels", "boxes", "flipped", "masks")

    def __init__(
        self, network: TextDecoder, tau: float, auxiliary: float, image: ImageCopy, looks: Encoder, cells: Cells
    ) -> None:
        super().__init__(network, tau, auxiliary)
        self.image, self.looks, self.cells = image, looks, cells
        self.words: Any = getattr(looks.text, "projection", None) if looks.has_text else None

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        self.image.eval()
        features = self.looks.trunk(batch["pixels"])
        maps = unpacked(self.looks.layout, features)
        scores, cosine = self.network(maps, *self.cells(self.looks, features))
        size = (FINER * maps[0].shape[2], FINER * maps[0].shape[3])
        return scores, cosine, labels_in(batch["masks"], batch["boxes"][0], batch["flipped"][0], size).long()


def pixel_loss(scores: Float[Tensor, "b k h w"], labels: Tensor) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over labelled pixels, or 0 without any."""
    finer = interpolate(scores, size=labels.shape[1:], mode="bilinear", align_corners=False)
    total = cross_entropy(finer, labels, ignore_index=LEFT_OUT, reduction="sum")
    return total / (labels != LEFT_OUT).sum().clamp(min=1)


def labels_of(windows: Windows, truth: np.ndarray) -> list[UInt8[Tensor, "y x"]]:
    """Return the labels of each window at the training resolution."""
    boxes = torch.tensor([crop.box for crop in windows.crops()], dtype=torch.float64)
    down, across = (FINER * c for c in windows.cells)
    masks = torch.from_numpy(truth).expand(len(boxes), *truth.shape)
    return list(labels_in(masks, boxes, torch.zeros(len(boxes), dtype=torch.bool), (down, across)))


def labels_in(
    masks: UInt8[Tensor, "b _h _w"], boxes: Float[Tensor, "b 4"], flipped: Bool[Tensor, " b"], size: tuple[int, int]
) -> UInt8[Tensor, "b y x"]:
    """Sample the masks on a regular grid in each box, mirrored where ``flipped``."""
    boxes, (height, width) = boxes.double(), masks.shape[1:]
    rows = _places(boxes[:, 1], boxes[:, 3], size[0], height)
    columns = _places(boxes[:, 0], boxes[:, 2], size[1], width)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    every = torch.arange(len(masks), device=masks.device)
    return masks[every[:, None, None], rows[:, :, None], columns[:, None]]


def _places(start: Float[Tensor, " b"], stop: Float[Tensor, " b"], n: int, of: int) -> Int[Tensor, "b n"]:
    part = (torch.arange(n, device=start.device, dtype=start.dtype) + 0.5) / n
    return ((start[:, None] + part * (stop - start)[:, None]) * of).long().clamp(0, of - 1)


def moments(maps: Float[Tensor, "n c h w"], layout: Layout) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Compute the mean and the standard deviation of each channel in batches of windows."""
    total = square = torch.zeros(())
    parts = maps.split(16)
    for part in parts:
        levels = unpacked(layout, part.double())
        total = total + torch.cat([x.mean((2, 3)).sum(0) for x in levels])
        square = square + torch.cat([(x * x).mean((2, 3)).sum(0) for x in levels])
    mean = total / len(maps)
    return mean.float(), (square / len(maps) - mean**2).clamp(min=0).sqrt().float()
