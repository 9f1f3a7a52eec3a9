"""How unlike its training pictures a picture is: published scores, one class each, higher is stranger.

All read one look: the feature before the last layer, of unit length or not, and the logits. ``x`` is a picture's
feature, ``X`` those trained on, ``μ_k`` a class's mean, ``W x + b`` the logits. ``fit`` takes what was trained on and
gives a function of features and logits. The hyperparameters are the papers'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

RIDGE = 0.3
"""Added to the diagonal of covariances for decisions, as a part of their mean eigenvalue. Chosen among 0.03 to 10 on
groups left out of one training list and on its validation list (benchmarks/trust.py); 0.1 to 1 do about as well."""

Strangeness = Callable[[Tensor, Tensor], Tensor]
"""Features ``(b, d)`` and logits ``(b, k)`` of pictures → how strange each one is ``(b,)``."""


@dataclass(frozen=True)
class Known:
    """What a classifier was trained on.

    Attributes:
        features: what the last layer reads, one row a picture.
        labels: index of each one's class.
        logits: of these pictures.
        weight: of a linear last layer, if it is one.
        bias: of it.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n k"]
    weight: Float[Tensor, "k d"] | None = None
    bias: Float[Tensor, " k"] | None = None

    def means(self) -> tuple[Float[Tensor, "c d"], Float[Tensor, "n d"]]:
        """Mean of each class that is there, and every feature less its own class's mean; in double precision."""
        _, place = self.labels.unique(return_inverse=True)
        x = self.features.double()
        count = torch.bincount(place).double()
        means = torch.zeros(len(count), x.shape[1], dtype=torch.double).index_add(0, place, x) / count[:, None]
        return means, x - means[place]


@dataclass(frozen=True)
class Novelty(ABC):
    """A published score."""

    name: ClassVar[str]
    paper: ClassVar[str]

    @abstractmethod
    def fit(self, known: Known) -> Strangeness:
        """The score, made from what was trained on."""


@dataclass(frozen=True)
class MaxProbability(Novelty):
    """``−max_k softmax(logits)_k``."""

    name: ClassVar[str] = "probability"
    paper: ClassVar[str] = "Hendrycks & Gimpel 2017, arXiv:1610.02136"

    def fit(self, known: Known) -> Strangeness:
        return lambda _features, logits: -logits.softmax(1).max(1).values


@dataclass(frozen=True)
class MaxLogit(Novelty):
    """``−max_k logit_k``."""

    name: ClassVar[str] = "logit"
    paper: ClassVar[str] = "Hendrycks et al. 2022, arXiv:1911.11132"

    def fit(self, known: Known) -> Strangeness:
        return lambda _features, logits: -logits.max(1).values


@dataclass(frozen=True)
class Energy(Novelty):
    """``−log Σ_k exp(logit_k)``, at temperature 1."""

    name: ClassVar[str] = "energy"
    paper: ClassVar[str] = "Liu et al. 2020, arXiv:2010.03759"

    def fit(self, known: Known) -> Strangeness:
        return lambda _features, logits: -logits.logsumexp(1)


@dataclass(frozen=True)
class NearestNeighbour(Novelty):
    """Distance to the ``k``-th nearest training feature, all of unit length.

    Args:
        k: which neighbour; the paper chooses it on validation data and takes 50 where there are 50,000 pictures.
    """

    name: ClassVar[str] = "neighbour"
    paper: ClassVar[str] = "Sun et al. 2022, arXiv:2204.06507"
    k: int = 1

    def fit(self, known: Known) -> Strangeness:
        bank = normalize(known.features, dim=1)
        k = min(self.k, len(bank))

        def score(features: Tensor, _logits: Tensor) -> Tensor:
            nearest = (normalize(features, dim=1) @ bank.T).topk(k, dim=1).values[:, -1]
            return (2 - 2 * nearest).clamp(min=0).sqrt()

        return score


@dataclass(frozen=True)
class Mahalanobis(Novelty):
    """``min_k (x − μ_k)ᵀ Σ⁻¹ (x − μ_k)``, ``Σ`` the covariance within classes (Lee et al.'s last layer alone).

    Args:
        relative: less the same distance from the mean of all under the covariance of all (Ren et al.).
        ridge: added to the covariance, as a part of its mean eigenvalue; with fewer pictures than features it has no
            inverse otherwise.
    """

    name: ClassVar[str] = "mahalanobis"
    paper: ClassVar[str] = "Lee et al. 2018, arXiv:1807.03888; relative: Ren et al. 2021, arXiv:2106.09022"
    relative: bool = False
    ridge: float = 1e-3

    def fit(self, known: Known) -> Strangeness:
        means, centred = known.means()
        within = _inverse(centred, self.ridge)
        middle = known.features.double().mean(0)
        among = _inverse(known.features.double() - middle, self.ridge)

        def score(features: Tensor, _logits: Tensor) -> Tensor:
            x = features.double()
            at = means @ within
            distance = ((x @ within) * x).sum(1, keepdim=True) - 2 * x @ at.T + (at * means).sum(1)
            nearest = distance.min(1).values
            if self.relative:
                away = x - middle
                nearest = nearest - ((away @ among) * away).sum(1)
            return nearest.float()

        return score


def _inverse(centred: Float[Tensor, "n d"], ridge: float) -> Float[Tensor, "d d"]:
    covariance = centred.T @ centred / len(centred)
    d = len(covariance)
    return torch.linalg.inv(covariance + ridge * covariance.trace() / d * torch.eye(d, dtype=covariance.dtype))


@dataclass(frozen=True)
class ViM(Novelty):
    """Virtual-logit matching: the feature's length outside the principal subspace as one more logit, less the energy.

    ``α |R (x − u)| − log Σ_k exp(logit_k)``, ``u = −W⁺ b``, ``R`` the directions beside the ``D`` principal ones of
    ``X − u``, ``α`` the mean largest logit by the mean length. ``D`` is 1000 for features wider than 2048,
    512 for those wider than 768, and half the width for others, as the authors' code has it. A last layer that is not
    linear has no ``u``; the mean feature takes its place.
    """

    name: ClassVar[str] = "vim"
    paper: ClassVar[str] = "Wang et al. 2022, arXiv:2203.10807"

    def fit(self, known: Known) -> Strangeness:
        x = known.features.double()
        origin = x.mean(0)
        if known.weight is not None and known.bias is not None:
            origin = -torch.linalg.pinv(known.weight.double()) @ known.bias.double()
        d = x.shape[1]
        principal = 1000 if d >= 2048 else 512 if d >= 768 else d // 2
        _, directions = torch.linalg.eigh((x - origin).T @ (x - origin) / len(x))
        outside = directions[:, : d - principal]
        scale = known.logits.double().max(1).values.mean() / ((x - origin) @ outside).norm(dim=1).mean()

        def score(features: Tensor, logits: Tensor) -> Tensor:
            virtual = ((features.double() - origin) @ outside).norm(dim=1) * scale
            return (virtual - logits.double().logsumexp(1)).float()

        return score


PUBLISHED: tuple[Novelty, ...] = (
    MaxProbability(),
    MaxLogit(),
    Energy(),
    NearestNeighbour(),
    Mahalanobis(),
    Mahalanobis(relative=True),
    ViM(),
)
"""Those that are compared (benchmarks/trust.py)."""
