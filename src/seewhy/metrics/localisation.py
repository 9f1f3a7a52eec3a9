"""Metrics that compare a map, or a box around its hot region, with the object's mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from ..bounds import Count, Natural, Part
from . import metrics
from .base import AveragedMetric, Case, InputError, Maps, Mask, Metric, Score, min_max, scores


class Localisation(Metric):
    """Base class of localisation metrics."""

    family = "localisation"
    needs = "a map and the object's mask"
    cost = "0"
    higher_is_better = True
    reads = "map"
    sign = "positive part"
    requires = ("mask",)

    def mask(self, case: Case) -> Mask:
        """Return the object's mask, after checking its size."""
        mask, size = case.mask, tuple(case.pixels.shape[1:])
        assert mask is not None  # checked by the base class
        if tuple(mask.shape) != size:
            raise InputError(
                f"`mask` must have the size of the picture, {size}, got {tuple(mask.shape)}. Crop and resize it like "
                "the picture."
            )
        if not mask.any():
            raise InputError("`mask` must not be empty. Leave out pictures without the object.")
        return mask


@dataclass(frozen=True)
class MaskedMap(Localisation, AveragedMetric):
    """A localisation metric whose value for a data set is the mean of the values for its pictures."""


def _share(mask: Mask) -> float:
    return round(float(mask.float().mean()), 6)


def positive_share(maps: Maps, mask: Mask) -> Float[Tensor, " m"]:
    """Return the share of the positive values that is inside the mask; 0 for a map without positive values."""
    positive = maps.clamp(min=0)
    return (positive * mask).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-12)


@metrics.register
@dataclass(frozen=True)
class EnergyPointingGame(MaskedMap):
    """Share of the map's positive values that is on the object; high is good.

        Σ_{i in G} max(R_i, 0) / Σ_i max(R_i, 0)

    ``R_i`` is the map's value at pixel ``i``, and ``G`` are the object's pixels. A map without positive values scores
    0.
    """

    name = "energy_pointing_game"
    paper = "Wang et al. 2020, arXiv:1910.01279"

    def score(self, case: Case, maps: Maps) -> list[Score]:
        mask = self.mask(case)
        return scores(positive_share(maps, mask), mask_share=_share(mask))


@metrics.register
@dataclass(frozen=True)
class MosaicFocus(MaskedMap):
    """Share of the map's positive values that is in the target's quadrants of a 2 × 2 mosaic; high is good.

    :func:`mosaic` makes the picture and its mask, so no annotation is needed.
    """

    name = "mosaic_focus"
    paper = "Arias-Duart et al. 2022, arXiv:2109.15035"
    needs = "a map of a mosaic, and the target's quadrants"
    of_mosaics = True

    def score(self, case: Case, maps: Maps) -> list[Score]:
        mask = self.mask(case)
        return scores(positive_share(maps, mask), mask_share=_share(mask))


