"""Do the places shown matter? They are hidden and the picture is looked at again, beside eight other places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..explanation.measures import PatchDeletion
from ..types import FractionBox

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

ELSEWHERE = ((0.5, 0.5), (0.0, 0.5), (0.5, 0.0), (0.25, 0.5), (0.75, 0.5), (0.5, 0.25), (0.5, 0.75), (0.25, 0.75))
"""Parts of height and width by which the pattern is moved, at least a quarter one way; the same for every picture, as a
verdict that compares with the worst of drawn places hangs on the draw."""


def delete_patches(
    classifier: Classifier,
    pixels: Float[Tensor, "3 h w"],
    boxes: Sequence[FractionBox],
    target: int,
) -> PatchDeletion:
    """Hide all boxes at once under the network's mean colour; then the same boxes, moved together to other places.

    Moving the whole pattern, round the edges of the picture, keeps its area and its shape. The figure is the lead:
    the target's logit less the mean over classes. Cost: 10 forward passes.
    """
    height, width = pixels.shape[1:]
    mask = _mask(boxes, height, width)
    shifts = [(round(down * height), round(right * width)) for down, right in ELSEWHERE]
    masks = [torch.zeros_like(mask), mask, *(mask.roll(shift, (0, 1)) for shift in shifts)]
    changed = torch.stack([pixels.masked_fill(m, 0.0) for m in masks])
    with torch.no_grad():
        logits = classifier.head(classifier.encoder.pooled(changed))
    lead = logits[:, target] - logits.mean(1)
    fall = (lead[0] - lead[1:]).tolist()
    return PatchDeletion(float(lead[0]), fall[0], tuple(fall[1:]), float(mask.float().mean()))


def _mask(boxes: Sequence[FractionBox], height: int, width: int) -> Bool[Tensor, "h w"]:
    mask = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask
