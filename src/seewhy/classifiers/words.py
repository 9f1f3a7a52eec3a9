"""A classifier's words: given, changed, and measured on pictures. Where words decide, the decision follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..descriptions.base import Descriptions, WordBank, Words, describe
from ..descriptions.controls import without_names
from ..encoders.base import Encoder
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..heads.head import Head, Projected
from ..heads.word_decision import WordDecision
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from .base import Classifier
from .encoded_set import HeldOut, encode_labelled, with_logits
from .recipe import recipe_of

NO_WORDS = "This classifier has no descriptions. Give some with --descriptions FILE."


def words_of(classifier: Classifier) -> WordBank:
    """The words, which must be there."""
    if classifier.words is None:
        raise DataError(NO_WORDS)
    return classifier.words


def texts_of(words: WordBank) -> dict[str, tuple[str, ...]]:
    """Class → its texts, in the order of the classes."""
    return {label: tuple(words.texts[i] for i in words.of(c)) for c, label in enumerate(words.classes)}


def words_alone(classifier: Classifier, held_out: HeldOut) -> float:
    """Accuracy of choosing the class whose descriptions, as they are measured, score highest on average."""
    joint = Projected(classifier.encoder.text)(held_out.pooled)
    chosen = (joint @ words_of(classifier).measured.class_weight().T).argmax(1)
    return round(float((chosen == held_out.labels).float().mean()), 4)


def _measured(classifier: Classifier, kind: str = "held-out") -> Classifier:
    """With the accuracy of the words alone on its held-out pictures, where there are any."""
    held = classifier.held_out
    if held is None:
        return classifier
    on = f"{len(held.labels)} {kind} pictures{words_of(classifier).told}"
    return replace(classifier, words_accuracy=words_alone(classifier, held), words_accuracy_on=on)


def with_descriptions(classifier: Classifier, descriptions: Words, store: FeatureStore | None) -> Classifier:
    """The same classifier with words as evidence; the decision does not change."""
    own = Descriptions.given(descriptions).limited_to(classifier.classes)
    words = WordBank.build(classifier.encoder, own, with_names=False, store=store)
    words = nameless(classifier.encoder, words, store, bare=True)
    plain = replace(classifier, words=words, decided_by_words=False, words_accuracy=None, words_accuracy_on="")
    return _measured(plain)


def measured_on(
    classifier: Classifier, samples: Samples, store: FeatureStore | None = None, progress: Progress | None = None
) -> Classifier:
    """The same classifier, its words measured on these pictures; for one that was made from words alone.

    What is measured is what the words say: of sentences with the class's name in them, the texts without it. Of a
    zero-shot classifier, whose words are the names, and of a follow-up's captions, the names stay.
    """
    pictures = encode_labelled(classifier.encoder, classifier.classes, samples, store, progress)
    return measured_by(classifier, HeldOut(pictures.pooled, pictures.labels), store)


def measured_by(classifier: Classifier, held: HeldOut, store: FeatureStore | None = None) -> Classifier:
    """As :func:`measured_on`, on pictures that were encoded already."""
    if held.logits is None and classifier.held_out is None:  # it has learned from none of them
        held = with_logits(classifier.head, held) or held
    changed = replace(classifier, held_out=held, trust=None)
    if classifier.words is None:
        return changed
    votes = classifier.head.votes
    if isinstance(votes, WordDecision):
        right = votes.by_words(classifier.head.feature(held.pooled) @ classifier.head.weight.T) == held.labels
        accuracy = round(float(right.float().mean()), 4)
        return replace(changed, words_accuracy=accuracy, words_accuracy_on=f"{len(held.labels)} labelled pictures")
    if recipe_of(classifier.recipe).words_are != "names":
        changed = replace(changed, words=nameless(classifier.encoder, classifier.words, store))
    return _measured(changed, "labelled")


def nameless(encoder: Encoder, words: WordBank, store: FeatureStore | None = None, *, bare: bool = False) -> WordBank:
    """The same words, to be measured by the texts alone, each without its class's name.

    With ``bare`` the vectors are of the texts alone already, so that only texts with the name in them are encoded anew;
    where there are none, the words are measured as they are.
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
    """Whether the decision is made from the descriptions in a way that a change of words can follow."""
    return _rows_of(classifier) is not None


def _rows_of(classifier: Classifier) -> Callable[[WordBank], Tensor] | None:
    """How the head's rows come from the words: their mean, or the mean at unit length; ``None`` for neither."""
    weight, words = classifier.head.weight, classifier.words
    if words is None or not classifier.decided_by_words or classifier.head.votes is not None:
        return None
    ways = (WordBank.class_weight, lambda bank: normalize(bank.class_weight(), dim=1))
    fits = (w for w in ways if (r := w(words)).shape == weight.shape and torch.allclose(r, weight, atol=1e-5))
    return next(fits, None)


def by_words(classifier: Classifier, pooled: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """The class decided on, where words decide; elsewhere the one whose words score highest on average."""
    words = words_of(classifier)
    if words_decide(classifier):
        return classifier.head.probabilities(pooled).argmax(1)
    joint = Projected(classifier.encoder.text)(pooled)
    return (joint @ words.class_weight().T).argmax(1).detach()
