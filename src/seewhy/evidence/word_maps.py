"""Where each description holds: one map a sentence, for pages on which a reader points at a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..explanation.verdict import Missing
from ..heads.head import Projected

if TYPE_CHECKING:
    from ..classifiers.base import Classifier


@dataclass(frozen=True)
class WordMap:
    """Where one sentence holds.

    Attributes:
        label: its class.
        text: as the user wrote it.
        heat: signed map ``(h, w)`` on the grid of the last feature map; what is positive speaks for the sentence.
    """

    label: str
    text: str
    heat: np.ndarray


def word_maps(
    classifier: Classifier, grid: Float[Tensor, "c h w"], pooled: Float[Tensor, " d"], one: int, other: int
) -> tuple[WordMap, ...] | Missing:
    """The maps of the sentences of two classes, each against the other class's sentences.

    A card says that a sentence ``d`` of class ``a`` holds when its cosine with the picture is above the mean cosine of
    the sentences of ``b``. The map divides that lead over the cells. With ``x = P(v) / |P(v)|``, ``P`` affine and
    ``v`` the mean of the cells' features ``z``::

        (d − mean_b) · x = const + Σ_ij s · z_ij / (h w)      s = ∂((d − mean_b) · P(v)) / ∂v / |P(v)|

    Cost: no pass; one small gradient a sentence. Range: unbounded; a cell counts relative to the others.
    """
    words = classifier.words
    if words is None:
        return Missing("This classifier has no descriptions.", "Give some with --descriptions FILE.")
    if not classifier.encoder.is_average:
        return Missing(
            f"The encoder {classifier.encoder.name} does not pool by the mean, so a sentence has no exact map.",
            "Use a mean-pooled encoder: lite0, or a convolutional one.",
        )
    means = words.class_weight()
    pairs = [(one, other)] + ([(other, one)] if other != one else [])
    which = [(i, c, against) for c, against in pairs for i in words.of(c)]
    rows = torch.stack([words.vectors[i] - (means[b] if a != b else 0) for i, a, b in which])
    slopes = Projected(classifier.encoder.text).slope(pooled[None].expand(len(rows), -1), rows)
    maps = torch.einsum("nc,chw->nhw", slopes, grid) / grid[0].numel()
    return tuple(WordMap(words.classes[c], words.texts[i], m.numpy()) for (i, c, _), m in zip(which, maps, strict=True))
