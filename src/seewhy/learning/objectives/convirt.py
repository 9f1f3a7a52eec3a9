"""ConVIRT's objective (Zhang et al. 2020, arXiv 2010.00747): both directions, unequally; a sentence of each report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...bounds import Part, Positive
from . import objectives
from .contrastive import Contrastive, Fixed, Temperature


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

    temperature: Positive = 0.1
    lam: Part = 0.75
    spans: Literal["sentence", "text"] = "sentence"

    def state(self) -> Temperature:
        return Fixed(1 / self.temperature)

    def weights(self) -> tuple[float, float]:
        return self.lam, 1 - self.lam
