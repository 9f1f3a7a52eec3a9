"""ConVIRT's objective (Zhang et al. 2020, arXiv 2010.00747): both directions, unequally; a sentence of each report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...errors import InputError
from . import objectives
from .contrastive import Contrastive, Fixed, Temperature
from .spans import Span


@objectives.register
@dataclass(frozen=True)
class ConVIRT(Contrastive):
    """Each picture must find a sentence of its own report, and, which counts less, each sentence its picture.

    ``s_ij = cos(image_i, text_j) / tau``; ``loss = lam mean_i CE(s_i·, i) + (1 - lam) mean_j CE(s_·j, j)`` (equations 2
    to 4). Which sentence of a report is drawn anew at every step.

    The authors published no training code; equal to ``NTXentLoss`` of the port that is used most. That port's text
    side gets no gradient, and this one's does. Two reports that say the same ("no effusion") are wrong answers for one
    another, as in the paper.

    Args:
        temperature: ``tau``, which is not learnt; the paper's 0.1.
        lam: weight of pictures over sentences; the paper's 0.75.
        spans: what is drawn of a report, ``"sentence"``, or ``"text"`` for the whole.

    Example:
        >>> import torch
        >>> round(float(ConVIRT(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "convirt"
    paper: ClassVar[str] = "Zhang et al. 2020, arXiv:2010.00747"
    needs: ClassVar[str] = "pictures with a report each"

    temperature: float = 0.1
    lam: float = 0.75
    spans: Span = "sentence"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf") or not 0 <= self.lam <= 1 or self.spans not in ("sentence", "text"):
            raise InputError(
                f"The objective convirt was given temperature={self.temperature:g}, lam={self.lam:g}, "
                f"spans={self.spans!r}. A temperature above zero, a lam from 0 to 1, and 'sentence' or 'text', were "
                "expected. Change them."
            )

    def state(self) -> Temperature:
        return Fixed(1 / self.temperature)

    def weights(self) -> tuple[float, float]:
        return self.lam, 1 - self.lam

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        return cross_entropy(scores, own, reduction="none")
