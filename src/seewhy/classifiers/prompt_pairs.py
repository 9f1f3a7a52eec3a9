"""Zero-shot findings by pairs of sentences, one for and one against each finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.stream import encode_stream, encode_texts
from ..errors import InputError
from ..explanation.prediction import Finding, Findings
from ..pictures.sources import Many, One, several
from ..storage.features import FeatureStore
from ..types import Failure
from .base import Classifier
from .unfitted import ZeroShot


@dataclass(frozen=True)
class PromptPairs:
    """Zero-shot multi-label classification by pairs of sentences (Tiu et al. 2022, CheXzero).

    The probability of a finding is

        p = exp(s u·t+) / (exp(s u·t+) + exp(s u·t-))

    where ``u`` is the normalised picture embedding, ``t+`` and ``t-`` are the normalised mean embeddings of the
    sentences for and against the finding, and ``s`` is the logit scale.

    The encoder must have been trained on texts with negations. The embedded encoder was trained on texts without
    negations. On 200 ImageNet photographs, ``t+ - t-`` ranked a picture of the class above another picture in 74 % of
    the cases, and the class name did so in 99.9 %. Measure the accuracy before you rely on a finding.

    Args:
        present: sentences with ``{}`` for the finding.
        absent: sentences with ``{}`` for a picture without the finding.
        scale: ``s``; default: the logit scale of the encoder.

    Example:
        >>> import numpy as np, seewhy
        >>> red = np.full((64, 64, 3), (200, 20, 20), np.uint8)
        >>> (one,) = PromptPairs()(seewhy.encoder("lite0"), [red], ["red", "blue"])
        >>> [round(finding.margin, 2) for finding in one.found]  # and it is red: see above
        [0.04, 0.05]
    """

    present: tuple[str, ...] = ("{}",)
    absent: tuple[str, ...] = ("no {}", "no sign of {}")
    scale: float | None = None

    def __post_init__(self) -> None:
        wrong = [t for t in (*self.present, *self.absent) if "{}" not in t]
        if wrong or not self.present or not self.absent or (self.scale is not None and self.scale <= 0):
            raise InputError(
                f"`present` and `absent` must each have at least one sentence with {{}} for the finding, and `scale` "
                f"must be greater than 0, got present={self.present}, absent={self.absent}, scale={self.scale}."
            )

    def __call__(
        self, encoder: Encoder, pictures: One | Many, names: Sequence[str], *, store: FeatureStore | None = None
    ) -> Iterator[Findings | Failure]:
        """Yield the findings of each picture, in order; an unreadable picture becomes a :class:`Failure`."""
        if not names or not all(name.strip() for name in names):
            raise InputError(f"`names` must have at least one finding, in words, got {list(names)}.")
        present, absent = (self._means(encoder, names, said, store) for said in (self.present, self.absent))
        scale, many = self.scale or encoder.text.logit_scale, several(pictures)

        def found() -> Iterator[Findings | Failure]:
            for seen in encode_stream(encoder, [pictures] if many is None else many, store=store):
                if isinstance(seen, Failure):
                    yield seen
                    continue
                with torch.no_grad():
                    margins = (normalize(encoder.text.project(seen.pooled[:1]), dim=1) @ (present - absent).T)[0]
                each = zip(names, (scale * margins).sigmoid().tolist(), margins.tolist(), strict=True)
                yield Findings(seen.name, tuple(Finding(*one) for one in each))

        return found()

    def _means(
        self, encoder: Encoder, names: Sequence[str], said: Sequence[str], store: FeatureStore | None
    ) -> Float[Tensor, "f d"]:
        vectors = encode_texts(encoder, [t.replace("{}", name) for name in names for t in said], store)
        return normalize(vectors.unflatten(0, (len(names), len(said))).mean(1), dim=1)

    def classifier(self, encoder: Encoder, name: str) -> Classifier:
        """Return a classifier with two classes, a finding and its absence, from the first sentence of each kind."""
        both = [said[0].replace("{}", name) for said in (self.present, self.absent)]
        return ZeroShot(templates=("{}",), scale=self.scale).build(encoder, both)
