"""The class that comes next: a map is of the class it names only if it differs from that one's as the decision does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..heads.head import Target

if TYPE_CHECKING:
    from ..attributions.base import Attribution
    from ..classifiers.base import Classifier
    from ..encoders.base import EncoderOutput


@dataclass(frozen=True)
class Rival:
    """The most probable class beside those explained.

    Attributes:
        index: of the class.
        heat: makes its map by the same method; called only where a verdict hangs on it.
    """

    index: int
    heat: Callable[[], Float[Tensor, "h w"]]

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        method: Attribution,
        look: EncoderOutput,
        pixels: Float[Tensor, "3 h w"] | None,
        probabilities: Float[Tensor, " k"],
        target: int,
        contrast: int | None,
    ) -> Rival | None:
        """``None`` where there is no class beside those explained.

        Args:
            classifier: whose class it is.
            method: what made the map.
            look: of one picture.
            pixels: the picture, normalised; ``None`` where nothing is measured.
            probabilities: of the classes on that picture.
            target: class explained.
            contrast: class it is explained against, as the rival is too.
        """
        best = probabilities.topk(min(3, len(probabilities))).indices.tolist()
        left = [k for k in best if k not in (target, contrast)]
        if not left:
            return None
        goal = Target(torch.tensor(left[:1]), None if contrast is None else torch.tensor([contrast]))
        whole = look if pixels is None else replace(look, pixels=pixels[None])
        return cls(left[0], lambda: method(classifier, whole, goal)[0])
