"""CLIP's objective (Radford et al. 2021, arXiv 2103.00020): the symmetric cross entropy, at a scale that is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import objectives
from .contrastive import LearntScale


@objectives.register
@dataclass(frozen=True)
class CLIP(LearntScale):
    """Each picture must find its own text among those of the batch, and each text its own picture.

    ``s_ij = exp(theta) cos(image_i, text_j)``; ``loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2`` (section 2.3).
    ``theta`` is learnt, and held between 0 and ``ln(max_scale)`` after each step, as open_clip does.

    Equal to ``open_clip.loss.ClipLoss`` in loss and gradients, also over several processes. Two pairs with the same
    text are wrong answers for one another, as there. A random start costs about ``ln(batch)``.

    Example:
        >>> import torch
        >>> round(float(CLIP(temperature=1.0)(torch.eye(2), torch.eye(2))), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "clip"
    paper: ClassVar[str] = "Radford et al. 2021, arXiv:2103.00020"
