"""Do the words mean their classes? Their fit to held-out pictures beside that of lists that mean something else."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.imagenet import imagenet_descriptions
from ..explanation.kinds import WordControl
from ..heads.head import Projected
from .base import Classifier
from .pretrained import gloss_vectors

N_DRAWS = 999
FEW = 5
"""Classes that wrong assignments alone can judge: four lists have 24 orders, of which the true one is 4 %."""
EXACT = 6
N_FOREIGN = 48
_FOREIGN: WeakKeyDictionary[Encoder, Tensor] = WeakKeyDictionary()


@dataclass(frozen=True)
class ForeignLists:
    """For every class lists as long as its own, of sentences that were written about other things."""

    lists: Float[Tensor, "k m d"]
    centre: Float[Tensor, "k m"]


@dataclass(frozen=True)
class WordsMeasure:
    """How the words fit held-out pictures, beside wrong ones.

    A list's fit to a picture is their cosine, less the list's mean over held-out pictures, every class counted alike:
    some sentences are near all pictures.

    Attributes:
        as_good: part of the wrong assignments, of lists to classes, that fit the held-out pictures as well as the
            true one.
        beats: for each class the part of other lists that fit its pictures less well than its own; NaN where it has
            no pictures.
        centre: mean cosine of each class's list.
        foreign: lists about other things, where fewer than ``FEW`` classes have pictures.
    """

    as_good: float
    beats: Float[Tensor, " k"]
    centre: Float[Tensor, " k"]
    foreign: ForeignLists | None

    def of(self, index: int, joint: Float[Tensor, " d"], cosines: Float[Tensor, " k"]) -> WordControl:
        """What is said of one class on one picture."""
        beats = _share(cosines - self.centre, index)
        if self.foreign is not None:
            others = self.foreign.lists[index] @ joint - self.foreign.centre[index]
            beats = min(beats, float((others < cosines[index] - self.centre[index]).float().mean()))
        own = float(self.beats[index])
        return WordControl(self.as_good, None if own != own else own, beats)


@torch.no_grad()
def measure_words(classifier: Classifier) -> WordsMeasure | None:
    """Judge the words of a classifier by its held-out pictures; ``None`` without any of at least two classes.

    The statistic is the mean fit of the classes' lists to their own pictures. It is compared with the same lists
    given to other classes: in every order, or in 999 drawn at random where there are more than six classes. With
    fewer than five, whose orders are too few, 999 draws of lists about other things take their place, and no other
    order may fit as well. One matrix product, whatever the number of draws.
    """
    words, held = classifier.words, classifier.held_out
    if words is None or held is None:
        return None
    present = held.labels.unique()
    if len(present) < 2:
        return None
    joint = Projected(classifier.encoder.text)(held.pooled)
    fit = _class_means(joint @ words.measured.class_weight().T, held.labels, present)
    centre = fit.mean(0)
    fit = fit - centre
    shares = [_share(row, c) for row, c in zip(fit, present.tolist(), strict=True)]
    beats = torch.full((len(words.classes),), float("nan"), dtype=torch.float64)
    beats[present] = torch.tensor(shares, dtype=torch.float64)
    as_good = _orders(fit[:, present])
    if len(present) >= FEW:
        return WordsMeasure(as_good, beats, centre, None)
    lists = _foreign_lists(classifier)
    means = _class_means(joint @ lists.flatten(0, 1).T, held.labels, present)
    foreign = ForeignLists(lists, means.mean(0).unflatten(0, lists.shape[:2]))
    strange = (means - means.mean(0)).unflatten(1, lists.shape[:2])[torch.arange(len(present)), present]
    own = fit[torch.arange(len(present)), present]
    beats[present] = torch.minimum(beats[present], (strange < own[:, None]).double().mean(1))
    best = as_good <= 1 / factorial(len(present)) + 1e-6
    return WordsMeasure(max(_drawn(strange, own), 0.0 if best else as_good), beats, centre, foreign)


def _share(fits: Float[Tensor, " k"], index: int) -> float:
    """Part of the other lists that fit less well than this one."""
    return float((fits < fits[index]).sum()) / max(1, len(fits) - 1)


def _class_means(
    cosines: Float[Tensor, "n k"], labels: Int[Tensor, " n"], present: Int[Tensor, " p"]
) -> Float[Tensor, "p k"]:
    return torch.stack([cosines[labels == c].mean(0) for c in present.tolist()])


def _orders(fit: Float[Tensor, "p p"]) -> float:
    """Part of the orders of the lists, the true one among them, under which they fit as well as under the true one."""
    n = len(fit)
    if n <= EXACT:
        order = torch.tensor(list(permutations(range(n))))
    else:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(N_DRAWS, n, generator=generator).argsort(1)
        order = torch.cat([torch.arange(n)[None], drawn])
    total = fit[torch.arange(n), order].sum(1, dtype=torch.float64)
    return float((total >= total[0] - 1e-6).double().mean())


def _drawn(strange: Float[Tensor, "p m"], own: Float[Tensor, " p"]) -> float:
    """Part of the draws of one strange list a class, the true lists among them, that fit as well as the true ones."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(strange.shape[1], (N_DRAWS, len(strange)), generator=generator)
    total = strange[torch.arange(len(strange)), index].sum(1)
    return (1 + int((total >= own.sum() - 1e-6).sum())) / (1 + N_DRAWS)


def _foreign_lists(classifier: Classifier) -> Float[Tensor, "k m d"]:
    """Of glosses of ImageNet's classes, evenly spaced; each begins one list and others are drawn to it."""
    words = classifier.words
    assert words is not None
    vectors, generator = _foreign_vectors(classifier.encoder), torch.Generator().manual_seed(0)
    lists = []
    for c in range(len(words.classes)):
        others = torch.randint(len(vectors), (len(vectors), max(0, len(words.of(c)) - 1)), generator=generator)
        lists.append(vectors[torch.cat([torch.arange(len(vectors))[:, None], others], 1)].mean(1))
    return torch.stack(lists)


def _foreign_vectors(encoder: Encoder) -> Float[Tensor, "m d"]:
    """Encoded once an encoder; those of the embedded ones are shipped."""
    if encoder not in _FOREIGN:
        texts = [text for lines in imagenet_descriptions().values() for text in lines]
        some = torch.linspace(0, len(texts) - 1, N_FOREIGN).long()
        shipped = gloss_vectors(encoder)
        found = encoder.encode_text([texts[i] for i in some.tolist()]) if shipped is None else shipped[some]
        _FOREIGN[encoder] = normalize(found.detach(), dim=1)
    return _FOREIGN[encoder]
