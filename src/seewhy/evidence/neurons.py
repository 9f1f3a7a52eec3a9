"""The neurons a decision rests on, by name: what ``--set neurons`` lists under *where*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..attributions.neuron_words import dictionary, important_channels
from ..encoders.base import EncoderOutput
from ..explanation.base import Neuron
from ..heads.head import TargetFunction
from ..pictures.images import Picture
from ..prototypes.bank import cell_box

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .goals import Sentences


def important_neurons(
    classifier: Classifier,
    subject: Classifier | Sentences,
    look: EncoderOutput,
    goal: TargetFunction,
    pictures: Sequence[Picture],
    n: int,
) -> list[tuple[Neuron, ...]]:
    """Of each picture the ``n`` channels that speak most for the target and against it; none where ``n`` is 0.

    They are named after the encoder's own classes, or after the classifier's descriptions where it has none.
    """
    if n == 0:
        return [()] * len(look)
    bank = classifier.words if classifier.encoder.classifier is None else None
    words = dictionary(classifier, look.features.shape[1], bank)
    grid = (look.features.shape[2], look.features.shape[3])
    return [
        tuple(
            Neuron(c.channel, c.share, c.name, c.strength, picture.to_original(cell_box(c.cell, grid)))
            for c in channels
        )
        for picture, channels in zip(pictures, important_channels(subject, look, goal, words, n), strict=True)
    ]
