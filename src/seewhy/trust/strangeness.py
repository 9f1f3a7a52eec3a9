"""Detection of out-of-distribution pictures by means of published scores, each standardised on held-out pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..storage.tensors import compact

RIDGE = 0.3
"""Ridge on covariances, as a share of their mean eigenvalue."""
WIDEST = 2048
"""Width to which wider features are projected at random (Johnson & Lindenstrauss 1984)."""
ABSENT = -1e8
"""Bias of a class without pictures."""
NEIGHBOUR = 3
"""Rank of the nearest neighbour whose distance is used."""
USUAL, SPREAD = 5.0, 20.0
"""Pseudo-counts that shrink a class's mean atypicality, and its mean and deviation of strangeness, to those of all
classes.
"""
N_DISTANCES = 2
"""Number of scores in the strangeness; all scores form the atypicality."""
KINDS = ("white noise", "pink noise", "brown noise", "stripes", "checks", "spots", "ramps", "flat")
"""Kinds of pictures without an object."""


def narrowed(features: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    """Return features with at most :data:`WIDEST` dimensions, by a fixed random projection."""
    d = features.shape[1]
    if d <= WIDEST:
        return features
    return features @ (torch.randn(d, WIDEST, generator=torch.Generator().manual_seed(d)) / WIDEST**0.5)


@dataclass(frozen=True)
class Gaussian:
    """Linear discriminant analysis, as a second classifier on the same features.

        logit_k = μ_k Σ⁻¹ x − ½ μ_k Σ⁻¹ μ_k

    - ``x``: the features of a picture; ``μ_k`` is the mean of class ``k``. The mean ``m`` of all pictures is subtracted
      from both.
    - ``Σ``: the common covariance within classes; ``S`` is the covariance of all pictures.

    Unlike a discriminative classifier, it measures the distance of a picture from a class (Lee et al. 2018,
    arXiv:1807.03888).

    Attributes:
        weight: ``μ_k Σ⁻¹``.
        within: root of ``Σ⁻¹``.
        among: root of ``S⁻¹``.
        flat: scalar part of both inverses (:func:`_root`).
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
        """One boolean per class: whether the class has training pictures."""
        return self.bias != ABSENT

    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return (features - self.middle) @ self.weight.T + self.bias

    def from_all(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Return the squared Mahalanobis distance from the mean of all pictures."""
        return _square(features - self.middle, self.among, float(self.flat[1]))

    def relative(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Return the relative Mahalanobis distance from the nearest class."""
        nearest = self.logits(features).masked_fill(~self.known, -torch.inf).max(1).values
        own = _square(features - self.middle, self.within, float(self.flat[0]))
        return own - 2 * nearest - self.from_all(features)


def _square(x: Float[Tensor, "b d"], root: Float[Tensor, "r d"], flat: float) -> Float[Tensor, " b"]:
    """Return ``x P x`` for the matrix ``P`` of :func:`_root`."""
    along = (x @ root.float().T).square().sum(1)
    return flat * x.square().sum(1) - along if flat else along


def _root(centred: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "r d"], float]:
    """Return the root ``R`` and the scalar ``f`` of a regularised inverse covariance ``P``.

    If there are more pictures than features, ``P = Rᵀ R`` and ``f = 0``. Otherwise, ``P = f I − Rᵀ R`` by Woodbury's
    identity, where ``I`` is the identity.
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


@dataclass(frozen=True)
class Inputs:
    """The features, logits and the encoder's own class probabilities of pictures."""

    features: Float[Tensor, "b d"]
    logits: Float[Tensor, "b k"]
    own: Float[Tensor, "b m"] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: Tensor) -> Inputs:
        return Inputs(self.features[index], self.logits[index], None if self.own is None else self.own[index])


