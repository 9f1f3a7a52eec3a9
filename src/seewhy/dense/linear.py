"""A linear segmentation probe on an encoder's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Checked, InnerPart
from ..classifiers.linear.solvers import LinearFit, fit_linear
from ..encoders.base import Encoder
from ..errors import DataError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..pictures.pixel_classes import MaskedPictures
from ..progress import Progress
from . import segmenters
from .finders import Scorer, Segmenter
from .miou import cell_counts, mean_iou, pixel_confusion, sums
from .parts import PooledScore
from .reader import LARGEST, Reader

CS = (1e-3, 1e-2, 1e-1)
"""Values of the regularisation parameter ``C`` to try."""
MOST_CELLS = 20_000
"""Largest number of grid cells to fit on; a larger set is subsampled."""
LEAST = 0.05
"""Smallest share of a grid cell's pixels at which the cell is a training example of a class."""


@segmenters.register
@dataclass(frozen=True)
class Linear(Checked):
    """Multinomial logistic regression on grid cells, as a baseline segmenter.

    The objective is

        1/2 |W|² + C Σ_i Σ_k s_ik loss(k, W x_i + b)

    - ``W``, ``b``: the weights and biases.
    - ``C``: the inverse regularisation strength.
    - ``x_i``: the standardised features of grid cell ``i``.
    - ``s_ik``: the fraction of the pixels of grid cell ``i`` that have class ``k``.

    ``C`` is chosen on held-out pictures by the mean intersection over union of grid cells. The probe measures the
    encoder alone. If another segmenter on the same encoder is better, the reason is the additional layers of that
    segmenter.

    The trunk runs once per window of a picture, in training and in prediction.

    Args:
        held_out: fraction of the pictures on which ``C`` is chosen, 0 to 1.
        zoom: short side of the picture, as a multiple of the encoder's input size; a larger value finds smaller objects
            and takes longer.
        least: lowest probability at which a pixel gets a name, 0 to 1; raise it to leave uncertain pixels unnamed.
        seed: seed for held-out pictures and sampled grid cells.
    """

    name: ClassVar[str] = "linear"
    paper: ClassVar[str] = "Alain & Bengio 2016, arXiv:1610.01644"
    needs: ClassVar[str] = "pictures with masks"
    cost: ClassVar[str] = "one per window"

    held_out: InnerPart = 0.2
    zoom: float = LARGEST
    least: float = 0.0
    seed: int = 0

    def fit(self, encoder: Encoder, data: MaskedPictures, *, progress: Progress | None = None) -> Segmenter:
        progress = progress or Progress()
        cells = gathered(Reader(encoder, self.zoom), data, self.seed, progress)
        mean, spread = cells.features.mean(0), cells.features.std(0).clamp(min=1e-6)
        x, k = (cells.features - mean) / spread, len(data.classes)
        pictures = cells.picture.unique()
        order = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(self.seed))]
        held = torch.isin(cells.picture, order[: max(1, round(self.held_out * len(order)))])
        judged = [_overlap(_fitted(x[~held], cells.shares[~held], c), x[held], cells.shares[held]) for c in CS]
        fitted = _fitted(x, cells.shares, CS[int(np.argmax(judged))])
        weight = fitted.weight / spread
        affine = Affine(weight.reshape(k, -1), fitted.bias - weight @ mean)
        made = self.segmenter(encoder, data.classes, affine)
        return replace(made, trained_on=f"{len(x)} cells of {len(pictures)} pictures with masks")

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        return self.segmenter(encoder, classes, Affine(tensors["weight"], tensors["bias"]))

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], scorer: Affine) -> Segmenter:
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least)


@dataclass(frozen=True, eq=False)
class Affine(Scorer):
    """The class scores of a linear layer."""

    weight: Float[Tensor, "k c"]
    bias: Float[Tensor, " k"]
    scale: float = 1.0

    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        grid = encoder.layout.to_grid(features)
        return torch.einsum("bchw,kc->bkhw", grid, self.weight) + self.bias[:, None, None]

    def pooled(self, looks: Segmenter) -> PooledScore:
        head = Head(Normalise(), self.weight, self.bias)
        return replace(looks.score(lambda encoder, found: encoder.layout.to_grid(found), head), words="own")

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}


class Cells(NamedTuple):
    """Grid cells for training, with the fraction of their pixels that have each class."""

    features: Float[Tensor, "n c"]
    shares: Float[Tensor, "n k"]
    picture: Int[Tensor, " n"]


def shares_of(truth: np.ndarray, k: int, grid: tuple[int, int]) -> Float[Tensor, "h w k"]:
    """Return, for each grid cell, the fraction of its pixels that have each class."""
    counts, total = cell_counts(truth, k, grid)
    return torch.from_numpy(counts / np.maximum(total, 1)).float()


def gathered(reader: Reader, data: MaskedPictures, seed: int, progress: Progress) -> Cells:
    """Return the grid cells of all usable pictures."""
    k, most = len(data.classes), max(1, MOST_CELLS // max(len(data), 1))
    generator = torch.Generator().manual_seed(seed)
    found: list[Cells] = []
    for one, truth, _ in reader.with_masks(data, progress, "Looking at pictures"):
        grid = one.windows.merged(reader.encoder.layout.to_grid(one.features)).permute(1, 2, 0)
        shares = shares_of(truth, k, (grid.shape[0], grid.shape[1])).flatten(0, 1)
        use = (shares.sum(1) > LEAST).nonzero()[:, 0]
        use = use[torch.randperm(len(use), generator=generator)[:most]]
        found.append(Cells(grid.flatten(0, 1)[use], shares[use], torch.full((len(use),), len(found))))
    seen = sum(bool((one.shares.sum(0)).any()) for one in found)
    classes = int((torch.stack([one.shares.sum(0) for one in found]).sum(0) > 0).sum()) if found else 0
    if seen < 2 or classes < 2:
        raise DataError(
            f"At least 2 pictures and 2 classes are needed for training, got {seen} picture(s) with {classes} "
            "class(es). Give more pictures with masks."
        )
    return Cells(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _fitted(x: Float[Tensor, "n c"], shares: Float[Tensor, "n k"], c: float) -> LinearFit:
    """Fit a classifier on pairs of a grid cell and a class, weighted by the fraction of the cell that has the class."""
    row, label = (shares > LEAST).nonzero().unbind(1)
    return fit_linear(x[row], label, shares.shape[1], c, sample_weight=shares[row, label], tol=1e-3)


def _overlap(fitted: LinearFit, x: Float[Tensor, "n c"], shares: Float[Tensor, "n k"]) -> float:
    """Compute the mean intersection over union of the most probable classes of grid cells."""
    truth, found = (one.argmax(1).numpy() for one in (shares, fitted.logits(x)))
    return float(mean_iou(sums(pixel_confusion(truth, found, shares.shape[1])[None]))[0])
