"""Visual classification via description (Menon & Vondrick 2022, arXiv 2210.07183)."""

from __future__ import annotations

from dataclasses import dataclass

from ..descriptions.base import Descriptions, WordBank
from ..encoders.base import Encoder
from ..heads.head import Head, Projected
from ..storage.features import FeatureStore
from . import Recipe, classifiers
from .base import Classifier, check_names


@classifiers.register
@dataclass(frozen=True)
class Described(Recipe):
    """A class is a list of visual descriptors; its score is the mean of their cosines with the picture.

    ``s(c, x) = 1/|D(c)| Σ_d φ(d, x)`` (paper, equation 1), each descriptor said as *class, which has descriptor*.
    The mean of cosines is kept as in the paper; CLIP's ensemble normalises the mean again, which would favour
    classes with scattered descriptors.

    Args:
        with_names: whether the sentences carry the class's name, as in the paper.
        scale: the logit scale for probabilities; left out, the encoder's own.
    """

    name = "described"
    paper = "Menon & Vondrick 2022, arXiv:2210.07183"
    needs = "descriptions of the classes and an image-text encoder"

    with_names: bool = True
    scale: float | None = None

    def build(self, encoder: Encoder, descriptions: Descriptions, store: FeatureStore | None = None) -> Classifier:
        """A classifier for the described classes."""
        classes = check_names(list(descriptions.texts))
        words = WordBank.build(encoder, descriptions.limited_to(classes), with_names=self.with_names, store=store)
        return Classifier(
            self.name,
            self.parameters(),
            encoder,
            classes,
            Head(Projected(encoder.text), words.class_weight(), scale=self.scale or encoder.text.logit_scale),
            words=words,
            decided_by_words=True,
            trained_on="nothing but descriptions of the classes",
        )
