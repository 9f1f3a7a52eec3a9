"""Classifier heads, from pooled features to logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..encoders.base import TextTower
from ..errors import ModelError
from .votes import Votes, WordDecision


class Feature(Protocol):
    """Protocol of the function applied to pooled features before the linear layer."""

    def __call__(self, pooled: Float[Tensor, "b p"], /) -> Float[Tensor, "b d"]: ...

    def slope(self, pooled: Float[Tensor, "b p"], rows: Float[Tensor, "b d"]) -> Float[Tensor, "b p"]:
        """Return ``v`` such that ``rows · feature(pooled) = v · pooled + const``; the norm counts as a constant."""
        ...


class Projected:
    """Affine projection of pooled features, normalised to unit vectors in the space shared with texts."""

    def __init__(self, tower: TextTower) -> None:
        self.tower = tower

    def __call__(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return normalize(self.tower.project(pooled), dim=1)

    @torch.enable_grad()
    def slope(self, pooled: Float[Tensor, "b p"], rows: Float[Tensor, "b d"]) -> Float[Tensor, "b p"]:
        leaf = pooled.detach().requires_grad_()
        point = self.tower.project(leaf)
        score = ((point * rows).sum(1) / point.detach().norm(dim=1)).sum()
        return torch.autograd.grad(score, leaf)[0]


class Head(nn.Module):
    """Classifier head.

        logits = scale · feature(pooled) · weightᵀ + bias
        logits = scale · votes(feature(pooled) · weightᵀ) + bias    with votes

    ``weight`` has one row per class or, with votes, one row per picture or sentence.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        feature: Feature,
        weight: Float[Tensor, "r d"],
        bias: Float[Tensor, " k"] | None = None,
        scale: float = 1.0,
        votes: Votes | WordDecision | None = None,
    ) -> None:
        super().__init__()
        self.feature, self.scale, self.votes = feature, scale, votes
        n_classes = len(weight) if votes is None else votes.n_classes
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", torch.zeros(n_classes) if bias is None else bias.detach().clone())

    def forward(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        read = self._read(pooled)
        if self.votes is not None:
            return self.scale * self.votes(read @ self.weight.T) + self.bias
        return self.scale * read @ self.weight.T + self.bias

    def score(self, pooled: Float[Tensor, "b p"], target: TargetFunction) -> Float[Tensor, " b"]:
        if self.votes is not None or not isinstance(target, Target):
            return target(self(pooled))
        return self.scale * (self._read(pooled) * target.of(self.weight)).sum(1) + target.of(self.bias)

    def _read(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        read = self.feature(pooled)
        if read.shape[1] != self.weight.shape[1]:
            raise ModelError(
                f"The classifier head needs {self.weight.shape[1]} features per picture, but the encoder returns "
                f"{read.shape[1]}. Fit the classifier again with this encoder."
            )
        return read

    def probabilities(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        with torch.no_grad():
            return self(pooled).softmax(1)

    def slope(self, pooled: Float[Tensor, "b p"], target: Target) -> Float[Tensor, "b p"]:
        """Return ``v`` such that the target's logit, minus the mean logit, is ``v · pooled + const`` on these pictures.

        With mean pooling, ``v · A_ij / (h w)`` is the contribution of patch ``ij``, where ``A`` is the ``h × w``
        feature map; contributions are additive. With votes, a logit is

            log Σ exp(s_i) = Σ p_i s_i + H(p)

        where ``s_i`` is the score of picture ``i``, ``p_i`` its share of the vote, and the entropy ``H(p)`` part of the
        constant.
        """
        if self.votes is not None:
            part = target.over(self.votes, (self.feature(pooled) @ self.weight.T).detach())
            return self.feature.slope(pooled, self.scale * part @ self.weight)
        rows = target.of(self.weight)
        if target.against is None:
            rows = rows - self.weight.mean(0)
        return self.feature.slope(pooled, self.scale * rows)


class TargetFunction(Protocol):
    """Protocol of the function to explain: a differentiable function from logits to one number per picture.

    Examples are :class:`Target` and ``lambda logits: logits.logsumexp(1)``.
    """

    def __call__(self, logits: Float[Tensor, "b k"], /) -> Float[Tensor, " b"]: ...


@dataclass(frozen=True)
class Target:
    """The logit of one class per picture, or its difference from the logit of another class."""

    index: Int[Tensor, " b"]
    against: Int[Tensor, " b"] | None = None

    def __call__(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        mine = logits.gather(1, self.index[:, None])[:, 0]
        return mine if self.against is None else mine - logits.gather(1, self.against[:, None])[:, 0]

    @torch.enable_grad()
    def over(self, votes: Votes | WordDecision, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Return the target's gradient by row scores; without ``against``, it is the logit minus the mean logit."""
        leaf = scores.detach().requires_grad_()
        logits = votes(leaf)
        lead = self(logits) if self.against is not None else self(logits) - logits.mean(1)
        return torch.autograd.grad(lead.sum(), leaf)[0]

    def of(self, weight: Float[Tensor, "k ..."]) -> Float[Tensor, "b ..."]:
        """Return the target's row of a weight matrix, or its entry of a bias."""
        mine = weight[self.index]
        return mine if self.against is None else mine - weight[self.against]
