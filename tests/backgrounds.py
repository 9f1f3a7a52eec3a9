"""Pictures whose objects and backgrounds are known, with their masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from planting import CLASSES, LEVEL, SIDE
from seewhy.pictures.images import Picture
from seewhy.pictures.object_masks import usable
from seewhy.pictures.samples import Sample, Samples, gathered

CHOSEN = CLASSES[:2]


class Known:
    """Masks by the picture's name."""

    told, by_hand, seal = "planted", True, ""

    def __init__(self, masks: dict[str, Any], by_hand: bool = True) -> None:
        self.masks, self.by_hand = masks, by_hand

    def mask(self, sample: Sample, picture: Picture) -> Bool[Tensor, "h w"]:
        return usable(torch.from_numpy(self.masks[sample.image]), sample.image)


def planted(n: int, seed: int, where: str) -> tuple[Samples, dict[str, Any]]:
    """Grey objects, with the colour of the class on the object, or around it; and colours of no class around it."""
    rng = np.random.default_rng(seed)
    items, masks = [], {}
    for k, label in enumerate(CHOSEN):
        for i in range(n):
            canvas = rng.uniform(0.2, LEVEL - 0.1, (SIDE, SIDE, 3))
            mask = np.zeros((SIDE, SIDE), bool)
            row, column = rng.integers(8, 24, 2)
            mask[row : row + 24, column : column + 24] = True
            canvas[mask] = 0.5
            own, chance = (mask, ~mask) if where == "object" else (~mask, mask)
            canvas[..., k][own & (rng.random(mask.shape) < 0.4)] = 0.95
            canvas[..., int(rng.integers(2))][chance & (rng.random(mask.shape) < 0.01)] = 0.95
            name = f"{label} {i}"
            items.append(Sample(name, label, pixels=(canvas * 255).round().astype(np.uint8)))
            masks[name] = mask
    return gathered(items), masks
