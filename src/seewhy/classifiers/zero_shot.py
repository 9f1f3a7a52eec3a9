"""Zero-shot classification by class names (CLIP; Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from ..descriptions.base import WordBank
from ..encoders.base import Encoder
from ..encoders.names import filled
from ..encoders.stream import encode_texts
from ..errors import InputError
from ..heads.head import Head, Projected
from ..storage.features import FeatureStore
from . import Recipe, classifiers
from .base import Classifier, check_names


@classifiers.register
@dataclass(frozen=True)
class ZeroShot(Recipe):
    """Each class is a sentence or several; the picture goes to the class whose sentences are nearest.

    ``w_c = normalise(mean_p normalise(g(template_p(c))))`` and ``logit_c = scale · u · w_c`` (paper, section 3.1.4
    and the released notebook): normalised, averaged, normalised again. Templates cost nothing when predicting.

    Args:
        templates: sentences with ``{}`` for the class's name; left out, the encoder's own.
        scale: the logit scale; left out, the encoder's own.
    """

    name = "zero_shot"
    paper = "Radford et al. 2021, arXiv:2103.00020"
    needs = "class names and an image-text encoder"
    words_are = "names"

    templates: tuple[str, ...] = ()
    scale: float | None = None

    def build(self, encoder: Encoder, labels: Sequence[str], store: FeatureStore | None = None) -> Classifier:
        """A classifier for these classes."""
        classes = check_names(labels)
        templates = self.templates or encoder.text.templates
        for template in templates:
            if "{}" not in template:
                raise InputError(f"The template {template!r} has no {{}} where the class's name goes. Add it.")
        sentences = [filled(t, c) for c in classes for t in templates]
        vectors = encode_texts(encoder, sentences, store)
        weight = normalize(vectors.unflatten(0, (len(classes), len(templates))).mean(1), dim=1)
        owner = torch.arange(len(classes)).repeat_interleave(len(templates))
        return Classifier(
            self.name,
            {**self.parameters(), "templates": list(templates)},
            encoder,
            classes,
            Head(Projected(encoder.text), weight, scale=self.scale or encoder.text.logit_scale),
            words=WordBank(classes, tuple(sentences), owner, vectors),
            decided_by_words=True,
            trained_on="nothing but the names of the classes",
        )
