"""Metrics that change parts of a picture and compare the map with the change of the model's output."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ..bounds import Count, Natural, NotNegative, Positive, SomePart
from ..types import Transform
from . import metrics
from .base import AveragedMetric, Case, InputError, Maps, Of, Score, min_max, read_in_batches, scores
from .removal import Fill, filled
from .similarity import pearson, spearman


def _losses(
    case: Case, maps: Maps, change: Callable[[Tensor], tuple[Tensor, Tensor]], n: int, of: Of, batch_size: int
) -> tuple[Float[Tensor, "m n"], Float[Tensor, " n"]]:
    """Return the decrease of the output that each map predicts for each change, and the measured decrease."""
    read = case.reader(of)
    claims = []

    def changed(index: Tensor) -> Tensor:
        pixels, weights = change(index)
        claims.append(torch.einsum("bhw,mhw->mb", weights.double(), maps.double()))
        return pixels

    left = read_in_batches(read, changed, n, batch_size)
    return torch.cat(claims, 1), read(case.pixels[None]) - left


def _correlation(
    metric: FaithfulnessCorrelation | SensitivityN,
    case: Case,
    maps: Maps,
    n: int,
    shape: tuple[int, int],
    seed: int,
    correlate: Callable[[Tensor, Tensor], Tensor] = pearson,
) -> Float[Tensor, " m"]:
    """For each map, correlate the sum over random sets of ``n`` grid cells with the decrease of the output."""
    size, n_cells = (case.pixels.shape[1], case.pixels.shape[2]), shape[0] * shape[1]
    blank = filled(case.pixels, metric.fill, case.transform)

    def without(index: Tensor) -> tuple[Tensor, Tensor]:
        cells = torch.zeros(len(index), n_cells, dtype=torch.bool)
        for row, i in enumerate(index.tolist()):
            generator = torch.Generator().manual_seed(seed * metric.n_sets + i)
            cells[row, torch.randperm(n_cells, generator=generator)[:n]] = True
        masks = cells.unflatten(1, shape)
        if shape != size:
            masks = interpolate(masks[:, None].float(), size=size, mode="nearest")[:, 0] > 0.5
        return torch.where(masks[:, None], blank, case.pixels), masks

    claims, lost = _losses(case, maps, without, metric.n_sets, metric.of, metric.batch_size)
    return correlate(claims.float(), lost.expand_as(claims))


@metrics.register
@dataclass(frozen=True)
class FaithfulnessCorrelation(AveragedMetric):
    """Correlation between the map's sum over a random pixel set and the effect of removing the set; high is good.

        corr_S(Σ_{i in S} R_i, f(x) - f(x without S))

    ``S`` is a random set of pixels, ``R_i`` the map's value at pixel ``i``, ``x`` the picture and ``f`` the target's
    output.

    µFidelity is ``FaithfulnessCorrelation(size=0.2, grid=9, fill="mean", of="logit", correlation="spearman")``.

    Args:
        n_sets: number of random sets.
        size: number of pixels per set, or a value below 1 for a fraction of the pixels or grid cells.
        grid: side of the grid whose cells the sets consist of; 0 uses sets of single pixels.
        correlation: ``"pearson"`` (of values) or ``"spearman"`` (of ranks).
    """

    name = "faithfulness_correlation"
    paper = "Bhatt et al. 2020, arXiv:2005.00631"
    cost = "one per set, shared by all maps"
    higher_is_better = True
    bounds = (-1.0, 1.0)
    sign = "as it is"
    small = {"size": 0.1, "n_sets": 12}

    n_sets: Count = 100
    size: Positive = 224
    grid: Natural = 0
    fill: Fill = "black"
    of: Of = "probability"
    correlation: Literal["pearson", "spearman"] = "pearson"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        shape = (self.grid, self.grid) if self.grid else (case.pixels.shape[1], case.pixels.shape[2])
        cells = shape[0] * shape[1]
        n = max(1, round(self.size * cells)) if self.size < 1 else int(self.size)
        if n >= cells:
            raise InputError(f"`size` must be less than the {cells} pixels or grid cells of the picture, got {n}.")
        correlate = pearson if self.correlation == "pearson" else spearman
        return scores(_correlation(self, case, maps, n, shape, self.seed, correlate))


@metrics.register
@dataclass(frozen=True)
class SensitivityN(AveragedMetric):
    """Correlation between the map's sum over ``n`` random pixels and the effect of removing them; high is good.

        corr_S(Σ_{i in S} R_i, y(x) - y(x without S))

    ``S`` is a random set of ``n`` pixels, ``R_i`` the map's value at pixel ``i``, ``x`` the picture and ``y`` the
    target's output. The score is the mean over ``n``; ``parts`` has the value for each ``n``. If the model is linear, a
    map in units of the output has the score 1.

    Args:
        fractions: set sizes ``n`` as fractions of the number of pixels (paper: 1 to 80 %).
        n_sets: number of sets per size.
        of: the output ``y``: ``"logit"`` (paper) or ``"probability"``.
    """

    name = "sensitivity_n"
    paper = "Ancona et al. 2018, arXiv:1711.06104"
    needs = "a map and the model's logits"
    cost = "one per set, shared by all maps"
    higher_is_better = True
    bounds = (-1.0, 1.0)
    sign = "as it is"
    small = {"n_sets": 8}

    fractions: tuple[float, ...] = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8)
    n_sets: Count = 50
    fill: Fill = "mean"
    of: Of = "logit"
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        size, first = (case.pixels.shape[1], case.pixels.shape[2]), self.seed * len(self.fractions)
        counts = [max(1, round(fraction * size[0] * size[1])) for fraction in self.fractions]
        table = torch.stack([_correlation(self, case, maps, n, size, first + i) for i, n in enumerate(counts)], 1)
        return scores(table.mean(1), curve=table)


@metrics.register
@dataclass(frozen=True)
class Infidelity(AveragedMetric):
    """Mean squared error of the change of the output that the map predicts; low is good.

        E_I [(Iᵀφ - (f(x) - f(x - I)))²]

    ``I`` is a random perturbation, ``φ`` the map, ``x`` the picture and ``f`` the target's output. With ``normalised``,
    the map is first multiplied by the factor for which the error is smallest. ``parts`` has the error with and without
    this factor.

    Args:
        perturbation: ``"square"``, a random square set to the mean colour, for maps in units of the output;
            ``"gaussian"``, noise on every pixel, for gradient maps.
        n_samples: number of perturbations.
        side: side of the square, as a fraction of the picture's side.
        noise: standard deviation of the Gaussian, in units of normalised pixels.
        normalised: whether the score uses the map after multiplication by the best factor.
    """

    name = "infidelity"
    paper = "Yeh et al. 2019, arXiv:1901.09392"
    needs = "a map and the model's logits"
    cost = "one per sample, shared by all maps"
    higher_is_better = False
    bounds = (0.0, float("inf"))
    reads = "logit"
    sign = "as it is"
    requires = ("logits",)
    small = {"n_samples": 8}

    perturbation: Literal["square", "gaussian"] = "square"
    n_samples: Count = 64
    side: SomePart = 0.25
    noise: NotNegative = 0.1
    normalised: bool = True
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        def change(index: Tensor) -> tuple[Tensor, Tensor]:
            pairs = [self._perturbation(case.pixels, i) for i in index.tolist()]
            perturbation, weight = (torch.stack(part) for part in zip(*pairs, strict=True))
            return case.pixels - perturbation, weight

        claimed, lost = _losses(case, maps, change, self.n_samples, "logit", self.batch_size)
        lost = lost.double()
        scale = (claimed * lost).mean(1, keepdim=True) / claimed.square().mean(1, keepdim=True).clamp(min=1e-30)
        plain, fitted = ((claimed * s - lost).square().mean(1) for s in (torch.ones_like(scale), scale))
        return scores(fitted if self.normalised else plain, plain=plain, normalised=fitted, scale=scale[:, 0])

    def _perturbation(self, pixels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return the perturbation and the weight of each pixel of the map."""
        height, width = pixels.shape[1:]
        generator = torch.Generator().manual_seed(self.seed * self.n_samples + number)
        if self.perturbation == "gaussian":
            change = torch.randn(pixels.shape, generator=generator) * self.noise
            return change, change.sum(0)
        square = torch.zeros(height, width)
        rows, columns = max(1, round(self.side * height)), max(1, round(self.side * width))
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        square[top : top + rows, left : left + columns] = 1
        return pixels * square, square


