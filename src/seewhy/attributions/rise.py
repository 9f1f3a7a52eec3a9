"""RISE (Petsiuk, Das & Saenko 2018, arXiv 1806.07421)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bounds import Bound, Count, InnerPart
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, Of, TargetFunction, engine_logits, scores_of_changes


@attributions.register
@dataclass(frozen=True)
class RISE(Attribution):
    """Average of random masks, weighted by the class's probability for the masked picture.

        S = 1 / (N p) · Σ_i f(I ⊙ M_i) M_i        (paper, equation 6)

    ``S`` is the map, ``N`` the number of masks, ``I`` the picture, ``M_i`` a mask and ``f`` the target's probability. A
    mask is an ``s × s`` grid whose cells are 1 with probability ``p``; the grid is enlarged bilinearly and cropped at a
    random shift. Hidden pixels have the mean colour. Masks equal those of ``eclique/RISE`` up to rounding.

    Two options that the paper does not have need far fewer masks; :meth:`quick` uses both. ``centred`` weights masks by
    ``f − mean f``, so that the map has a sign. ``masks="stratified"`` shows every grid cell in exactly ``p N`` masks;
    at ``p = 0.5``, it pairs every grid with its negative.

    Args:
        n_masks: number of masks (paper: 4,000 for VGG-16, 8,000 for ResNet-50).
        cells: ``s``, side of the grid in cells (paper: 7).
        p: probability that a cell is shown, 0 to 1 (paper: 0.5).
        masks: ``"random"`` (paper) or ``"stratified"``.
        centred: whether to weight masks by ``f − mean f`` instead of ``f``.
        of: the score ``f`` of the target: ``"probability"`` (paper) or ``"logit"``.
        batch_size: number of masked pictures per forward pass.
        seed: seed of the masks, which are the same for all pictures.
    """

    name = "rise"
    spelt = "RISE"
    paper = "Petsiuk et al. 2018, arXiv:1806.07421"
    needs = "pixels; any model"
    cost = "4000 (n_masks)"
    stochastic = True
    needs_pixels = True
    engine_alone = True
    small = {"n_masks": 40}

    n_masks: Annotated[int, Bound(2)] = 4000
    cells: Annotated[int, Bound(2)] = 7
    p: InnerPart = 0.5
    masks: Literal["random", "stratified"] = "random"
    centred: bool = False
    of: Of = "probability"
    batch_size: Count = 64
    seed: int = 0

    @classmethod
    def quick(cls, n_masks: int = 1000, seed: int = 0) -> RISE:
        """Return the faster variant with 1,000 stratified, centred masks."""
        return cls(n_masks=n_masks, masks="stratified", centred=True, seed=seed)

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        pixels = look.pixels_for(self.name)
        n, size = len(look), pixels.shape[2:]
        weighted, plain, total = torch.zeros(n, *size), torch.zeros(size), torch.zeros(n)
        for masks in self.draw((size[0], size[1]), max(1, self.batch_size // max(n, 1))):
            shown = (pixels * masks[:, None, None]).flatten(0, 1)
            logits = engine_logits(model, shown, self.batch_size).unflatten(0, (len(masks), n))
            scores = scores_of_changes(target, logits, self.of)
            weighted += torch.einsum("mb,mhw->bhw", scores, masks)
            plain += masks.sum(0)
            total += scores.sum(0)
        if self.centred:
            weighted -= (total / self.n_masks)[:, None, None] * plain
        return weighted / (self.n_masks * self.p)

    def draw(self, size: tuple[int, int], at_once: int) -> Iterator[Float[Tensor, "m h w"]]:
        """Yield the masks in batches of ``at_once``."""
        grids, shifts = self.plan(size)
        rows, columns = (_enlargement(self.cells, (self.cells + 1) * math.ceil(side / self.cells)) for side in size)
        for grid, shift in zip(grids.split(at_once), shifts.split(at_once), strict=True):
            yield _cut(rows, shift[:, 0], size[0]) @ grid @ _cut(columns, shift[:, 1], size[1]).transpose(1, 2)

    def plan(self, size: tuple[int, int]) -> tuple[Float[Tensor, "n s s"], Int[Tensor, "n 2"]]:
        """Return all grids and the crop offsets of the enlarged grids."""
        seeded = torch.Generator().manual_seed(self.seed)
        noise = torch.rand(self.n_masks, self.cells**2, generator=seeded)
        if self.masks == "random":
            on = noise < self.p
        elif self.p == 0.5:
            half = noise[: (self.n_masks + 1) // 2] < 0.5
            on = torch.stack([half, ~half], 1).flatten(0, 1)[: self.n_masks]
        else:
            on = noise.argsort(0).argsort(0) < round(self.p * self.n_masks)
        cells = [math.ceil(side / self.cells) for side in size]
        shifts = torch.stack([torch.randint(0, cell, (self.n_masks,), generator=seeded) for cell in cells], 1)
        if self.masks == "stratified" and self.p == 0.5:
            shifts[1::2] = shifts[: self.n_masks - 1 : 2]
        return on.float().unflatten(1, (self.cells, self.cells)), shifts


def _enlargement(n: int, big: int) -> Float[Tensor, "big n"]:
    """Return the matrix of linear interpolation from ``n`` to ``big`` points, as in skimage's ``resize``."""
    place = ((torch.arange(big) + 0.5) * n / big - 0.5).abs()
    place = (n - 1) - ((n - 1) - place).abs()
    low = place.floor().clamp(max=n - 2).long()
    part = (place - low)[:, None]
    eye = torch.eye(n)
    return eye[low] * (1 - part) + eye[low + 1] * part


def _cut(matrix: Float[Tensor, "big n"], start: Int[Tensor, " m"], length: int) -> Float[Tensor, "m length n"]:
    return matrix[start[:, None] + torch.arange(length)]
