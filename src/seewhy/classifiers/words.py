"""The descriptions of a classifier: set them, change them, and measure how well they fit pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..descriptions.base import Descriptions, WordBank, Words, describe, without_names
from ..encoders.base import Encoder
from ..encoders.names import imagenet_descriptions
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..explanation.kinds import WordControl
from ..heads.head import Head, Projected
from ..heads.votes import WordDecision
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from . import recipe_of
from .base import Classifier
from .encoded_set import HeldOut, accuracy_by_words, encode_labelled, with_logits
from .unfitted import gloss_vectors

N_DRAWS = 999
FEW = 5
"""Minimum number of classes for the permutation test; with four classes, the smallest p-value is 1/24."""
EXACT = 6
N_FOREIGN = 48
_FOREIGN: WeakKeyDictionary[Encoder, Tensor] = WeakKeyDictionary()


def words_of(classifier: Classifier) -> WordBank:
    if classifier.words is None:
        raise DataError("This classifier has no descriptions. Add --descriptions FILE.")
    return classifier.words


def texts_of(words: WordBank) -> dict[str, tuple[str, ...]]:
    return {label: tuple(words.texts[i] for i in words.of(c)) for c, label in enumerate(words.classes)}


def words_alone(classifier: Classifier, held_out: HeldOut) -> float:
    """Return the accuracy of choosing the class whose descriptions have the highest mean cosine similarity."""
    joint = Projected(classifier.encoder.text)(held_out.pooled)
    chosen = (joint @ words_of(classifier).measured.class_weight().T).argmax(1)
    return round(float((chosen == held_out.labels).float().mean()), 4)


def _measured(classifier: Classifier, kind: str = "held-out") -> Classifier:
    held = classifier.held_out
    if held is None:
        return classifier
    without_names = "" if words_of(classifier).nameless is None else ", without the class names"
    on = f"{len(held.labels)} {kind} pictures{without_names}"
    return replace(classifier, words_accuracy=words_alone(classifier, held), words_accuracy_on=on)


def with_descriptions(classifier: Classifier, descriptions: Words, store: FeatureStore | None) -> Classifier:
    own = Descriptions.given(descriptions).limited_to(classifier.classes)
    words = WordBank.build(classifier.encoder, own, with_names=False, store=store)
    words = nameless(classifier.encoder, words, store, bare=True)
    plain = replace(classifier, words=words, decided_by_words=False, words_accuracy=None, words_accuracy_on="")
    return _measured(plain)


def measured_on(
    classifier: Classifier, samples: Samples, store: FeatureStore | None = None, progress: Progress | None = None
) -> Classifier:
    """Return the classifier with the accuracy of its descriptions on the given pictures.

    Class names are removed from the descriptions first, except for zero-shot classifiers and captions of a follow-up.
    """
    pictures = encode_labelled(classifier.encoder, classifier.classes, samples, store, progress)
    return measured_by(classifier, HeldOut(pictures.pooled, pictures.labels), store)


def measured_by(classifier: Classifier, held: HeldOut, store: FeatureStore | None = None) -> Classifier:
    """Return the classifier with the accuracy of its descriptions on encoded pictures."""
    if held.logits is None and classifier.held_out is None:  # it was not trained on these pictures
        held = with_logits(classifier.head, held) or held
    changed = replace(classifier, held_out=held, trust=None)
    if classifier.words is None:
        return changed
    if isinstance(classifier.head.votes, WordDecision):
        accuracy = accuracy_by_words(classifier.head, held)
        return replace(changed, words_accuracy=accuracy, words_accuracy_on=f"{len(held.labels)} labelled pictures")
    if recipe_of(classifier.recipe).words_are != "names":
        changed = replace(changed, words=nameless(classifier.encoder, classifier.words, store))
    return _measured(changed, "labelled")


def nameless(encoder: Encoder, words: WordBank, store: FeatureStore | None = None, *, bare: bool = False) -> WordBank:
    """Return the descriptions with vectors of the texts without class names.

    If ``bare`` is true, the vectors were computed without class names; only texts that contain a name are encoded
    again.
    """
    plain: dict[int, str] = {}
    for i, (text, owner) in enumerate(zip(words.texts, words.owner.tolist(), strict=True)):
        label = words.classes[owner]
        without = without_names(Descriptions({label: (text,)}))[0].texts[label][0]
        if without != text or not bare:
            plain[i] = without
    if not plain:
        return words
    vectors = words.vectors.clone()
    vectors[list(plain)] = encode_texts(encoder, list(plain.values()), store)
    return replace(words, nameless=vectors)


def reworded(classifier: Classifier, descriptions: Descriptions, store: FeatureStore | None = None) -> Classifier:
    """Return the classifier with other descriptions; only new sentences are encoded."""
    if classifier.words is None:
        raise DataError("This classifier has no descriptions to change. Start with --descriptions FILE.")
    wanted, words = descriptions.limited_to(classifier.classes), classifier.words
    known = {
        (words.classes[int(c)], text): vector
        for c, text, vector in zip(words.owner, words.texts, words.vectors, strict=True)
    }
    pairs = [(label, text) for label, texts in wanted.texts.items() for text in texts]
    new = [pair for pair in pairs if pair not in known]
    named = classifier.decided_by_words and bool(classifier.parameters.get("with_names"))
    if new:
        sentences = [describe(label, text) if named else text for label, text in new]
        known.update(zip(new, encode_texts(classifier.encoder, sentences, store), strict=True))
    bank = WordBank.of_vectors(wanted, torch.stack([known[pair] for pair in pairs]))
    if words.nameless is not None or not classifier.decided_by_words:
        bank = nameless(classifier.encoder, bank, store, bare=not named)
    changed, rows = replace(classifier, words=bank), _rows_of(classifier)
    if rows is not None:
        head = classifier.head
        changed = replace(changed, head=Head(head.feature, rows(bank), head.bias, head.scale))
    return _measured(changed)


def words_decide(classifier: Classifier) -> bool:
    """Return whether the head is computed from the descriptions, so that new descriptions change it."""
    return _rows_of(classifier) is not None


def _rows_of(classifier: Classifier) -> Callable[[WordBank], Tensor] | None:
    """Return the function that computes the head's weights from the descriptions, or ``None``."""
    weight, words = classifier.head.weight, classifier.words
    if words is None or not classifier.decided_by_words or classifier.head.votes is not None:
        return None
    ways = (WordBank.class_weight, lambda bank: normalize(bank.class_weight(), dim=1))
    fits = (w for w in ways if (r := w(words)).shape == weight.shape and torch.allclose(r, weight, atol=1e-5))
    return next(fits, None)


