"""CLIP's objective (Radford et al. 2021, arXiv 2103.00020): the symmetric cross entropy, at a scale that is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...errors import InputError
from . import objectives
from .contrastive import Contrastive, Learnt, Temperature


@objectives.register
@dataclass(frozen=True)
class CLIP(Contrastive):
    """Each picture must find its own text among those of the batch, and each text its own picture.

    ``s_ij = exp(theta) cos(image_i, text_j)``; ``loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2`` (section 2.3).
    ``theta`` is learnt, and held between 0 and ``ln(max_scale)`` after each step, as open_clip does.

    Equal to ``open_clip.loss.ClipLoss`` in loss and gradients, also over several processes. Two pairs with the same
    text are wrong answers for one another, as there. A random start costs about ``ln(batch)``.

    Args:
        temperature: at first, ``exp(-theta)``; the paper's 0.07.
        max_scale: of ``exp(theta)``; the paper's 100.

    Example:
        >>> import torch
        >>> round(float(CLIP(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "clip"
    paper: ClassVar[str] = "Radford et al. 2021, arXiv:2103.00020"
    needs: ClassVar[str] = "pictures with a text each"

    temperature: float = 0.07
    max_scale: float = 100.0

    def __post_init__(self) -> None:
        if not Learnt.takes(self.temperature, self.max_scale):
            raise InputError(
                f"The objective clip was given temperature={self.temperature:g}, max_scale={self.max_scale:g}. A scale "
                "from 1, and a temperature between its inverse and 1, were expected. Change them."
            )

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)

    def weights(self) -> tuple[float, float]:
        return 0.5, 0.5

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        return cross_entropy(scores, own, reduction="none")
