"""The base class of methods that use Captum."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count
from ..encoders.base import Encoder
from ..errors import needs
from ..seeded import seeded
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction, eager_logits, scores_of_rows

__all__ = ["CaptumGradients", "Encoder", "Forward", "Pixels"]

Forward = Callable[[Tensor], Tensor]
"""Function from modified copies ``(n, 3, h, w)`` of one picture to the target ``(n,)``."""
Pixels = Float[Tensor, "1 3 h w"]


@dataclass(frozen=True)
class CaptumGradients(Attribution):
    """The base class of gradient methods of Captum: signed maps of pixels, summed over the colour channels.

    Args:
        batch_size: number of copies of the picture per forward pass.
    """

    needs = "pixels and the network in torch; the extra 'captum'"
    needs_pixels = True

    batch_size: Count = 16

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        with needs("captum", self.name):
            import captum.attr
        pixels = look.pixels_for(self.name)
        with torch.no_grad():
            others = model.head(look.pooled)

        def forward(copies: Tensor) -> Tensor:
            return scores_of_rows(target, eager_logits(model, copies), others, number, 0)

        maps = []
        for number in range(len(look)):
            picture = pixels[number : number + 1].detach().clone().requires_grad_()
            with seeded(self.seed) if self.stochastic else nullcontext(), torch.enable_grad():  # type: ignore[attr-defined]
                maps.append(self.run(captum.attr, forward, picture, model.encoder).detach().float().sum(1))
        return torch.cat(maps) if maps else pixels.sum(1)

    @abstractmethod
    def run(self, captum: Any, forward: Forward, picture: Pixels, encoder: Encoder) -> Pixels:
        """Compute the map; ``captum`` is the module ``captum.attr``."""
