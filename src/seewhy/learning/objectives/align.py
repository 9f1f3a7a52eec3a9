"""ALIGN's objective (Jia et al. 2021, arXiv 2102.05918): CLIP's with smoothed labels, the temperature learnt itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...errors import InputError
from . import objectives
from .contrastive import Contrastive, Temperature

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
    needs: ClassVar[str] = "pictures with a text each"

    temperature: float = 1.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not LEAST <= self.temperature < float("inf") or not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"The objective align was given temperature={self.temperature:g}, "
                f"label_smoothing={self.label_smoothing:g}. A temperature from {LEAST:g}, and a smoothing from 0 to "
                "below 1, were expected. Change them."
            )

    def state(self) -> Temperature:
        return Divided(self.temperature)

    def weights(self) -> tuple[float, float]:
        return 1.0, 1.0

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        return cross_entropy(scores, own, reduction="none", label_smoothing=self.label_smoothing)
