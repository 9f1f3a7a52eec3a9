"""The same classifier with other words: where words decide, so do the new ones; elsewhere they are evidence only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..descriptions.base import Descriptions, WordBank, describe
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..heads.head import Head, Projected
from ..storage.features import FeatureStore
from .base import Classifier, words_alone
from .labelled import nameless


def texts_of(words: WordBank) -> dict[str, tuple[str, ...]]:
    """Class → its texts, in the order of the classes."""
    return {label: tuple(words.texts[i] for i in words.of(c)) for c, label in enumerate(words.classes)}


def reworded(classifier: Classifier, descriptions: Descriptions, store: FeatureStore | None = None) -> Classifier:
    """The classifier with these descriptions of all its classes; only sentences that are new are encoded."""
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
    sentences = [describe(label, text) if named else text for label, text in new]
    if new:
        known.update(zip(new, encode_texts(classifier.encoder, sentences, store), strict=True))
    bank = WordBank.of_vectors(wanted, torch.stack([known[pair] for pair in pairs]))
    if words.nameless is not None or not classifier.decided_by_words:
        bank = nameless(classifier.encoder, bank, store, bare=not named)
    changed, weigh = replace(classifier, words=bank), _weigh(classifier)
    if weigh is not None:
        head = classifier.head
        changed = replace(changed, head=Head(head.feature, weigh(bank), head.bias, head.scale))
    if classifier.held_out is None:
        return changed
    return replace(
        changed,
        words_accuracy=words_alone(changed, classifier.held_out),
        words_accuracy_on=f"{len(classifier.held_out.labels)} held-out pictures{bank.told}",
    )


def words_decide(classifier: Classifier) -> bool:
    """Whether the decision is made from the descriptions in a way that a change of words can follow."""
    return classifier.words is not None and _weigh(classifier) is not None


def _weigh(classifier: Classifier) -> Callable[[WordBank], Tensor] | None:
    """How the head's rows come from the words: their mean, or the mean at unit length; ``None`` for neither."""
    weight, words = classifier.head.weight, classifier.words
    if words is None or not classifier.decided_by_words or classifier.head.votes is not None:
        return None
    rows = (WordBank.class_weight, lambda bank: normalize(bank.class_weight(), dim=1))
    fits = (w for w in rows if (r := w(words)).shape == weight.shape and torch.allclose(r, weight, atol=1e-5))
    return next(fits, None)


def by_words(classifier: Classifier, pooled: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """The class decided on, where words decide; elsewhere the one whose words score highest on average.

    Raises:
        DataError: there are no descriptions.
    """
    if classifier.words is None:
        raise DataError("This classifier has no descriptions. Give some with --descriptions FILE.")
    if words_decide(classifier):
        return classifier.head.probabilities(pooled).argmax(1)
    joint = Projected(classifier.encoder.text)(pooled)
    return (joint @ classifier.words.class_weight().T).argmax(1).detach()