def mosaic(pictures: Float[Tensor, "n 3 h w"], is_target: Sequence[bool]) -> tuple[Float[Tensor, "3 h w"], Mask]:
    """Build a 2 × 2 mosaic of four normalised pictures, and the mask of the target's quadrants."""
    if len(pictures) != 4 or len(is_target) != 4 or not 0 < sum(is_target) < 4:
        raise InputError(
            f"A mosaic needs four pictures, one to three of the target class, got {len(pictures)} pictures, "
            f"{sum(is_target)} of the target class."
        )
    height, width = pictures.shape[2:]
    canvas = torch.empty(3, height, width)
    mask = torch.zeros(height, width, dtype=torch.bool)
    for i, picture in enumerate(pictures):
        rows = slice(0, height // 2) if i < 2 else slice(height // 2, height)
        columns = slice(0, width // 2) if i % 2 == 0 else slice(width // 2, width)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        small = interpolate(picture[None], size=size, mode="bilinear", align_corners=False, antialias=True)
        canvas[:, rows, columns] = small[0]
        mask[rows, columns] = is_target[i]
    return canvas, mask


@metrics.register
@dataclass(frozen=True)
class PointingGame(MaskedMap):
    """Whether the pixel with the highest value is on the object; high is good.

    If several pixels have the highest value, the score is the share of these pixels that is on the object.

    Args:
        tolerance: number of pixels by which the object is widened on every side (authors' code: 15).
    """

    name = "pointing_game"
    paper = "Zhang et al. 2016, arXiv:1608.00507"
    sign = "as it is"

    tolerance: Natural = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        mask = self.mask(case)
        wide = max_pool2d(mask.float()[None], 2 * self.tolerance + 1, 1, self.tolerance)
        hottest = maps == maps.amax((1, 2), keepdim=True)
        return scores((hottest * wide).sum((1, 2)) / hottest.sum((1, 2)), mask_share=_share(mask))


@metrics.register
@dataclass(frozen=True)
class IoULocalisation(MaskedMap):
    """Whether the box of the map's largest hot region overlaps the object's box; high is good.

    ``parts["iou"]`` is the intersection over union of the two boxes.

    Args:
        threshold: fraction of the map's maximum above which a pixel counts as hot, 0 to 1 (paper: 0.15).
        iou: intersection over union above which the box counts as found, 0 to 1 (ILSVRC: 0.5).
    """

    name = "iou_localisation"
    paper = "Selvaraju et al. 2017, arXiv:1610.02391"

    threshold: Part = 0.15
    iou: Part = 0.5

    def score(self, case: Case, maps: Maps) -> list[Score]:
        box = largest_boxes(self.mask(case)[None])[0]
        positive = maps.clamp(min=0)
        overlap = overlaps(largest_boxes(positive > self.threshold * positive.amax((1, 2), keepdim=True)), box)
        return scores((overlap >= self.iou).float(), iou=overlap)


@metrics.register
@dataclass(frozen=True)
class MaxBoxAcc(Localisation):
    """Share of pictures on which a box around the hot region finds the object; high is good.

        mean_δ max_τ mean_x [IoU(box(m ≥ τ), box(G)) ≥ δ]

    ``x`` is a picture, ``m`` its map, ``G`` its object, ``τ`` a threshold on the map, and ``δ`` one of ``ious``. The
    best threshold is chosen for the whole data set. The value of a single picture uses the best threshold for this
    picture and is therefore too high; only the value for a data set is the published metric.

    Args:
        ious: values of intersection over union from which the object counts as found: (0.5,) is MaxBoxAcc, (0.3, 0.5,
            0.7) is MaxBoxAccV2.
        n_thresholds: number of thresholds ``τ``, from 0 in steps of 1 / ``n_thresholds``.
    """

    name = "max_box_acc"
    paper = "Choe et al. 2020, arXiv:2001.07437"
    sign = "min-max to 0…1"
    small = {"n_thresholds": 10}

    ious: tuple[float, ...] = (0.5,)
    n_thresholds: Count = 100

    def score(self, case: Case, maps: Maps) -> list[Score]:
        box = largest_boxes(self.mask(case)[None])[0]
        thresholds = torch.arange(self.n_thresholds) / self.n_thresholds
        found = []
        for heat in min_max(maps):
            overlap = overlaps(largest_boxes(heat >= thresholds[:, None, None]), box)
            hits = torch.stack([(overlap >= d).float() for d in self.ious]).flatten()
            found.append(Score(float(self.combine(hits)), {"best_iou": float(overlap.max())}, tuple(hits.tolist())))
        return found

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        return means.unflatten(-1, (len(self.ious), self.n_thresholds)).amax(-1).mean(-1)


@metrics.register
@dataclass(frozen=True)
class PixelAP(Localisation):
    """Average precision of the map as a detector of the object's pixels; high is good.

        AP = Σ_τ precision(τ) · (recall(τ) - recall(τ + 1/n))

    ``τ`` is a threshold on maps scaled to 0…1, and ``n`` the number of thresholds. Precision and recall are computed
    over the pixels of all pictures.

    Args:
        n_thresholds: number of thresholds (paper's code: 1,000, which differs from 100 by less than 0.01).
    """

    name = "pixel_ap"
    paper = "Choe et al. 2020, arXiv:2001.07437"
    sign = "min-max to 0…1"

    n_thresholds: Count = 100

    def score(self, case: Case, maps: Maps) -> list[Score]:
        n, share, mask = self.n_thresholds, _share(self.mask(case)), self.mask(case).flatten()
        found = []
        for place in (min_max(maps).flatten(1) * n).floor().long().clamp(0, n - 1):
            counts = torch.cat([torch.bincount(place[part], minlength=n) for part in (mask, ~mask)]).double()
            sums = counts / len(mask)
            found.append(Score(float(self.combine(sums)), {"mask_share": share}, tuple(sums.tolist())))
        return found

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        """Compute the average precision from the two mean histograms."""
        on, off = means.flip(-1).chunk(2, -1)[::-1]
        true, false = on.cumsum(-1), off.cumsum(-1)
        precision = true / (true + false).clamp(min=1e-12)
        recall = on / on.sum(-1, keepdim=True).clamp(min=1e-12)
        return (precision * recall).sum(-1)


def largest_boxes(inside: Bool[Tensor, "n h w"]) -> Int[Tensor, "n 4"]:
    """Return the box of each mask's largest connected region as ``(left, top, right, bottom)``, ends exclusive.

    An empty mask gives a box of zeros. If regions have the same size, the topmost is used.
    """
    owner, boxes, sizes = pieces(inside)
    largest = torch.zeros(len(inside), 4, dtype=torch.long)
    for i in owner.unique():
        mine = (owner == i).nonzero()[:, 0]
        largest[i] = boxes[mine[sizes[mine].argmax()]]
    return largest


def pieces(inside: Bool[Tensor, "n h w"]) -> tuple[Int[Tensor, " m"], Int[Tensor, "m 4"], Int[Tensor, " m"]]:
    """Return the mask index, the box and the number of pixels of each connected region."""
    from scipy.ndimage import find_objects, label

    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True
    labels, n = label(inside.numpy(), touching)
    slices = find_objects(labels)
    owner = torch.tensor([part.start for part, _, _ in slices], dtype=torch.long)
    boxes = torch.tensor([[x.start, y.start, x.stop, y.stop] for _, y, x in slices], dtype=torch.long).reshape(n, 4)
    return owner, boxes, torch.from_numpy(np.bincount(labels.ravel(), minlength=n + 1)[1:])


def overlaps(boxes: Int[Tensor, "n 4"], other: Int[Tensor, " 4"]) -> Float[Tensor, " n"]:
    """Return the intersection over union of each box with another box; 0 for two empty boxes."""
    from torchvision.ops import box_iou

    return box_iou(boxes.float(), other[None].float())[:, 0].nan_to_num(0.0)
