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
        within: root of ``Σ⁻¹``; see :func:`_root`.
        among: of ``S⁻¹``, likewise.
        flat: what goes with either root.
        middle: ``m``.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    within: Float[Tensor, "r d"]
    among: Float[Tensor, "s d"]
    flat: Float[Tensor, " 2"]
    middle: Float[Tensor, " d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int) -> Gaussian:
        """Of pictures and their classes."""
        count = torch.bincount(labels, minlength=n_classes)
        means = torch.zeros(n_classes, features.shape[1]).index_add(0, labels, features) / count.clamp(min=1)[:, None]
        middle = features.mean(0)
        within, flat = _root(features - means[labels])
        among, flat_of_all = _root(features - middle)
        own = means - middle
        weight = flat * own - own @ within.T @ within if flat else own @ within.T @ within
        bias = (-0.5 * (weight * own).sum(1)).masked_fill(count == 0, ABSENT)
        kept = [root if f else root.half() for root, f in ((within, flat), (among, flat_of_all))]
        return cls(weight, bias, kept[0], kept[1], torch.tensor([flat, flat_of_all]), middle)

    @property
    def known(self) -> Bool[Tensor, " k"]:
        """Whether a class has a picture."""
        return self.bias != ABSENT

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return (features - self.middle) @ self.weight.T + self.bias

    def from_all(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``(x − m) S⁻¹ (x − m)``."""
        return _square(features - self.middle, self.among, float(self.flat[1]))

    def relative(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``min_k (x − μ_k) Σ⁻¹ (x − μ_k) − (x − m) S⁻¹ (x − m)``."""
        nearest = self.logits(features).masked_fill(~self.known, -torch.inf).max(1).values
        own = _square(features - self.middle, self.within, float(self.flat[0]))
        return own - 2 * nearest - self.from_all(features)


def _square(x: Float[Tensor, "b d"], root: Float[Tensor, "r d"], flat: float) -> Float[Tensor, " b"]:
    """``x P x`` of what :func:`_root` gives."""
    along = (x @ root.float().T).square().sum(1)
    return flat * x.square().sum(1) - along if flat else along


def _root(centred: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "r d"], float]:
    """``R`` and ``f`` of an inverse covariance ``P``, with a ridge added: more of it where rounding alone differs.

    ``P = Rᵀ R`` with ``f = 0``, ``d × d``, no entry beyond half precision thanks to the ridge; of fewer pictures than
    features ``P = f I − Rᵀ R``, ``n × d``, by Woodbury's identity ``(I − Xᵀ (X Xᵀ + n λ I)⁻¹ X) / λ``: nothing of
    ``d × d`` is made.
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
    root = torch.linalg.solve_triangular(factor, centred if small else eye, upper=False)
    return (root / (n * ridge).sqrt(), float(1 / ridge)) if small else (root, 0.0)
