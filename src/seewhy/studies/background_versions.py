"""A picture with its background exchanged, blurred or gone, as numbers of pixels; nothing here asks a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

Pixels = UInt8[np.ndarray, "h w 3"]
MOST_SHIFTS = 64
"""Places tried for a piece of the background as large as the object."""
BLUR = 20
"""The background is blurred by one part in so many of the picture's side."""
ALONE = ("original", "blurred", "background alone", "object alone", "object filled", "elsewhere filled")
"""Versions that need no other picture, in their order; the last two fill equally many pixels, of one shape."""


def filled(pixels: Pixels, hole: Bool[Tensor, "h w"]) -> Pixels:
    """The hole filled smoothly from around it: means over ever larger squares, down to the finest that knows any pixel.

    Example:
        >>> plain = np.full((8, 8, 3), 90, np.uint8)
        >>> plain[2:5, 2:5] = 255
        >>> hole = torch.zeros(8, 8, dtype=torch.bool)
        >>> hole[2:5, 2:5] = True
        >>> bool((filled(plain, hole) == 90).all())
        True
    """
    known = (~hole).float()[None, None]
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() * known
    smooth = _spread(values, known)[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return np.where(hole.numpy()[..., None], smooth, pixels)


def _spread(sums: Float[Tensor, "1 c h w"], known: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 c h w"]:
    """What is known where it is, elsewhere what the next coarser picture has."""
    means = sums / known.clamp(min=1e-6)
    h, w = known.shape[2:]
    if bool((known > 0).all()) or min(h, w) < 2:
        return means
    coarse = _spread(avg_pool2d(sums, 2, ceil_mode=True), avg_pool2d(known, 2, ceil_mode=True))
    return torch.where(known > 0, means, interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False))


def pasted(pixels: Pixels, mask: Bool[Tensor, "h w"], ground: Pixels) -> Pixels:
    """The object of one picture on the background of another."""
    return np.where(mask.numpy()[..., None], pixels, ground)


def alone(
    pixels: Pixels, mask: Bool[Tensor, "h w"], ground: Pixels, grey: UInt8[np.ndarray, " 3"], seed: int
) -> list[Pixels]:
    """The versions of :data:`ALONE`."""
    side = max(pixels.shape[:2])
    blurred = np.asarray(Image.fromarray(ground).filter(ImageFilter.GaussianBlur(side / BLUR)))
    here, there = moved(mask, seed)
    pieces = [filled(pixels, part) if bool(part.any()) else pixels for part in (here, there)]
    return [
        pixels,
        pasted(pixels, mask, blurred),
        ground,
        pasted(pixels, mask, np.broadcast_to(grey, pixels.shape)),
        *pieces,
    ]


def moved(mask: Bool[Tensor, "h w"], seed: int) -> tuple[Bool[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """As much of the object as can be laid elsewhere, and where it then lies; equally many pixels, none in both.

    Example:
        >>> mask = torch.zeros(8, 8, dtype=torch.bool)
        >>> mask[:4, :4] = True
        >>> here, there = moved(mask, 0)
        >>> int(here.sum()), int(there.sum()), int((mask & there).sum())
        (16, 16, 0)
    """
    h, w = mask.shape
    drawn = torch.randperm(h * w - 1, generator=torch.Generator().manual_seed(seed))[: MOST_SHIFTS * 4] + 1
    best, least, shift = mask, int(mask.sum()) + 1, (0, 0)
    for flat in drawn.tolist():
        by = divmod(flat, w)
        there = mask.roll(by, (0, 1))
        if (shared := int((there & mask).sum())) < least:
            best, least, shift = there, shared, by
        if shared == 0:
            break
    there = best & ~mask
    return there.roll((-shift[0], -shift[1]), (0, 1)), there


@dataclass(frozen=True)
class Donors:
    """Whose backgrounds each picture gets, one column a round; −1 where its class has no more."""

    same: Int[Tensor, "n r"]
    other: Int[Tensor, "n r"]

    @classmethod
    def draw(cls, labels: Int[Tensor, " n"], n_rounds: int, seed: int) -> Donors:
        """At random.

        Example:
            >>> drawn = Donors.draw(torch.tensor([0, 0, 0, 1, 1]), 2, 0)
            >>> drawn.same[3:].tolist(), sorted(drawn.same[:3, 0].tolist())
            ([[4, -1], [3, -1]], [0, 1, 2])
        """
        generator = torch.Generator().manual_seed(seed)
        same, other = (torch.full((len(labels), n_rounds), -1) for _ in range(2))
        for k in labels.unique().tolist():
            own, rest = (labels == k).nonzero()[:, 0], (labels != k).nonzero()[:, 0]
            own = own[torch.randperm(len(own), generator=generator)]
            for r in range(min(n_rounds, len(own) - 1)):
                drawn = rest[torch.randperm(len(rest), generator=generator)]
                same[own, r] = own.roll(-(r + 1))
                other[own, r] = drawn[torch.arange(len(own)) % len(drawn)]
        return cls(same, other)
