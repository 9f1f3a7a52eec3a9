"""Focus on mosaics (Arias-Duart et al. 2022, arXiv 2109.15035)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from . import metrics
from .base import Case, InputError, Maps, Mask, Score
from .masked_map import MaskedMap, beside_size, positive_share


@metrics.register
@dataclass(frozen=True)
class MosaicFocus(MaskedMap):
    """Part of the positive evidence in the target's quadrants of a 2 × 2 mosaic; high is good.

    Make picture and mask with :func:`mosaic`. No annotation is needed: a quadrant of another class holds no evidence.
    """

    name = "mosaic_focus"
    paper = "Arias-Duart et al. 2022, arXiv:2109.15035"
    needs = "a map of a mosaic and its target's quadrants"
    of_mosaics = True

    def score(self, case: Case, maps: Maps) -> list[Score]:
        mask = self.mask(case)
        return beside_size(positive_share(maps, mask), mask)


def mosaic(pictures: Float[Tensor, "n 3 h w"], is_target: Sequence[bool]) -> tuple[Float[Tensor, "3 h w"], Mask]:
    """Four normalised pictures on one canvas of the same size, and where those of the target class are."""
    if len(pictures) != 4 or len(is_target) != 4 or not 0 < sum(is_target) < 4:
        raise InputError(
            f"{len(pictures)} pictures, {sum(is_target)} of the target, were given. Give four, one to three of it."
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