def by_words(classifier: Classifier, pooled: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """Return the predicted class if the descriptions decide, otherwise the class with the best-fitting descriptions."""
    words = words_of(classifier)
    if words_decide(classifier):
        return classifier.head.probabilities(pooled).argmax(1)
    joint = Projected(classifier.encoder.text)(pooled)
    return (joint @ words.class_weight().T).argmax(1).detach()


@dataclass(frozen=True)
class ForeignLists:
    """Lists of sentences about other subjects, of the same lengths as the classes' lists of descriptions."""

    lists: Float[Tensor, "k m d"]
    centre: Float[Tensor, "k m"]


@dataclass(frozen=True)
class WordsMeasure:
    """How well the descriptions fit held-out pictures, compared with wrong descriptions.

    A list of descriptions fits a picture by its cosine similarity minus the mean over held-out pictures (``centre``).
    Every class has the same weight.

    Attributes:
        as_good: fraction of wrong assignments of lists to classes that fit as well as the true assignment.
        beats: for each class, the fraction of other lists that fit the class's pictures worse than the right list; NaN
            without pictures.
        centre: mean cosine similarity of each list over held-out pictures.
        foreign: lists about other subjects, if fewer than ``FEW`` classes have pictures.
    """

    as_good: float
    beats: Float[Tensor, " k"]
    centre: Float[Tensor, " k"]
    foreign: ForeignLists | None

    def of(self, index: int, joint: Float[Tensor, " d"], cosines: Float[Tensor, " k"]) -> WordControl:
        beats = _share(cosines - self.centre, index)
        if self.foreign is not None:
            others = self.foreign.lists[index] @ joint - self.foreign.centre[index]
            beats = min(beats, float((others < cosines[index] - self.centre[index]).float().mean()))
        own = float(self.beats[index])
        return WordControl(self.as_good, None if own != own else own, beats)


@torch.no_grad()
def measure_words(classifier: Classifier) -> WordsMeasure | None:
    """Measure a classifier's descriptions by a permutation test on its held-out pictures.

    The true assignment of lists to classes is compared with all permutations, or with 999 random permutations if there
    are more than six classes. With fewer than five classes, the true assignment is compared with 999 random lists about
    other subjects instead. The result is ``None`` if fewer than two classes have held-out pictures.
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
    return float((fits < fits[index]).sum()) / max(1, len(fits) - 1)


def _class_means(
    cosines: Float[Tensor, "n k"], labels: Int[Tensor, " n"], present: Int[Tensor, " p"]
) -> Float[Tensor, "p k"]:
    return torch.stack([cosines[labels == c].mean(0) for c in present.tolist()])


def _orders(fit: Float[Tensor, "p p"]) -> float:
    """Return the fraction of all permutations of the lists that fit at least as well as the true order."""
    n = len(fit)
    if n <= EXACT:
        order = torch.tensor(list(permutations(range(n))))
    else:
        drawn = torch.rand(N_DRAWS, n, generator=torch.Generator().manual_seed(0)).argsort(1)
        order = torch.cat([torch.arange(n)[None], drawn])
    total = fit[torch.arange(n), order].sum(1, dtype=torch.float64)
    return float((total >= total[0] - 1e-6).double().mean())


def _drawn(strange: Float[Tensor, "p m"], own: Float[Tensor, " p"]) -> float:
    """Return the p-value of the true lists against random lists about other subjects."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(strange.shape[1], (N_DRAWS, len(strange)), generator=generator)
    total = strange[torch.arange(len(strange)), index].sum(1)
    return (1 + int((total >= own.sum() - 1e-6).sum())) / (1 + N_DRAWS)


def _foreign_lists(classifier: Classifier) -> Float[Tensor, "k m d"]:
    """Return lists of ImageNet class definitions for every class, each as long as its own list of descriptions."""
    encoder, words = classifier.encoder, words_of(classifier)
    if encoder not in _FOREIGN:  # embedded encoders ship these vectors
        texts = [text for lines in imagenet_descriptions().values() for text in lines]
        some = torch.linspace(0, len(texts) - 1, N_FOREIGN).long()
        shipped = gloss_vectors(encoder)
        found = encoder.encode_text([texts[i] for i in some.tolist()]) if shipped is None else shipped[some]
        _FOREIGN[encoder] = normalize(found.detach(), dim=1)
    vectors, generator = _FOREIGN[encoder], torch.Generator().manual_seed(0)
    lists = []
    for c in range(len(words.classes)):
        others = torch.randint(len(vectors), (len(vectors), max(0, len(words.of(c)) - 1)), generator=generator)
        lists.append(vectors[torch.cat([torch.arange(len(vectors))[:, None], others], 1)].mean(1))
    return torch.stack(lists)
