"""Metrics that keep what a map calls important, hide the rest, and compare confidences."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count, SomePart
from ..types import Transform
from . import metrics
from .base import AveragedMetric, Case, InputError, Maps, Score, min_max, read_in_batches, scores

Number = Float[Tensor, ""]
Numbers = Float[Tensor, " m"]
EQUAL = 1e-6  # two passes of one picture may differ in the last bit, which is no rise


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
            masks, read = self._kept(maps), case.reader("probability")

            def make(index: Tensor) -> Tensor:
                return self._times(case.pixels, masks[index, None], case.transform)

            masked = read_in_batches(read, make, len(masks), self.batch_size)
            known = case.memo[key] = (maps, read(case.pixels[None])[0], masked, masks.mean((1, 2)))
        _, whole, masked, means = known
        mean_map = means.double().mul(1e6).round().div(1e6)
        return scores(self.compare(whole, masked), whole=float(whole), masked=masked, mean_map=mean_map)

    def _kept(self, maps: Maps) -> Maps:
        """Maps in 0…1 with all but the upper part set to 0."""
        masks = min_max(maps)
        if self.keep == 1:
            return masks
        edge = torch.quantile(masks.flatten(1), 1 - self.keep, dim=1)[:, None, None]
        return torch.where(masks >= edge, masks, 0.0)

    def _times(self, pixels: Tensor, masks: Tensor, transform: Transform | None) -> Float[Tensor, "b 3 h w"]:
        """The picture times each mask, in the space asked for."""
        if self.space == "normalised":
            return pixels * masks
        if transform is None:
            raise InputError(
                "Raw pixels were asked for, and the normalisation is not known. Pass transform=… with the case."
            )
        mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
        return ((pixels * std + mean) * masks - mean) / std


@metrics.register
@dataclass(frozen=True)
class AverageDrop(MaskedConfidence):
    """Per cent of its confidence the model loses on the picture times the map; low is good.

    ``AD = 100 · max(0, p(x) - p(x · m)) / p(x)``, m the map scaled to 0…1. A map that keeps
    everything has 0, so read ``mean_map`` beside it.
    """

    name = "average_drop"
    paper = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better = False

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (whole - masked).clamp(min=0) / whole.clamp(min=1e-12)


@metrics.register
@dataclass(frozen=True)
class AverageGain(MaskedConfidence):
    """Per cent of the missing confidence that the picture times the map wins; high is good.

    ``AG = 100 · max(0, p(x · m) - p(x)) / (1 - p(x))``, m the map scaled to 0…1. The counterpart of average drop.
    """

    name = "average_gain"
    paper = "Zhang et al. 2024, Opti-CAM, arXiv:2301.07002"
    higher_is_better = True

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (masked - whole).clamp(min=0) / (1 - whole).clamp(min=1e-12)


@metrics.register
@dataclass(frozen=True)
class AverageIncrease(MaskedConfidence):
    """Per cent of pictures whose confidence rises on the picture times the map; high is good.

    ``IC = 100 · [p(x · m) > p(x)]``, m the map scaled to 0…1. Also called increase in confidence.
    """

    name = "average_increase"
    paper = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better = True

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (masked > whole + EQUAL).to(masked)
