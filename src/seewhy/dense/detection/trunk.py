"""A detector's trunk that learns with its heads: a copy, beside which the encoder stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...encoders.base import Layout
from ...errors import DataError
from ...learning.contrast import Still
from ...progress import duration
from ...training.batches import N_THREADS, TrainingData
from ...training.loop import Training, train
from ...training.task import Task
from ...types import Failure
from ..reader import CutPicture, Reader

N_STEPS = 2
"""That are trained on a copy, to say what a training takes."""


class MergedMaps(nn.Module):
    """Windows of pictures → a map of each picture at one size; batch normalisations keep their statistics."""

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
    """A map, stretched where it is of another size."""
    if tuple(grid.shape[1:]) == size:
        return grid
    return interpolate(grid[None].float(), size=size, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True, eq=False)
class Windowed:
    """A column of pictures in their windows, read at every step; those of fewer windows are filled up with zeros."""

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
                f"{found.image} was read before the training and cannot be read now: {found.error}. The same file was "
                "expected. Put it back, and run it again to go on."
            )
        return found


def said_of(task: Task, data: TrainingData, how: Training, n_trainings: int) -> str:
    """What trainings of a trunk will take on this machine, from a few steps on a copy."""
    few = replace(how, n_steps=N_STEPS, warmup=0)
    step = train(copy.deepcopy(task), data, few).seconds_per_step
    weights = sum(p.numel() for p in task.parameters() if p.requires_grad)
    return (
        f"the trunk learns, {weights / 1e6:.1f} million weights with the heads: {n_trainings} trainings of "
        f"{how.n_steps} steps of {step:.2g} seconds, about {duration(n_trainings * how.n_steps * step)}; every look "
        "at a picture is then two, as the frozen words need the trunk as it was"
    )
