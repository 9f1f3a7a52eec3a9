"""The base of metrics that keep what a map calls important, hide the rest, and compare confidences."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from .base import AveragedMetric, Case, Score, min_max, read_in_batches

if TYPE_CHECKING:
    from ..types import Transform


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

    cost: ClassVar[str] = "1"
    sign: ClassVar[str] = "min-max to 0…1, so that the lowest value hides most"
    bounds: ClassVar[tuple[float, float]] = (0.0, 100.0)

    keep: float = 1.0
    space: Literal["normalised", "raw"] = "normalised"
    batch_size: int = 16

    @abstractmethod
    def compare(self, whole: Float[Tensor, ""], masked: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Probability on the whole picture and on the masked ones → per cent."""

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Score]:
        whole, masked, means = self._read(case, maps)
        values = self.compare(whole, masked)
        return [
            Score(float(v), {"whole": float(whole), "masked": float(p), "mean_map": round(float(m), 6)}, (float(v),))
            for v, p, m in zip(values, masked, means, strict=True)
        ]

    def _read(self, case: Case, maps: Float[Tensor, "m h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Probability of the whole picture and of the masked ones, and the masks' means; read once for all of us."""
        key = f"masked {self.keep} {self.space}"
        known = case.memo.get(key)
        if known is None or not torch.equal(known[0], maps):
            masks = kept_part(maps, self.keep)
            read = case.reader("probability")
            masked = read_in_batches(
                read, lambda i: times(case.pixels, masks[i], self.space, case.transform), len(masks), self.batch_size
            )
            known = case.memo[key] = (maps, read(case.pixels[None])[0], masked, masks.mean((1, 2)))
        return known[1], known[2], known[3]


def kept_part(maps: Float[Tensor, "m h w"], keep: float) -> Float[Tensor, "m h w"]:
    """Maps in 0…1 with all but the upper part set to 0."""
    if not 0 < keep <= 1:
        raise InputError(f"keep={keep:g} was given. The part of the pixels that is kept must be over 0 and at most 1.")
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
