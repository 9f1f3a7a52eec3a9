"""The base of metrics that keep what a map calls important, hide the rest, and compare confidences."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count, SomePart
from .base import AveragedMetric, Case, InputError, Maps, Score, min_max, read_in_batches, scores

if TYPE_CHECKING:
    from ..types import Transform

Number = Float[Tensor, ""]
Numbers = Float[Tensor, " m"]


@dataclass(frozen=True)
class MaskedConfidence(AveragedMetric):
    """Multiplies the picture with the map, scaled to 0…1, and reads the target's probability again.

    Args:
        keep: part of the pixels kept; values under the ``1 - keep`` quantile become 0, the others stay soft. T-TAME
            reports 1, 0.5 and 0.15.
        space: where the product is taken: ``"normalised"`` (0 is the mean colour, as in Grad-CAM++ code and
            pytorch-grad-cam) or ``"raw"`` (0 is black, T-TAME).
        batch_size: pictures a forward pass sees.
    """

    cost = "1"
    sign = "min-max to 0…1, so that the lowest value hides most"
    bounds = (0.0, 100.0)

    keep: SomePart = 1.0
    space: Literal["normalised", "raw"] = "normalised"
    batch_size: Count = 16

    @abstractmethod
    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        """Probability on the whole picture and on the masked ones → per cent."""

    def score(self, case: Case, maps: Maps) -> list[Score]:
        key = f"masked {self.keep} {self.space}"  # read once for all of us
        known = case.memo.get(key)
        if known is None or not torch.equal(known[0], maps):
            masks, read = kept_part(maps, self.keep), case.reader("probability")

            def make(index: Tensor) -> Tensor:
                return times(case.pixels, masks[index], self.space, case.transform)

            masked = read_in_batches(read, make, len(masks), self.batch_size)
            known = case.memo[key] = (maps, read(case.pixels[None])[0], masked, masks.mean((1, 2)))
        _, whole, masked, means = known
        mean_map = means.double().mul(1e6).round().div(1e6)
        return scores(self.compare(whole, masked), whole=float(whole), masked=masked, mean_map=mean_map)


def kept_part(maps: Maps, keep: float) -> Maps:
    """Maps in 0…1 with all but the upper part set to 0."""
    masks = min_max(maps)
    if keep == 1:
        return masks
    edge = torch.quantile(masks.flatten(1), 1 - keep, dim=1)[:, None, None]
    return torch.where(masks >= edge, masks, 0.0)


def times(
    pixels: Float[Tensor, "3 h w"], masks: Float[Tensor, "b h w"], space: str, transform: Transform | None
) -> Float[Tensor, "b 3 h w"]:
    """The picture times each mask, in the space asked for."""
    if space == "normalised":
        return pixels * masks[:, None]
    if transform is None:
        raise InputError(
            "Raw pixels were asked for, and the normalisation is not known. Pass transform=… with the case."
        )
    mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
    return ((pixels * std + mean) * masks[:, None] - mean) / std
