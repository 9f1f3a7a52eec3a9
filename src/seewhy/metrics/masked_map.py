"""The base of localisation metrics: they compare a map with the object's mask and ask no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from .base import AveragedMetric, Case, Score, scores


def object_mask(case: Case, name: str) -> Bool[Tensor, "h w"]:
    """The mask of a case."""
    assert case.mask is not None
    if tuple(case.mask.shape) != tuple(case.pixels.shape[1:]):
        raise InputError(
            f"{name} was given a mask of {tuple(case.mask.shape)} for a picture of {tuple(case.pixels.shape[1:])}. "
            "Cut and resize the mask like the picture."
        )
    if not case.mask.any():
        raise InputError(f"{name} was given an empty mask. Leave out pictures without the object.")
    return case.mask


@dataclass(frozen=True)
class MaskedMap(AveragedMetric):
    """Localisation is not faithfulness: a model that uses the background should get a low score."""

    family: ClassVar[str] = "localisation"
    needs: ClassVar[str] = "a map and the object's mask"
    cost: ClassVar[str] = "0"
    higher_is_better: ClassVar[bool] = True
    reads: ClassVar[str] = "map"
    sign: ClassVar[str] = "positive part"
    requires: ClassVar[tuple[str, ...]] = ("mask",)

    def mask(self, case: Case) -> Bool[Tensor, "h w"]:
        return object_mask(case, self.name)

    def beside_size(self, values: Float[Tensor, " m"], mask: Bool[Tensor, "h w"]) -> list[Score]:
        """Scores beside the object's part of the picture, which is what a uniform map gets."""
        share = round(float(mask.float().mean()), 6)
        return scores(values, [{"mask_share": share}] * len(values))


def positive_share(maps: Float[Tensor, "m h w"], mask: Bool[Tensor, "h w"]) -> Float[Tensor, " m"]:
    """Part of what is positive that lies in the mask; 0 where nothing is positive."""
    positive = maps.clamp(min=0)
    return (positive * mask).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-12)
