"""How unlike its training pictures a picture is: means of published scores, each in its own deviations.

No score is best everywhere: of pictures of another world distances tell most, of a class that was left out the place
among the classes and what the encoder itself takes the picture for. Means need no pictures of no class to be fitted
on, which few classes cannot give (benchmarks/strangers.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..storage.tensors import compact
from .gaussian import Gaussian

NEIGHBOUR = 3
"""Which nearest training picture is measured to. Chosen with the other scores on training lists of groceries, clothes,
CIFAR and blood cells (benchmarks/strangers.py)."""
USUAL, SPREAD = 5.0, 20.0
"""Pictures by which a class's mean of the unusual is drawn towards that of all; mean and deviation of the strange."""
N_DISTANCES = 2
"""Scores whose mean tells other worlds; that of the others tells other classes."""


@dataclass(frozen=True)
class Inputs:
    """Of pictures, what trust is made of.

    Attributes:
        features: what :func:`~seewhy.trust.measure.trust_features` makes of pooled features.
        logits: of the classifier.
        own: probabilities of the encoder's own classes, where it has some.
    """

    features: Float[Tensor, "b d"]
    logits: Float[Tensor, "b k"]
    own: Float[Tensor, "b m"] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: Tensor) -> Inputs:
        """Of some pictures, by their places or flags."""
        return Inputs(self.features[index], self.logits[index], None if self.own is None else self.own[index])


@dataclass(frozen=True)
class Strangeness:
    """The scores, as they were fitted, and what is usual for them on held-out pictures.

    How *strange* a picture is, is the mean of the two distances from all training pictures, in the deviations of the
    class decided for, so that a class of very different pictures does not make room for strangers in the others. How
    *unusual* it is, is the mean of the other scores, less what is usual for that class.

    - distance to the third nearest training picture (Sun et al. 2022, arXiv:2204.06507);
    - Mahalanobis distance from all training pictures (the marginal one of Kamoi & Kobayashi 2020, arXiv:2003.00402);
    - the same from the nearest class, less that (relative; Ren et al. 2021, arXiv:2106.09022);
    - how little the largest logit stands above their mean, by the distance from the mean feature (fDBD; Liu & Qin 2024,
      arXiv:2312.11536, whose distances between the weights are left out: they need a linear classifier, and on one they
      change nothing here);
    - minus the probability of the class decided for (Hendrycks & Gimpel 2017, arXiv:1610.02136);
    - ``−log Σ_j √(p_j q_j)``, ``p`` what the encoder takes the picture for among its own classes and ``q`` the mean of
      that over the training pictures of the class decided for (Bhattacharyya 1943); left out where it has none.

    Attributes:
        gaussian: of the training pictures.
        bank: their features.
        posteriors: ``√q`` of each class, no column where the encoder has no classes of its own.
        mean, deviation: of each score on held-out pictures.
        usual: what the others are on average on held-out pictures that each class was decided for, drawn towards 0.
        spread: mean and deviation of the two distances' mean on those pictures, drawn towards those of all.
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
        cls,
        inputs: Inputs,
        labels: Int[Tensor, " n"],
        fold: Int[Tensor, " n"],
        gaussian: Gaussian,
        without: dict[int, Gaussian],
    ) -> tuple[Strangeness, Float[Tensor, " n"], Float[Tensor, " n"]]:
        """With how strange and how unusual the pictures themselves are, by scores that saw none of their fold."""
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
        """Scores in no unit yet."""
        k, own = inputs.logits.shape[1], inputs.own
        posteriors = torch.zeros(k, 0)
        if own is not None:
            count = torch.bincount(labels, minlength=k)[:, None]
            posteriors = torch.zeros(k, own.shape[1]).index_add(0, labels, own) / count.clamp(min=1)
            posteriors = compact(torch.where(count > 0, posteriors, own.mean(0)).sqrt())
        n_scores = 5 + (own is not None)
        return cls(
            gaussian,
            inputs.features,
            posteriors,
            torch.zeros(n_scores),
            torch.ones(n_scores),
            torch.zeros(k),
            torch.zeros(k, 2),
        )

    def scores(self, inputs: Inputs) -> Float[Tensor, "b s"]:
        """Each score of each picture, higher is stranger."""
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
        """How strange pictures are, and how unusual for the class decided for, in deviations of held-out pictures."""
        strange, unusual = _means((self.scores(inputs) - self.mean) / self.deviation)
        decided = inputs.logits.argmax(1)
        return _in_units(strange, self.spread[decided]), unusual - self.usual[decided]


def _means(scores: Float[Tensor, "b s"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    return scores[:, :N_DISTANCES].mean(1), scores[:, N_DISTANCES:].mean(1)


def _spread(strange: Float[Tensor, " n"], decided: Int[Tensor, " n"], count: Int[Tensor, " k"]) -> Float[Tensor, "k 2"]:
    """Mean and deviation of each class, drawn towards those of all."""
    k, n = len(count), count + SPREAD
    mean = torch.zeros(k).index_add(0, decided, strange) / n + strange.mean() * SPREAD / n
    square = (strange - mean[decided]).square()
    variance = (torch.zeros(k).index_add(0, decided, square) + SPREAD * square.mean()) / n
    return torch.stack([mean, variance.sqrt().clamp(min=1e-6)], 1)


def _in_units(strange: Float[Tensor, " b"], spread: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
    return (strange - spread[:, 0]) / spread[:, 1]


def neighbour_distance(features: Float[Tensor, "b d"], bank: Float[Tensor, "n d"], k: int) -> Float[Tensor, " b"]:
    """To the ``k``-th nearest of a bank, or the last, all of unit length."""
    cosine = normalize(features, dim=1) @ normalize(bank, dim=1).T
    return (2 - 2 * cosine.topk(min(k, len(bank)), dim=1).values[:, -1]).clamp(min=0).sqrt()
