"""Classifiers without training pictures: from class names, from descriptions, or from an encoder's last layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..descriptions.base import Descriptions, WordBank
from ..encoders.base import Encoder, SentenceText
from ..encoders.embedded import EmbeddedText, sentences
from ..encoders.names import filled, imagenet_descriptions
from ..encoders.stream import encode_texts
from ..errors import InputError, ModelError
from ..heads.head import Head, Projected
from ..heads.normalise import Normalise
from ..storage.features import FeatureStore
from . import Recipe, classifiers
from .base import Classifier, check_names


@classifiers.register
@dataclass(frozen=True)
class ZeroShot(Recipe):
    """Zero-shot classification by class names.

    The weights are (paper, section 3.1.4, and the released notebook)

        w_c = normalise(mean_p normalise(g(template_p(c))))

    where ``g`` is the text encoder and ``template_p(c)`` is template ``p`` with the name of class ``c``. The logit of
    class ``c`` is

        logit_c = scale * (u · w_c)

    where ``u`` is the normalised picture embedding.

    Args:
        templates: sentences with ``{}`` for the class name; default: those of the encoder.
        scale: logit scale; default: the logit scale of the encoder.
    """

    name = "zero_shot"
    paper = "Radford et al. 2021, arXiv:2103.00020"
    needs = "class names and an image-text encoder"
    words_are = "names"

    templates: tuple[str, ...] = ()
    scale: float | None = None

    def build(self, encoder: Encoder, labels: Sequence[str], store: FeatureStore | None = None) -> Classifier:
        classes = check_names(labels)
        templates = self.templates or encoder.text.templates
        for template in templates:
            if "{}" not in template:
                raise InputError(f"A template must have {{}} for the class name, got {template!r}.")
        texts = [filled(t, c) for c in classes for t in templates]
        vectors = encode_texts(encoder, texts, store)
        weight = normalize(vectors.unflatten(0, (len(classes), len(templates))).mean(1), dim=1)
        owner = torch.arange(len(classes)).repeat_interleave(len(templates))
        return Classifier(
            self.name,
            {**self.parameters(), "templates": list(templates)},
            encoder,
            classes,
            Head(Projected(encoder.text), weight, scale=self.scale or encoder.text.logit_scale),
            words=WordBank(classes, tuple(texts), owner, vectors),
            decided_by_words=True,
            trained_on="nothing but the names of the classes",
        )


@classifiers.register
@dataclass(frozen=True)
class Described(Recipe):
    """Classification by the mean cosine similarity with descriptions of each class.

    The score of class ``c`` for picture ``x`` is

        s(c, x) = 1/|D(c)| Σ_d φ(d, x)        (paper, equation 1)

    where ``D(c)`` are the descriptions ``d`` of class ``c`` in the form *class, which has description*, and ``φ`` is
    the cosine similarity. Unlike in CLIP's prompt ensemble, the mean is not normalised again, because this would favour
    classes with diverse descriptions.

    Args:
        with_names: whether sentences contain the class name, as in the paper.
        scale: logit scale for probabilities; default: the logit scale of the encoder.
    """

    name = "described"
    paper = "Menon & Vondrick 2022, arXiv:2210.07183"
    needs = "descriptions of the classes and an image-text encoder"

    with_names: bool = True
    scale: float | None = None

    def build(self, encoder: Encoder, descriptions: Descriptions, store: FeatureStore | None = None) -> Classifier:
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


@classifiers.register
@dataclass(frozen=True)
class Pretrained(Recipe):
    """The last layer of the encoder, with the classes that it was trained on (lite0: the 1,000 classes of ImageNet)."""

    name = "pretrained"
    paper = "the encoder's own"
    needs = "an encoder with a last layer"
    words_are = "the encoder's"

    def build(
        self, encoder: Encoder, descriptions: Descriptions | None = None, store: FeatureStore | None = None
    ) -> Classifier:
        """Return a classifier with the encoder's last layer; lite encoders have default descriptions from WordNet."""
        layer = encoder.classifier
        if layer is None:
            raise ModelError(
                f"The encoder {encoder.name!r} has no classes. Name yours with --labels (from_module: classes=[...]), "
                "or fit a classifier on pictures with: seewhy fit PHOTOS -o MODEL"
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
    """Return vectors of WordNet's definitions of the ImageNet classes; ``None`` without a lite encoder."""
    root = encoder
    while root.base is not None:
        root = root.base
    if encoder.classes != root.classes or not root.has_text or not isinstance(root.text, EmbeddedText):
        return None
    tower, own = encoder.text, root.text
    if not isinstance(tower, SentenceText) or tower.sentence_fingerprint != own.sentence_fingerprint:
        return None
    return tower.place(sentences()["glosses"])
