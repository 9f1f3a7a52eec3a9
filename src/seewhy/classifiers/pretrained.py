"""The encoder's own last layer, with the classes it was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files

from jaxtyping import Float
from torch import Tensor

from ..descriptions.base import Descriptions, WordBank
from ..encoders.base import Encoder, SentenceText
from ..encoders.embedded import EmbeddedText
from ..encoders.names import imagenet_descriptions
from ..errors import ModelError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..storage.features import FeatureStore
from . import Recipe, classifiers
from .base import Classifier


@classifiers.register
@dataclass(frozen=True)
class Pretrained(Recipe):
    """What the network already knows; for the embedded encoders, the 1,000 classes of ImageNet."""

    name = "pretrained"
    paper = "the encoder's own"
    needs = "an encoder with a last layer"
    words_are = "the encoder's"

    def build(
        self, encoder: Encoder, descriptions: Descriptions | None = None, store: FeatureStore | None = None
    ) -> Classifier:
        """Take the encoder's classifier as it is, with its glosses where it is embedded or stands on such a one."""
        layer = encoder.classifier
        if layer is None:
            raise ModelError(
                f"The encoder {encoder.name!r} has no classes of its own. Name yours with --labels, or fit a "
                "classifier on pictures with: seewhy fit PHOTOS -o MODEL"
            )
        names = encoder.classes or tuple(f"class {i}" for i in range(layer.out_features))
        plain = Classifier(
            self.name,
            self.parameters(),
            encoder,
            names,
            Head(Normalise(), layer.weight, layer.bias),
            trained_on=f"{len(names):,} classes of the encoder's own training",
        )
        if descriptions is not None:
            return plain.with_descriptions(descriptions, store)
        if (vectors := gloss_vectors(encoder)) is None:
            return plain
        # Measured once (benchmarks/embedded_words.py), for embedded encoders as they are.
        figures = json.loads(files("seewhy.encoders").joinpath("embedded_measures.json").read_text())
        figure = figures.get(encoder.name, {"accuracy": None, "on": ""})
        words = WordBank.of_vectors(Descriptions.of(imagenet_descriptions()).limited_to(names), vectors)
        return replace(plain, words=words, words_accuracy=figure["accuracy"], words_accuracy_on=figure["on"])


def gloss_vectors(encoder: Encoder) -> Float[Tensor, "n d"] | None:
    """Where an encoder puts the glosses; ``None`` unless its sentences are those of the embedded one it stands on."""
    root = encoder
    while root.base is not None:
        root = root.base
    if encoder.classes != root.classes or not root.has_text or not isinstance(root.text, EmbeddedText):
        return None
    tower, own = encoder.text, root.text
    if not isinstance(tower, SentenceText) or tower.sentence_fingerprint != own.sentence_fingerprint:
        return None
    return tower.place(own.gloss_sentences())
