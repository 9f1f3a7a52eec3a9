"""A linear probe of cells: measures what the encoder's map alone says about classes, without words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import InnerPart, check_fields
from ..classifiers.linear.solvers import LinearFit, fit_logistic
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
from .reader import LARGEST

CS = (1e-3, 1e-2, 1e-1)
"""Weights of the losses to try on held-out pictures; features are standardised."""
MOST_CELLS = 20_000
"""Most cells to fit on; from more, this many are drawn."""
LEAST = 0.05
"""Least share of a cell's pixels for a class to be learnt from it."""


@segmenters.register
@dataclass(frozen=True)
class Linear:
    """Multinomial logistic regression from a cell's features to the classes of its pixels: the baseline.

    Each cell counts for a class by the share of its pixels that have it: ``1/2 |W|² + C Σ_i Σ_k s_ik loss(k, W x_i +
    b)``, on standardised features. ``C`` is chosen on held-out pictures by the mean over classes of the intersection
    over union, counted in cells. An advantage of another segmenter over this one does not come from the encoder.

    Cost: one pass of the trunk per window of a picture, in training and in use.

    Args:
        held_out: share of the pictures on which to choose ``C``, 0 to 1.
        zoom: short side of the picture, as a multiple of the encoder's input; larger finds smaller objects and
            takes longer.
        least: lowest probability for naming a pixel, 0 to 1; raise it to leave doubtful pixels without a name.
        seed: seed for held-out pictures and drawn cells.
    """

    name: ClassVar[str] = "linear"
    paper: ClassVar[str] = "Alain & Bengio 2016, arXiv:1610.01644"
    needs: ClassVar[str] = "pictures with masks"
    cost: ClassVar[str] = "one per window"

    held_out: InnerPart = 0.2
    zoom: float = LARGEST
    least: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def fit(self, encoder: Encoder, data: MaskedPictures, *, progress: Progress | None = None) -> Segmenter:
        """Train the probe."""
        progress = progress or Progress()
        bare = self.segmenter(encoder, data.classes, Affine.empty(len(data.classes)))
        cells = gathered(bare, data, self.seed, progress)
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
        """Return the saved segmenter."""
        return self.segmenter(encoder, classes, Affine(tensors["weight"], tensors["bias"]))

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], scorer: Affine) -> Segmenter:
        """Return a segmenter with these scores."""
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least)


@dataclass(frozen=True, eq=False)
class Affine(Scorer):
    """Scores of cells from a linear layer."""

    weight: Float[Tensor, "k c"]
    bias: Float[Tensor, " k"]
    scale: float = 1.0

    @classmethod
    def empty(cls, k: int) -> Affine:
        """Return an untrained layer."""
        return cls(torch.zeros(k, 1), torch.zeros(k))

    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        grid = encoder.layout.to_grid(features)
        return torch.einsum("bchw,kc->bkhw", grid, self.weight) + self.bias[:, None, None]

    def pooled(self, looks: Segmenter) -> PooledScore:
        head = Head(Normalise(), self.weight, self.bias)
        return replace(looks.score(lambda encoder, found: encoder.layout.to_grid(found), head), words="own")

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}


class Cells(NamedTuple):
    """Training cells: features, the share of its pixels that each class has, and the number of its picture."""

    features: Float[Tensor, "n c"]
    shares: Float[Tensor, "n k"]
    picture: Int[Tensor, " n"]


def shares_of(truth: np.ndarray, k: int, grid: tuple[int, int]) -> Float[Tensor, "h w k"]:
    """Return the share of each cell's pixels that every class has; unnamed pixels count for none."""
    counts, total = cell_counts(truth, k, grid)
    return torch.from_numpy(counts / np.maximum(total, 1)).float()


def gathered(segmenter: Segmenter, data: MaskedPictures, seed: int, progress: Progress) -> Cells:
    """Return the cells of all usable pictures."""
    k, most = len(data.classes), max(1, MOST_CELLS // max(len(data), 1))
    generator = torch.Generator().manual_seed(seed)
    found: list[Cells] = []
    for one, truth, _ in segmenter.reader.with_masks(data, progress, "Looking at pictures"):
        grid = one.windows.merged(segmenter.encoder.layout.to_grid(one.features)).permute(1, 2, 0)
        shares = shares_of(truth, k, (grid.shape[0], grid.shape[1])).flatten(0, 1)
        use = (shares.sum(1) > LEAST).nonzero()[:, 0]
        use = use[torch.randperm(len(use), generator=generator)[:most]]
        found.append(Cells(grid.flatten(0, 1)[use], shares[use], torch.full((len(use),), len(found))))
    seen = sum(bool((one.shares.sum(0)).any()) for one in found)
    classes = int((torch.stack([one.shares.sum(0) for one in found]).sum(0) > 0).sum()) if found else 0
    if seen < 2 or classes < 2:
        raise DataError(
            f"Only {seen} picture(s) with {classes} class(es) can be learnt from. Expected at least 2 of each. "
            "Give more pictures with masks."
        )
    return Cells(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _fitted(x: Float[Tensor, "n c"], shares: Float[Tensor, "n k"], c: float) -> LinearFit:
    """A row for each class of a cell, weighed by its part."""
    row, label = (shares > LEAST).nonzero().unbind(1)
    return fit_logistic(x[row], label, shares.shape[1], c, sample_weight=shares[row, label], tol=1e-3)


def _overlap(fitted: LinearFit, x: Float[Tensor, "n c"], shares: Float[Tensor, "n k"]) -> float:
    """Mean intersection over union of the cells' likeliest classes."""
    truth, found = (one.argmax(1).numpy() for one in (shares, fitted.logits(x)))
    return float(mean_iou(sums(pixel_confusion(truth, found, shares.shape[1])[None]))[0])
