"""Labelled pictures after one look: what a classifier, or its words, are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..descriptions.base import Descriptions, WordBank
from ..descriptions.controls import without_names
from ..encoders.base import Encoder
from ..encoders.stream import encode_stream, encode_texts
from ..errors import DataError
from ..heads.word_decision import WordDecision
from ..pictures.samples import Sample, Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from .base import Classifier, HeldOut, words_alone
from .recipe import recipe_of


@dataclass(frozen=True)
class Labelled:
    """Pictures that could be read.

    Attributes:
        items: each one's file and class.
        pooled: features, one row a picture.
        labels: index of each one's class.
        digests: of the files' bytes.
    """

    items: tuple[Sample, ...]
    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    digests: tuple[str, ...]


def look_at_labelled(
    encoder: Encoder,
    classes: Sequence[str],
    samples: Samples,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
) -> Labelled:
    """Look at the pictures whose label is one of these classes; the others are counted in a note."""
    progress = progress or Progress()
    index = {c: i for i, c in enumerate(classes)}
    items, strange = samples.of(classes)
    for note in strange:
        progress.note(note)
    stream = encode_stream(encoder, [s.source for s in items], store=store)
    kept = list(progress.results(items, stream, "Looking"))
    if not kept:
        raise DataError(f"None of the {len(items)} pictures can be read; the first: {progress.failures[0].error}.")
    return Labelled(
        tuple(sample for sample, _ in kept),
        torch.stack([seen.pooled[0] for _, seen in kept]),
        torch.tensor([index[sample.label] for sample, _ in kept]),
        tuple(seen.digest for _, seen in kept),
    )


def measured_on(
    classifier: Classifier, samples: Samples, store: FeatureStore | None = None, progress: Progress | None = None
) -> Classifier:
    """The same classifier, its words measured on these pictures; for one that was made from words alone.

    What is measured is what the words say: of sentences with the class's name in them, the texts without it. Of a
    zero-shot classifier, whose words are the names, and of a follow-up's captions, the names stay.

    Args:
        classifier: whose cards shall show how well its words separate classes.
        samples: labelled pictures it has not learned from.
        store: where looks and texts are kept.
        progress: hears of progress, notes and failures.

    Raises:
        DataError: no label is one of its classes, or no picture can be read.
    """
    seen = look_at_labelled(classifier.encoder, classifier.classes, samples, store, progress)
    return measured_by(classifier, HeldOut(seen.pooled, seen.labels), store)


def measured_by(classifier: Classifier, held: HeldOut, store: FeatureStore | None = None) -> Classifier:
    """As :func:`measured_on`, on pictures that were looked at already."""
    if held.logits is None and classifier.held_out is None:  # it has learned from none of them
        with torch.no_grad():
            held = replace(held, logits=classifier.head(held.pooled))
    changed, on = replace(classifier, held_out=held, trust=None), f"{len(held.labels)} labelled pictures"
    if classifier.words is None:
        return changed
    votes = classifier.head.votes
    if isinstance(votes, WordDecision):
        right = votes.by_words(classifier.head.feature(held.pooled) @ classifier.head.weight.T) == held.labels
        return replace(changed, words_accuracy=round(float(right.float().mean()), 4), words_accuracy_on=on)
    if recipe_of(classifier.recipe).words_are != "names":
        words = nameless(classifier.encoder, classifier.words, store)
        changed, on = replace(changed, words=words), on + words.told
    return replace(changed, words_accuracy=words_alone(changed, held), words_accuracy_on=on)


def nameless(encoder: Encoder, words: WordBank, store: FeatureStore | None = None, *, bare: bool = False) -> WordBank:
    """The same words, to be measured by the texts alone, each without its class's name."""
    said: dict[int, str] = {}
    for i, (text, owner) in enumerate(zip(words.texts, words.owner.tolist(), strict=True)):
        label = words.classes[owner]
        without = without_names(Descriptions({label: (text,)}))[0].texts[label][0]
        if without != text or not bare:
            said[i] = without
    if not said:
        return words
    vectors = words.vectors.clone()
    vectors[list(said)] = encode_texts(encoder, list(said.values()), store)
    return replace(words, nameless=vectors)
