"""Weighted k-nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..bounds import Count, Natural, Positive
from ..encoders.base import Encoder
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..heads.votes import Votes, class_logits, nearest_scores
from ..prototypes.voters import measure_removal
from . import classifiers
from .base import Classifier
from .encoded_set import EncodedSet, with_logits
from .fitting import Fitting, Outcome, PictureRecipe
from .linear.jitter import crops_by_name

KS = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2)
"""Temperatures of the vote: a picture whose cosine similarity is larger by ``T`` has ``e`` times the weight."""

SCALES = tuple(2.0 ** (e / 4) for e in range(-12, 13))
N_ASKED = 2000
"""Maximum number of pictures for leave-one-out validation; more change little."""


@classifiers.register
@dataclass(frozen=True)
class Neighbours(PictureRecipe):
    """Weighted k-nearest neighbours on the features of your pictures.

    The logit of class ``c`` is (see :class:`~seewhy.heads.votes.Votes`)

        logit_c = scale * log Σ_{i ∈ N_c} exp(cos(x, x_i) / T)

    where ``x`` are the picture's features, ``x_i`` those of training picture ``i``, ``N_c`` the neighbours of class
    ``c``, and ``T`` the temperature. ``k`` and ``T`` are chosen by leave-one-out accuracy, with ties decided by the
    likelihood; ``scale`` maximises the likelihood. A picture is left out together with its crops, its copies and other
    pictures of the same object.

    Where we differ: Wu et al. use k = 200 and T = 0.07. Here, the nearest picture of every class always votes, so that
    every class has a finite logit.

    Args:
        k: number of neighbours; default: chosen by leave-one-out validation.
        temperature: temperature of the vote; default: chosen by leave-one-out validation.
        n_crops: number of random crops per picture, which also vote.
        power: exponent of the signed power normalisation of the features.
    """

    name = "neighbours"
    paper = "Wu et al. 2018, arXiv:1805.01978"
    needs = "labelled pictures"

    k: Count | None = None
    temperature: Positive | None = None
    n_crops: Natural = 0
    power: Positive = 1.0
    n_bank: int = 1000

    def learn(self, fitting: Fitting) -> Outcome:
        pictures = fitting.look(
            views=lambda sample: crops_by_name(sample.image, self.n_crops, self.seed), n_bank=self.n_bank
        )
        chosen = self._choose(pictures)
        trial = self._classifier(fitting.encoder, pictures, ~pictures.held, chosen)
        plain = self._classifier(fitting.encoder, pictures, pictures.final, chosen)
        held = with_logits(trial.head, pictures.held_out())
        figures = {
            "removal": None if held is None else measure_removal(trial.head, held.pooled[:N_ASKED]),
            "leave_one_out_accuracy": None if chosen.accuracy is None else round(chosen.accuracy, 4),
            "k": chosen.k,
            "temperature": chosen.temperature,
            "scale": round(chosen.scale, 4),
        }
        return Outcome(replace(plain, held_out=held), pictures, figures, trial)

    def _choose(self, pictures: EncodedSet) -> _Choice:
        """Choose ``k``, temperature and scale by leave-one-out validation."""
        x, y, picture = pictures.rows(~pictures.held)
        x, same = Normalise(self.power, l2=True)(x), pictures.groups[picture]
        first = torch.cat([torch.ones(1, dtype=torch.bool), picture[1:] != picture[:-1]]).nonzero()[:, 0]
        drawn = torch.randperm(len(first), generator=torch.Generator().manual_seed(self.seed))[:N_ASKED]
        asked = first[drawn.sort().values]
        counts = torch.bincount(y[first], minlength=len(pictures.classes))
        asked = asked[counts[y[asked]] > 1]  # the only picture of a class cannot be right when it is left out
        ks = KS if self.k is None else (self.k,)
        if not len(asked):
            return _Choice(ks[0], self.temperature or 0.07, 1.0, None)
        found = []
        for part in asked.split(256):
            scores = x[part] @ x.T
            scores[same[part][:, None] == same[None]] = -torch.inf
            found.append(nearest_scores(scores, y, len(pictures.classes), max(ks)))
        near = [torch.cat(parts) for parts in zip(*found, strict=True)]
        temperatures = TEMPERATURES if self.temperature is None else (self.temperature,)
        tries = []
        for k, t in product(ks, temperatures):
            logits = class_logits(near[0] / t, near[1], near[2] / t, k)
            accuracy = float((logits.argmax(1) == y[asked]).float().mean())
            likelihoods = [float(-cross_entropy(s * logits, y[asked])) for s in SCALES]
            best = max(likelihoods)
            tries.append(_Choice(k, t, SCALES[likelihoods.index(best)], accuracy, best))
        return max(tries, key=lambda c: (round(c.accuracy or 0.0, 6), c.likelihood))

    def _classifier(self, encoder: Encoder, pictures: EncodedSet, of: Tensor, chosen: _Choice) -> Classifier:
        feature = Normalise(self.power, l2=True)
        x, y, picture = pictures.rows(of)
        names = tuple(pictures.items[i].image for i in picture.tolist())
        votes = Votes(y, len(pictures.classes), chosen.k, names)
        head = Head(feature, feature(x) / chosen.temperature, scale=chosen.scale, votes=votes)
        origin = f"{int(pictures.final.sum()):,} of your pictures, {len(pictures.classes)} classes"
        origin += f"; the {chosen.k} nearest vote"
        return Classifier(self.name, self.parameters(), encoder, pictures.classes, head, trained_on=origin)


@dataclass(frozen=True)
class _Choice:
    k: int
    temperature: float
    scale: float
    accuracy: float | None
    likelihood: float = -math.inf