@dataclass(frozen=True)
class Strangeness:
    """Fitted out-of-distribution scores, standardised on held-out pictures.

    The *strangeness* of a picture is the mean of two distances from all training pictures, standardised for the
    predicted class:

    - the distance to the third nearest training picture (Sun et al. 2022, arXiv:2204.06507);
    - the Mahalanobis distance from all training pictures (Kamoi & Kobayashi 2020, arXiv:2003.00402).

    The *atypicality* (``unusual``) of a picture is the mean of these distances and the following scores, minus the mean
    for the predicted class:

    - the relative Mahalanobis distance from the nearest class (Ren et al. 2021, arXiv:2106.09022);
    - the negative margin of the largest logit over the mean logit, divided by the distance from the mean feature (fDBD;
      Liu & Qin 2024, arXiv:2312.11536, without the distances between the weights);
    - the negative probability of the predicted class (Hendrycks & Gimpel 2017, arXiv:1610.02136);
    - the Bhattacharyya distance ``−log Σ_j √(p_j q_j)`` between the encoder's own class probabilities ``p`` and
      their mean ``q`` over training pictures of the predicted class, if the encoder has classes.

    Attributes:
        posteriors: ``√q`` of each class.
        mean: mean of each score on held-out pictures.
        deviation: standard deviation of each score on held-out pictures.
        usual: mean atypicality of each class, shrunk towards 0.
        spread: mean and standard deviation of each class's strangeness, shrunk towards those of all classes.
    """

    gaussian: Gaussian
    bank: Float[Tensor, "n d"]
    posteriors: Float[Tensor, "k m"]
    mean: Float[Tensor, " s"]
    deviation: Float[Tensor, " s"]
    usual: Float[Tensor, " k"]
    spread: Float[Tensor, "k 2"]

    @classmethod
    def fit(
        cls, inputs: Inputs, labels: Tensor, fold: Tensor, gaussian: Gaussian, without: dict[int, Gaussian]
    ) -> tuple[Strangeness, Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Fit the scores, and return them with cross-fitted strangeness and atypicality of the pictures."""
        raw = torch.zeros(len(labels), 5 + (inputs.own is not None))
        for f, others in without.items():
            rest, mine = fold != f, fold == f
            raw[mine] = cls._of(inputs.rows(rest), labels[rest], others).scores(inputs.rows(mine))
        mean, deviation = raw.mean(0), raw.std(0, correction=0).clamp(min=1e-6)
        (strange, unusual), decided = _means((raw - mean) / deviation), inputs.logits.argmax(1)
        count = torch.bincount(decided, minlength=inputs.logits.shape[1])
        usual = torch.zeros(len(count)).index_add(0, decided, unusual) / (count + USUAL)
        spread = _spread(strange, decided, count)
        whole = cls._of(inputs, labels, gaussian)
        fitted = cls(gaussian, whole.bank, whole.posteriors, mean, deviation, usual, spread)
        return fitted, _in_units(strange, spread[decided]), unusual - usual[decided]

    @classmethod
    def _of(cls, inputs: Inputs, labels: Int[Tensor, " n"], gaussian: Gaussian) -> Strangeness:
        """Return the scores before standardisation."""
        k, own = inputs.logits.shape[1], inputs.own
        posteriors = torch.zeros(k, 0)
        if own is not None:
            count = torch.bincount(labels, minlength=k)[:, None]
            posteriors = torch.zeros(k, own.shape[1]).index_add(0, labels, own) / count.clamp(min=1)
            posteriors = compact(torch.where(count > 0, posteriors, own.mean(0)).sqrt())
        zeros = torch.zeros(5 + (own is not None))
        return cls(gaussian, inputs.features, posteriors, zeros, zeros + 1, torch.zeros(k), torch.zeros(k, 2))

    def scores(self, inputs: Inputs) -> Float[Tensor, "b s"]:
        """Return each score of each picture; higher is stranger."""
        x, logits = inputs.features, inputs.logits
        lead = logits.max(1).values - logits.mean(1)
        found = [
            neighbour_distance(x, self.bank, NEIGHBOUR),
            self.gaussian.from_all(x),
            self.gaussian.relative(x),
            -lead / (x - self.gaussian.middle).norm(dim=1).clamp(min=1e-6),
            -logits.softmax(1).max(1).values,
        ]
        if inputs.own is not None and self.posteriors.shape[1]:
            overlap = (inputs.own.sqrt() * self.posteriors.float()[logits.argmax(1)]).sum(1)
            found.append(-overlap.clamp(min=1e-9).log())
        return torch.stack(found, 1)

    def __call__(self, inputs: Inputs) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return the strangeness and the atypicality of pictures."""
        strange, unusual = _means((self.scores(inputs) - self.mean) / self.deviation)
        decided = inputs.logits.argmax(1)
        return _in_units(strange, self.spread[decided]), unusual - self.usual[decided]


def _means(scores: Float[Tensor, "b s"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    return scores[:, :N_DISTANCES].mean(1), scores.mean(1)


def _spread(strange: Float[Tensor, " n"], decided: Int[Tensor, " n"], count: Int[Tensor, " k"]) -> Float[Tensor, "k 2"]:
    """Return the shrunken mean and standard deviation of each class."""
    k, n = len(count), count + SPREAD
    mean = torch.zeros(k).index_add(0, decided, strange) / n + strange.mean() * SPREAD / n
    square = (strange - mean[decided]).square()
    variance = (torch.zeros(k).index_add(0, decided, square) + SPREAD * square.mean()) / n
    return torch.stack([mean, variance.sqrt().clamp(min=1e-6)], 1)


def _in_units(strange: Float[Tensor, " b"], spread: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
    return (strange - spread[:, 0]) / spread[:, 1]


def neighbour_distance(features: Float[Tensor, "b d"], bank: Float[Tensor, "n d"], k: int) -> Float[Tensor, " b"]:
    """Return the distance to the ``k``-th nearest row of ``bank``."""
    cosine = normalize(features, dim=1) @ normalize(bank, dim=1).T
    return (2 - 2 * cosine.topk(min(k, len(bank)), dim=1).values[:, -1]).clamp(min=0).sqrt()


def strangers(n: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """Return ``n`` synthetic pictures without an object, uint8 ``(side, side, 3)``."""
    random, found = np.random.default_rng(seed), []
    for i in range(n):
        values = _grey(KINDS[i % len(KINDS)], side, random)
        first, second = random.uniform(0, 255, (2, 3))
        plane = values if values.ndim == 3 else values[..., None]
        found.append(np.clip(first + (second - first) * plane, 0, 255).astype(np.uint8))
    return found


def _grey(kind: str, side: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    if kind.endswith("noise"):
        power = {"white": 0.0, "pink": 1.0, "brown": 2.0}[kind.split()[0]]
        return _scaled(np.stack([_noise(side, power, random) for _ in range(3)], -1))
    angle, waves = random.uniform(0, np.pi), random.uniform(2, max(side / 8, 3))
    along = (np.cos(angle) * x + np.sin(angle) * y) * waves
    if kind == "stripes":
        return 0.5 + 0.5 * np.sin(2 * np.pi * along)
    if kind == "checks":
        return ((np.floor(x * waves) + np.floor(y * waves)) % 2).astype(float)
    if kind == "spots":
        centres = random.uniform(0, 1, (30, 2))
        near = np.min([(x - a) ** 2 + (y - b) ** 2 for a, b in centres], 0)
        return (near < random.uniform(0.001, 0.01)).astype(float)
    return _scaled(along) if kind == "ramps" else np.full((side, side), 0.5)


def _noise(side: int, power: float, random: np.random.Generator) -> np.ndarray:
    """Return noise whose amplitude is a power of the frequency."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    f[0, 0] = 1.0
    return np.fft.ifft2(np.fft.fft2(random.standard_normal((side, side))) / f**power).real


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1e-9)
