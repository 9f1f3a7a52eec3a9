"""SimCLR's objective (Chen et al. 2020, arXiv 2002.05709): two views of a picture must find one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...bounds import Bound, Positive
from . import objectives
from .pictures import Beside, Classes, Vectors, Views, contrast


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

    Example:
        >>> views = torch.eye(2)[:, None].repeat(1, 2, 1)
        >>> round(float(SimCLR(temperature=1.0)(views)), 4)  # log(e + 2) - 1
        0.5514
    """

    name: ClassVar[str] = "simclr"
    spelt: ClassVar[str] = "SimCLR"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2002.05709"
    needs: ClassVar[str] = "pictures"

    temperature: Positive = 0.5
    n_views: Annotated[int, Bound(2)] = 2

    def loss(
        self, vectors: Views, labels: Classes, state: Beside, slow: Tensor | None, index: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        return contrast(vectors, torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), self.temperature)
