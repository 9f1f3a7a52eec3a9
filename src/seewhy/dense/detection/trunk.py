"""Settings and training data of two-stage detectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ...bounds import Checked, Count
from ...encoders.base import Encoder, Layout
from ...errors import DataError, ImageError
from ...learning.contrast import Still
from ...pictures.boxes import BoxData, BoxedPicture
from ...pictures.images import upright_size
from ...progress import Progress
from ...training.batches import N_THREADS, TrainingData
from ...training.loop import Training
from ...types import Failure
from ..reader import LARGEST, LONGEST, CutPicture, Looked, Reader
from .trained import boxes_on, check_usable

Grids = Mapping[str, Float[Tensor, "_c _h _w"]]


class MergedMaps(nn.Module):
    """A module from windows of pictures to one feature map per picture."""

    def __init__(self, trunk: nn.Module, layout: Layout, size: tuple[int, int]) -> None:
        super().__init__()
        self.still, self.layout, self.size = Still(trunk, learns=True), layout, size

    def forward(self, given: tuple[Float[Tensor, "b w 3 h x"], np.ndarray]) -> Float[Tensor, "b c gh gw"]:
        pixels, windows = given
        counts = [one.n[0] * one.n[1] for one in windows]
        cut = torch.cat([own[:n] for own, n in zip(pixels, counts, strict=True)])
        maps = self.layout.to_grid(self.still(cut)).split(counts)
        return torch.stack([at_size(one.merged(own), self.size) for one, own in zip(windows, maps, strict=True)])


def at_size(grid: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c gh gw"]:
    if tuple(grid.shape[1:]) == size:
        return grid
    return interpolate(grid[None].float(), size=size, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True, eq=False)
class Windowed:
    """A lazily read column of picture windows, padded with zeros."""

    reader: Reader
    images: tuple[str, ...]
    most: int

    def __call__(self, index: Sequence[int], draw: torch.Generator) -> tuple[Float[Tensor, "b w 3 h x"], np.ndarray]:
        with ThreadPoolExecutor(N_THREADS) as pool:
            read = list(pool.map(self._read, index))
        encoder = self.reader.encoder
        own = [encoder.pixels([picture.pixels for picture in one.seen]) for one in read]
        pixels = own[0].new_zeros(len(own), self.most, *own[0].shape[1:])
        windows = np.empty(len(own), dtype=object)
        for i, (one, picture) in enumerate(zip(own, read, strict=True)):
            pixels[i, : len(one)], windows[i] = one, replace(picture.windows, cells=self.reader.cells)
        return pixels, windows

    def _read(self, i: int) -> CutPicture:
        found = self.reader.cut(i, self.images[i])
        if isinstance(found, Failure):
            raise DataError(
                f"{found.image} was readable before the training, but no longer: {found.error}. Restore the file, then "
                "run the same command to continue."
            )
        return found


def looked_once(
    reader: Reader, data: BoxData, grids: Callable[[Encoder, Looked], Grids], progress: Progress
) -> dict[str, Tensor]:
    """Return the feature maps of all pictures, resized to the same size, with their boxes."""
    found: dict[str, list[Tensor]] = {}
    sized: list[BoxedPicture] = []
    looked = reader.looked([p.image for p in data.pictures])
    for picture, one in progress.results(data.pictures, looked, "Looking at pictures"):
        for name, grid in grids(reader.encoder, one).items():
            own = found.setdefault(name, [])
            own.append((at_size(grid, (own[0].shape[1], own[0].shape[2])) if own else grid).half())
        sized.append(replace(picture, size=one.size))
    columns = _on(sized, data)
    return {**{name: torch.stack(own) for name, own in found.items()}, **columns}


def cut(reader: Reader, data: BoxData, progress: Progress) -> dict[str, Any]:
    """Return the pictures, which are read again at each step, with their boxes."""
    sized: list[BoxedPicture] = []
    for picture in data.pictures:
        try:
            sized.append(replace(picture, size=upright_size(picture.image, longest=LONGEST)))
        except ImageError as error:
            progress.failed(Failure(picture.image, error.reason))
    columns = _on(sized, data)
    most = max(prod(reader.windows(one.size or (1, 1)).n) for one in sized)
    return {"pixels": Windowed(reader, tuple(p.image for p in sized), most), **columns}


def _on(pictures: Sequence[BoxedPicture], data: BoxData) -> dict[str, Any]:
    """Return boxes as fractions of the picture and their labels, padded with -1."""
    most = max((len(p.boxes) for p in pictures), default=0)
    boxes, labels = [], []
    for picture in pictures:
        own, named = boxes_on(picture, data.classes)
        boxes.append(pad(own, (0, 0, 0, most - len(own))))
        labels.append(pad(named, (0, most - len(named)), value=-1))
    check_usable(sum(int((one >= 0).sum()) for one in labels), len(data))
    return {"boxes": torch.stack(boxes), "labels": torch.stack(labels)}


@dataclass(frozen=True, kw_only=True)
class TwoStageMethod(Checked):
    """The settings and the training that two-stage detectors share.

    Args:
        n_proposed: number of proposals per picture.
        n_steps: number of training steps.
        batch_size: number of pictures per step; lower it if memory runs out.
        lr: highest learning rate.
        zoom: short side of the picture, as a multiple of the encoder's input size; a larger value finds smaller objects
            and takes longer.
        seed: seed for weights, order, sampled boxes and random texts.
    """

    needs: ClassVar[str] = "pictures with boxes and an image-text encoder"
    needs_words: ClassVar[bool] = True

    n_proposed: Count = 100
    n_steps: int = 300
    batch_size: Count = 8
    lr: float = 1e-3
    zoom: float = LARGEST
    seed: int = 0

    def training(self, data: TrainingData, trunk_lr: float = 0.0) -> Training:
        size, warmup = min(self.batch_size, data.n_samples), min(20, self.n_steps // 5)
        parts = {"part_lr": (("trunk", trunk_lr),), "part_decay": (("trunk", 0.0),)}
        return Training.of(self, batch_size=size, weight_decay=1e-4, schedule="cosine", warmup=warmup, **parts)

    def seal(self, checkpoint: Path | None, reader: Reader, data: BoxData) -> tuple[Path, str] | None:
        """Return the checkpoint with the values that must match when it is resumed."""
        what = json.dumps([asdict(self), reader.base.fingerprint, data.classes, [p.image for p in data.pictures]])
        return None if checkpoint is None else (checkpoint, what)