Number = Float[Tensor, ""]
Numbers = Float[Tensor, " m"]
EQUAL = 1e-6  # two passes of one picture may differ in the last bit


@dataclass(frozen=True)
class MaskedConfidence(AveragedMetric):
    """A metric that compares the target's probability before and after the picture is multiplied by the map.

    Args:
        keep: fraction of the pixels to keep, 0 to 1; map values below the ``1 - keep`` quantile become 0. T-TAME
            reports results for 1, 0.5 and 0.15.
        space: ``"normalised"`` multiplies normalised pixels, as pytorch-grad-cam does; ``"raw"`` multiplies raw
            pixels, as T-TAME does.
    """

    cost = "1"
    sign = "min-max to 0…1, so that the lowest value hides most"
    bounds = (0.0, 100.0)

    keep: SomePart = 1.0
    space: Literal["normalised", "raw"] = "normalised"
    batch_size: Count = 16

    @abstractmethod
    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        """Compute the metric, in per cent, from the probabilities of the original and the masked pictures."""

    def score(self, case: Case, maps: Maps) -> list[Score]:
        key = f"masked {self.keep} {self.space}"  # shared by all metrics of this kind
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
        """Scale the maps to 0…1 and set all but the highest values to 0."""
        masks = min_max(maps)
        if self.keep == 1:
            return masks
        edge = torch.quantile(masks.flatten(1), 1 - self.keep, dim=1)[:, None, None]
        return torch.where(masks >= edge, masks, 0.0)

    def _times(self, pixels: Tensor, masks: Tensor, transform: Transform | None) -> Float[Tensor, "b 3 h w"]:
        """Multiply the picture by each mask, in normalised or raw pixels."""
        if self.space == "normalised":
            return pixels * masks
        if transform is None:
            raise InputError('space="raw" needs the normalisation of the model. Pass transform=… to Case.')
        mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
        return ((pixels * std + mean) * masks - mean) / std


