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
from .novelty import RIDGE

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

    ``logit_k = μ_k Σ⁻¹ x − ½ μ_k Σ⁻¹ μ_k``; of classes without a picture it has no opinion.

    Attributes:
        weight: ``μ_k Σ⁻¹`` of each class.
        bias: ``−½ μ_k Σ⁻¹ μ_k``, :data:`ABSENT` for classes without a picture.
        form: ``Σ⁻¹ − S⁻¹``, in half precision where that holds it.
        slope: ``2 m S⁻¹``.
        height: ``−m S⁻¹ m``.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    form: Float[Tensor, "d d"]
    slope: Float[Tensor, " d"]
    height: Float[Tensor, ""]

    @property
    def known(self) -> Bool[Tensor, " k"]:
        """Whether a class has a picture."""
        return self.bias > ABSENT / 2

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return features @ self.weight.T + self.bias

    def strangeness(self, features: Float[Tensor, "b d"], of: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """``(x − μ_k) Σ⁻¹ (x − μ_k) − (x − m) S⁻¹ (x − m)`` for this class of each.

        For a class without a picture, the nearest.
        """
        logits = self.logits(features)
        mine = logits.gather(1, of[:, None])[:, 0]
        mine = torch.where(self.known[of], mine, logits.max(1).values)
        both = ((features @ self.form.float()) * features).sum(1)
        return both + features @ self.slope + self.height - 2 * mine


@dataclass(frozen=True)
class Moments:
    """Sums over blocks of pictures, from which a Gaussian without any of the blocks follows at once.

    A block is a fold and a part of the classes, so that leaving out pictures or classes costs one Cholesky factor and
    no second pass over the pictures.

    Attributes:
        count: pictures of each fold and class.
        total: sum of their features.
        gram: ``Σ x xᵀ`` of each fold and part.
        part: which part each class belongs to.
    """

    count: Float[Tensor, "f k"]
    total: Float[Tensor, "f k d"]
    gram: Float[Tensor, "f p d d"]
    part: Int[Tensor, " k"]

    @classmethod
    def of(
        cls, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], fold: Int[Tensor, " n"], part: Int[Tensor, " k"]
    ) -> Moments:
        """Of pictures, their classes, the fold each is held out in, and the part each class belongs to."""
        n_folds, k, d = int(fold.max()) + 1, len(part), features.shape[1]
        place = fold * k + labels
        count = torch.bincount(place, minlength=n_folds * k).float().view(n_folds, k)
        total = torch.zeros(n_folds * k, d).index_add(0, place, features).view(n_folds, k, d)
        n_parts = int(part.max()) + 1
        gram = torch.zeros(n_folds, n_parts, d, d)
        for f in range(n_folds):
            for p in range(n_parts):
                rows = features[(fold == f) & (part[labels] == p)]
                gram[f, p] = rows.T @ rows
        return cls(count, total, gram, part)

    def gaussian(self, without_fold: int | None = None, without_part: int | None = None) -> Gaussian:
        """Of all pictures but those of a fold and of a part of the classes."""
        folds = [f for f in range(len(self.count)) if f != without_fold]
        parts = [p for p in range(self.gram.shape[1]) if p != without_part]
        kept = torch.isin(self.part, torch.tensor(parts))
        count = self.count[folds].sum(0) * kept
        total = self.total[folds].sum(0) * kept[:, None]
        gram = sum((self.gram[f, p] for f in folds for p in parts), torch.zeros_like(self.gram[0, 0]))
        n = count.sum().clamp(min=1)
        means = total / count.clamp(min=1)[:, None]
        middle = total.sum(0) / n
        within = _inverse(gram / n - (means * (count / n)[:, None]).T @ means)
        among = _inverse(gram / n - middle[:, None] * middle)
        weight, at = means @ within, middle @ among
        bias = (-0.5 * (weight * means).sum(1)).masked_fill(count == 0, ABSENT)
        return Gaussian(weight, bias, compact(within - among), 2 * at, -(at @ middle))


def _inverse(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """With a ridge added: more of it where pictures differ by no more than rounding."""
    d = len(covariance)
    ridge = (RIDGE * covariance.trace() / d).clamp(min=1e-9)
    factor, failed = torch.linalg.cholesky_ex(covariance + ridge * torch.eye(d))
    while bool(failed) and ridge < 1:
        ridge = ridge * 10
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge * torch.eye(d))
    return torch.cholesky_inverse(factor)
