"""How sure a name is of a box: what a trained detector says of it and what frozen words say, blended (DITO, F-VLM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Blend:
    """The geometric mean of two probabilities, with more of the frozen words where a class was never trained on.

    ``s_k = p_k^(1 - w_k) z_k^(w_k)``, ``w`` is ``alpha`` for base classes and ``beta`` for all others; the background's
    is ``p`` alone, then each row is brought to 1, and multiplied by the objectness to the power of ``objectness``.
    Where nobody says which classes are base, ``beta`` counts for all, as in the authors' code: those that were trained
    on then lose some of what the detector knows.

    Equal to ``ensemble_class_outputs`` of the authors. The softmax couples the names: one name more changes all scores.

    Args:
        alpha: of base classes; the paper's .35.
        beta: of others; the paper's .65.
        objectness: power of the objectness; the authors' 3. 0 leaves it out, as F-VLM does.

    Raises:
        InputError: a weight outside 0 to 1, or a negative power.

    Example:
        >>> p, z = torch.tensor([[0.5, 0.4, 0.1]]).log(), torch.tensor([[0.2, 0.2, 0.6]]).log()
        >>> [round(v, 3) for v in Blend(objectness=0)(p, z)[0].tolist()]
        [0.465, 0.237, 0.298]
    """

    alpha: float = 0.35
    beta: float = 0.65
    objectness: float = 3.0

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and 0 <= self.beta <= 1 and 0 <= self.objectness < float("inf")):
            raise InputError(
                f"A blend was given alpha={self.alpha:g}, beta={self.beta:g}, objectness={self.objectness:g}. Two "
                "weights from 0 to 1, and a power from 0 on, were expected. Change them."
            )

    def __call__(
        self,
        detector: Float[Tensor, "n k"],
        words: Float[Tensor, "n k"],
        is_base: Bool[Tensor, " names"] | None = None,
        objectness: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n k"]:
        """Scores of boxes; the first column is the background.

        Args:
            detector: logits of the trained head, background first.
            words: logits of the frozen encoder, background first: it is part of their softmax and then left out.
            is_base: which names were trained on, without the background.
            objectness: of each box, 0 to 1.
        """
        p, z = detector.log_softmax(1), words.log_softmax(1)
        names = torch.zeros(p.shape[1] - 1, dtype=torch.bool, device=p.device) if is_base is None else is_base
        w = torch.where(names, self.alpha, self.beta).to(p)
        both = torch.cat([p[:, :1], (1 - w) * p[:, 1:] + w * z[:, 1:]], 1)
        scores = both.softmax(1)
        return scores if objectness is None or not self.objectness else scores * objectness[:, None] ** self.objectness


def shrunk(boxes: Float[Tensor, "n 4"], part: float) -> Float[Tensor, "n 4"]:
    """Boxes about the same middle, each side so much of what it was.

    Example:
        >>> shrunk(torch.tensor([[0.0, 0.0, 10.0, 20.0]]), 0.5).tolist()
        [[2.5, 5.0, 7.5, 15.0]]
    """
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (part / 2)
    return torch.cat([middle - half, middle + half], 1)
