"""ALIGN's objective (Jia et al. 2021, arXiv 2102.05918): CLIP's with smoothed labels, the temperature learnt itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...bounds import Bound, OpenPart
from . import objectives
from .contrastive import Contrastive, Costs, Own, Scores, Sides, Temperature

LEAST = 0.01
"""Temperature that is not gone below: CLIP's bound; the paper has none, and ends near 1/64."""


class Divided(Temperature):
    """The cosine by a temperature, which is learnt itself."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))

    def forward(self, cosine: Float[Tensor, "a n"]) -> Float[Tensor, "a n"]:
        return cosine / self.temperature

    @torch.no_grad()
    def hold(self) -> None:
        self.temperature.clamp_(min=LEAST)


@objectives.register
@dataclass(frozen=True)
class ALIGN(Contrastive):
    """Each picture must find its own text and each text its own picture, and nobody is asked to be certain.

    ``s_ij = cos(image_i, text_j) / sigma``; ``loss = mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)`` (equations 1 and 2),
    where ``q_i`` is ``label_smoothing / n`` everywhere and what is left of 1 more at ``i``. ``sigma`` is learnt.

    There is no code of the authors. Twice the loss of the port in transformers, which takes the mean of both
    directions where the paper takes the sum: that is a factor of the learning rate.

    Args:
        temperature: ``sigma`` at first; the paper's 1.
        label_smoothing: the paper's 0.1.

    Example:
        >>> round(float(ALIGN(label_smoothing=0.0)(torch.eye(2), torch.eye(2))), 4)  # 2 log(1 + exp(-1))
        0.6265
    """

    name: ClassVar[str] = "align"
    paper: ClassVar[str] = "Jia et al. 2021, arXiv:2102.05918"

    temperature: Annotated[float, Bound(LEAST)] = 1.0
    label_smoothing: OpenPart = 0.1

    def state(self) -> Temperature:
        return Divided(self.temperature)

    def weights(self) -> tuple[float, float]:
        return 1.0, 1.0

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        return cross_entropy(scores, own, reduction="none", label_smoothing=self.label_smoothing)
