"""Head of a classifier: pooled features → logits, small, in torch, with everything explanations need of it."""

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
    """The function of pooled features that a head applies before its linear layer."""

    def __call__(self, pooled: Float[Tensor, "b p"], /) -> Float[Tensor, "b d"]: ...

    def slope(self, pooled: Float[Tensor, "b p"], rows: Float[Tensor, "b d"]) -> Float[Tensor, "b p"]:
        """``v`` with ``rows · feature(pooled) = v · pooled + const``, exact if the length is held constant."""
        ...


class Projected:
    """Unit vectors in the space shared with text: ``x = P(pooled) / |P(pooled)|``, ``P`` affine."""

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
    """``logits = scale · feature(pooled) · weightᵀ + bias``, or ``scale · votes(feature(pooled) · weightᵀ) + bias``.

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
        """``target(self(pooled))``, computed from the target's rows alone if it is of classes and these are linear."""
        if self.votes is not None or not isinstance(target, Target):
            return target(self(pooled))
        return self.scale * (self._read(pooled) * target.of(self.weight)).sum(1) + target.of(self.bias)

    def _read(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        read = self.feature(pooled)
        if read.shape[1] != self.weight.shape[1]:
            raise ModelError(
                f"The head reads {self.weight.shape[1]} features per picture, but the encoder gives {read.shape[1]}. "
                "Expected equal numbers. Fit the classifier again with this encoder."
            )
        return read

    def probabilities(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        with torch.no_grad():
            return self(pooled).softmax(1)

    def slope(self, pooled: Float[Tensor, "b p"], target: Target) -> Float[Tensor, "b p"]:
        """``v`` with ``target's logit, less the mean over classes, = v · pooled + const`` on these pictures.

        For a map pooled by the mean, ``v · A_ij / (h w)`` is then the contribution of cell ``ij``, and the
        contributions add up. With votes, ``log Σ exp(s_i) = Σ p_i s_i + H(p)``; the entropy of the pictures' shares
        ``p`` is in the constant.
        """
        if self.votes is not None:
            part = target.over(self.votes, (self.feature(pooled) @ self.weight.T).detach())
            return self.feature.slope(pooled, self.scale * part @ self.weight)
        rows = target.of(self.weight)
        if target.against is None:
            rows = rows - self.weight.mean(0)
        return self.feature.slope(pooled, self.scale * rows)


class TargetFunction(Protocol):
    """What is explained: any differentiable function of the logits that gives one number per picture.

    :class:`Target` is the usual one. Any other function is possible, for example ``lambda logits:
    logits.logsumexp(1)``.
    """

    def __call__(self, logits: Float[Tensor, "b k"], /) -> Float[Tensor, " b"]: ...


@dataclass(frozen=True)
class Target:
    """What is explained, with one class per picture: its logit, or its lead over another class."""

    index: Int[Tensor, " b"]
    against: Int[Tensor, " b"] | None = None

    def __call__(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        mine = logits.gather(1, self.index[:, None])[:, 0]
        return mine if self.against is None else mine - logits.gather(1, self.against[:, None])[:, 0]

    @torch.enable_grad()
    def over(self, votes: Votes | WordDecision, scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The weight of each row: the slope of the target's logit, minus the mean over classes or the other class's
        slope.
        """
        leaf = scores.detach().requires_grad_()
        logits = votes(leaf)
        lead = self(logits) if self.against is not None else self(logits) - logits.mean(1)
        return torch.autograd.grad(lead.sum(), leaf)[0]

    def of(self, weight: Float[Tensor, "k ..."]) -> Float[Tensor, "b ..."]:
        """The target's direction in a linear layer, or its share of the bias."""
        mine = weight[self.index]
        return mine if self.against is None else mine - weight[self.against]
