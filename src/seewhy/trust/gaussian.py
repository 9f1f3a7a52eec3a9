"""A second opinion that costs nothing: every class a Gaussian, all with one covariance (linear discriminant analysis).

It sees the same features as the classifier and knows nothing of its weights, so that a decision it does not share is a
doubtful one; and it says how far a picture lies from a class, which weights that only part classes cannot say (Lee et
al. 2018, arXiv:1807.03888; relative to the distance from all pictures: Ren et al. 2021, arXiv:2106.09022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..storage.tensors import compact

RIDGE = 0.3
"""Added to the diagonal of covariances for decisions, as a part of their mean eigenvalue. Chosen among 0.03 to 10 on
groups left out of one training list and on its validation list; 0.1 to 1 do about as well."""
WIDEST = 2048
"""Wider features are projected at random to this width: pairwise distances change by a few per cent (Johnson &
Lindenstrauss 1984), and the covariance fits into memory."""

ABSENT = -1e8
"""Bias of a class without a picture: finite, so that what is saved is."""


def narrowed(features: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    """Features of at most :data:`WIDEST` numbers, always by the same projection."""
    d = features.shape[1]
    if d <= WIDEST:
        return features
    return features @ (torch.randn(d, WIDEST, generator=torch.Generator().manual_seed(d)) / WIDEST**0.5)


@dataclass(frozen=True)
class Gaussian:
    """Classes as Gaussians with one covariance ``Σ``, of equal weight; ``m`` and ``S`` are mean and covariance of all.

    ``logit_k = μ_k Σ⁻¹ x − ½ μ_k Σ⁻¹ μ_k``, with ``m`` taken away from ``x`` and ``μ_k``, which changes no difference
    and keeps numbers small; of classes without a picture it has no opinion.

    Attributes:
        weight: ``μ_k Σ⁻¹`` of each class.
        bias: ``−½ μ_k Σ⁻¹ μ_k``, :data:`ABSENT` for classes without a picture.
        within: ``Σ⁻¹``, in half precision where that holds it.
        among: ``S⁻¹``, likewise.
        middle: ``m``.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    within: Float[Tensor, "d d"]
    among: Float[Tensor, "d d"]
    middle: Float[Tensor, " d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int) -> Gaussian:
        """Of pictures and their classes."""
        count = torch.bincount(labels, minlength=n_classes)
        means = torch.zeros(n_classes, features.shape[1]).index_add(0, labels, features) / count.clamp(min=1)[:, None]
        middle = features.mean(0)
        within = _inverse_covariance(features - means[labels])
        weight = (means - middle) @ within
        bias = (-0.5 * (weight * (means - middle)).sum(1)).masked_fill(count == 0, ABSENT)
        among = _inverse_covariance(features - middle)
        return cls(weight, bias, compact(within), compact(among), middle)

    @property
    def known(self) -> Bool[Tensor, " k"]:
        """Whether a class has a picture."""
        return self.bias != ABSENT

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return (features - self.middle) @ self.weight.T + self.bias

    def from_all(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``(x − m) S⁻¹ (x − m)``."""
        return _square(features - self.middle, self.among)

    def relative(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``min_k (x − μ_k) Σ⁻¹ (x − μ_k) − (x − m) S⁻¹ (x − m)``."""
        nearest = self.logits(features).masked_fill(~self.known, -torch.inf).max(1).values
        return _square(features - self.middle, self.within) - 2 * nearest - self.from_all(features)


def _square(x: Float[Tensor, "b d"], form: Float[Tensor, "d d"]) -> Float[Tensor, " b"]:
    return ((x @ form.float()) * x).sum(1)


def _inverse_covariance(centred: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """With a ridge added: more of it where pictures differ by no more than rounding.

    Of fewer pictures than features by Woodbury's identity, ``(I − Xᵀ (X Xᵀ + n λ I)⁻¹ X) / λ``: it inverts ``n × n``.
    """
    n, d = centred.shape
    small = n < d
    gram = (centred @ centred.T if small else centred.T @ centred) / n
    ridge = (RIDGE * gram.trace() / d).clamp(min=1e-9)
    eye = torch.eye(len(gram))
    factor, failed = torch.linalg.cholesky_ex(gram + ridge * eye)
    while bool(failed) and ridge < 1:
        ridge = ridge * 10
        factor, failed = torch.linalg.cholesky_ex(gram + ridge * eye)
    if not small:
        return torch.cholesky_inverse(factor)
    half = torch.linalg.solve_triangular(factor, centred, upper=False)
    return (torch.eye(d) - half.T @ half / n) / ridge