@metrics.register
@dataclass(frozen=True)
class AverageDrop(MaskedConfidence):
    """Relative decrease of the target's probability after the picture is multiplied by the map, in per cent; low is
    good.

        AD = 100 · max(0, p(x) - p(x · m)) / p(x)

    ``p`` is the target's probability, ``x`` the picture, and ``m`` the map scaled to 0…1. A map of ones has the best
    score, 0; ``parts["mean_map"]`` shows this case.
    """

    name = "average_drop"
    paper = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better = False

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (whole - masked).clamp(min=0) / whole.clamp(min=1e-12)


@metrics.register
@dataclass(frozen=True)
class AverageGain(MaskedConfidence):
    """Relative increase of the target's probability after the picture is multiplied by the map, in per cent; high is
    good.

        AG = 100 · max(0, p(x · m) - p(x)) / (1 - p(x))

    ``p`` is the target's probability, ``x`` the picture, and ``m`` the map scaled to 0…1. Report average gain together
    with :class:`AverageDrop`.
    """

    name = "average_gain"
    paper = "Zhang et al. 2024, Opti-CAM, arXiv:2301.07002"
    higher_is_better = True

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (masked - whole).clamp(min=0) / (1 - whole).clamp(min=1e-12)


@metrics.register
@dataclass(frozen=True)
class AverageIncrease(MaskedConfidence):
    """Percentage of pictures whose target probability increases after multiplication by the map; high is good.

        IC = 100 · [p(x · m) > p(x)]

    ``p`` is the target's probability, ``x`` the picture, and ``m`` the map scaled to 0…1. The metric is also called
    increase in confidence.
    """

    name = "average_increase"
    paper = "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063"
    higher_is_better = True

    def compare(self, whole: Number, masked: Numbers) -> Numbers:
        return 100 * (masked > whole + EQUAL).to(masked)
