"""The base of localisation metrics: they compare a map with the object's mask and ask no model."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from .base import AveragedMetric, Case, InputError, Maps, Mask, Metric, Score, scores


class Localisation(Metric):
    """Localisation is not faithfulness: a model that uses the background should get a low score."""

    family = "localisation"
    needs = "a map and the object's mask"
    cost = "0"
    higher_is_better = True
    reads = "map"
    sign = "positive part"
    requires = ("mask",)

    def mask(self, case: Case) -> Mask:
        """The object's mask, which must be of the picture's size and not empty."""
        mask, size = case.mask, tuple(case.pixels.shape[1:])
        assert mask is not None  # the base has checked
        if tuple(mask.shape) != size:
            raise InputError(
                f"{self.name} was given a mask of {tuple(mask.shape)} for a picture of {size}. Cut and resize the mask "
                "like the picture."
            )
        if not mask.any():
            raise InputError(f"{self.name} was given an empty mask. Leave out pictures without the object.")
        return mask


@dataclass(frozen=True)
class MaskedMap(Localisation, AveragedMetric):
    """One whose number for a set is the mean over pictures."""


def mask_share(mask: Mask) -> float:
    """The object's part of the picture, which is what a uniform map gets."""
    return round(float(mask.float().mean()), 6)


def beside_size(values: Float[Tensor, " m"], mask: Mask) -> list[Score]:
    """Scores beside the object's part of the picture."""
    return scores(values, mask_share=mask_share(mask))


def positive_share(maps: Maps, mask: Mask) -> Float[Tensor, " m"]:
    """Part of what is positive that lies in the mask; 0 where nothing is positive."""
    positive = maps.clamp(min=0)
    return (positive * mask).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-12)
