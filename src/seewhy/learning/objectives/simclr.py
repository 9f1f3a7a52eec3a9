"""SimCLR's objective (Chen et al. 2020, arXiv 2002.05709): two views of a picture must find one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError
from . import objectives
from .pictures import Beside
from .vectors import Vectors, contrast


@objectives.register
@dataclass(frozen=True)
class SimCLR(Vectors):
    """Each view of a picture must find its other view among all views of the batch, without any class.

    NT-Xent (equation 1): ``-log(exp(s_ij / t) / sum_{k != i} exp(s_ik / t))`` for the two views ``i``, ``j`` of a
    picture, on average over all views; ``s`` are cosines.

    Equal to ``SupConLoss`` of SupContrast without labels, in loss and gradients. The default temperature is that of
    SupContrast's command for SimCLR; the paper finds 0.1 to 0.5 best, by batch and epochs.

    Args:
        temperature: of the cosines.
        n_views: of each picture; with more than two each must find all others.

    Raises:
        InputError: a temperature that is not above 0, or fewer than two views.

    Example:
        >>> views = torch.eye(2)[:, None].repeat(1, 2, 1)
        >>> round(float(SimCLR(temperature=1.0)(views)), 4)  # log(e + 2) - 1
        0.5514
    """

    name: ClassVar[str] = "simclr"
    spelt: ClassVar[str] = "SimCLR"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2002.05709"
    needs: ClassVar[str] = "pictures"

    temperature: float = 0.5
    n_views: int = 2

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.n_views < 2:
            raise InputError(
                f"The objective simclr was given temperature={self.temperature:g}, n_views={self.n_views}. A "
                "temperature above zero and two views or more were expected. Change them."
            )

    def loss(
        self,
        vectors: Float[Tensor, "b v d"],
        labels: Int[Tensor, " b"] | None,
        state: Beside,
        slow: Tensor | None,
        index: Int[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        return contrast(vectors, torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), self.temperature)
