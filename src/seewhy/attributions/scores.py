"""A target's score on changed pictures, whatever function of the logits the target is."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Explainable, Target, TargetFunction

Of = Literal["logit", "probability"]
"""What is watched: the target of the logits, or of the probabilities."""


def engine_logits(model: Explainable, pixels: Float[Tensor, "n 3 h w"], batch_size: int) -> Float[Tensor, "n k"]:
    """Logits in the encoder's engine, ``batch_size`` pictures at a time, without gradients."""
    with torch.no_grad():
        return torch.cat([model.head(model.encoder.pooled(part)) for part in pixels.split(batch_size)])


def scores_of_changes(target: TargetFunction, logits: Float[Tensor, "m b k"], of: Of) -> Float[Tensor, "m b"]:
    """``m`` changed copies of ``b`` pictures; a target that is a function of the logits always gets logits."""
    values = logits.softmax(2) if of == "probability" and isinstance(target, Target) else logits
    return torch.stack([target(copy) for copy in values])


def scores_of_rows(
    target: TargetFunction, logits: Float[Tensor, "n k"], others: Float[Tensor, "b k"], first: int, step: int
) -> Float[Tensor, " n"]:
    """The target on rows that stand for pictures ``first``, ``first + step``, …; the others fill up the batch.

    A target speaks of a whole batch and cannot be cut, so each row is set among constants.
    """
    scores = []
    for r, row in enumerate(logits):
        i = first + r * step
        scores.append(target(torch.cat([others[:i], row[None], others[i + 1 :]]))[i])
    return torch.stack(scores)


def eager_features(model: Explainable, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
    """Features from the plain torch trunk, differentiable, on the pixels' device."""
    trunk = model.encoder.trunk
    device = next((p.device for p in trunk.parameters()), pixels.device)
    return trunk(pixels.to(device)).to(pixels.device)


def eager_logits(model: Explainable, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
    """Logits from the plain torch trunk, differentiable."""
    return model.head(model.encoder.head(eager_features(model, pixels)))
