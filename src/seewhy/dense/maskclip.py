"""MaskCLIP (Zhou et al. 2022, ECCV): every pixel by its nearest words, without training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.names import filled
from ..encoders.stream import encode_texts
from ..errors import DataError, InputError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..spelling import first_repeated
from ..storage.features import FeatureStore
from . import segmenters
from .cells import joint_cells
from .pooled_score import PooledScore
from .presence import LEAST, Presence
from .reader import LARGEST
from .refine import Normalised, denoise, smooth
from .segmenter import Segmenter

TEMPLATES = (
    "a photo of a {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""CLIP's, and the five that MaskCLIP adds to CLIP's 80 for scenes."""
MOST = 255
"""Classes: as many values as a mask of one byte has, less the one for nothing."""


@segmenters.register
@dataclass(frozen=True)
class MaskCLIP:
    """Each cell goes to the class whose sentences are nearest to what the encoder makes of that cell alone.

    ``s_k(i) = cos(z_i, t_k)`` with ``z_i`` of :func:`seewhy.dense.cells.joint_cells` and ``t_k = normalise(mean_p
    normalise(g(template_p(k))))``, bilinear to pixels, then the best (paper, section 3.2; equal to the released code's
    value path where the encoder pools by attention). Names are not equally near to pictures, whatever is in them. So,
    unless ``centred`` is 0, the classes' texts are taken less their mean, at unit length again, and each class's scores
    less that part of their mean over the picture.

    On 80 street scenes (11 classes), one half was better than none for each of six sets of templates, by .4 to 1 points
    of mIoU; on 40 others, which chose nothing, by .1 to .9.

    Differs from the released code: key smoothing compares the cells' features before the head, which every encoder
    has, and not the last block's keys. The paper's 85 templates are any that are given.

    Cost: one pass of the trunk for each window, and of the head for each cell.

    Args:
        templates: sentences with ``{}`` for the class's name.
        centred: part of each class's mean score over the picture that is taken off, 0 to 1; 0 is the paper's form.
        denoised: least probability that some cell must give a class; 0 leaves all, as the released code does.
        smoothed: cells less sure than this take the answers of cells like them; 0 leaves all.
        normalised: over what keys are of unit length, ``"channels"`` (the paper) or ``"positions"`` (released code).
        scale: of cosines before a softmax; left out, the encoder's own. MaskCLIP's is 100.
        zoom: the picture's short side, in inputs of the encoder.
        least: probability below which a pixel is given no name.
        least_presence: a name whose presence in the picture (:class:`seewhy.dense.presence.Presence`) is below has no
            pixel, and a pixel where its own name stands out by less has no name; 0 is the paper's form, which names
            every pixel.

    Raises:
        DataError: fewer than two classes, more than 255, or one of them twice.
        InputError: a parameter is out of its range, or a template has no place for the name.
        ModelError: the encoder has no words, or its head cannot take a cell alone.
    """

    name: ClassVar[str] = "maskclip"
    spelt: ClassVar[str] = "MaskCLIP"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2112.01071"
    needs: ClassVar[str] = "class names and an image-text encoder"
    cost: ClassVar[str] = "one per window, and the head for each cell"

    templates: tuple[str, ...] = TEMPLATES
    centred: float = 0.5
    denoised: float = 0.0
    smoothed: float = 0.0
    normalised: Normalised = "channels"
    scale: float | None = None
    zoom: float = LARGEST
    least: float = 0.0
    least_presence: float = LEAST

    def __post_init__(self) -> None:
        parts = {"centred": self.centred, "denoised": self.denoised, "smoothed": self.smoothed}
        wrong = [f"{name}={value:g}" for name, value in parts.items() if not 0 <= value <= 1]
        if not 0 <= self.least_presence < inf:
            wrong.append(f"least_presence={self.least_presence:g}")
        if wrong or self.normalised not in ("channels", "positions"):
            raise InputError(
                f"maskclip was given {', '.join(wrong) or f'normalised={self.normalised!r}'}. Numbers from 0 to 1, a "
                "presence of 0 or more, and 'channels' or 'positions', were expected. Change it."
            )
        for template in self.templates or ("",):
            if "{}" not in template:
                raise InputError(f"The template {template!r} has no {{}} where the class's name goes. Add it.")

    def build(self, encoder: Encoder, labels: Iterable[str], store: FeatureStore | None = None) -> Segmenter:
        """A segmenter for these classes; nothing is trained.

        Args:
            encoder: with words.
            labels: what may be in the picture.
            store: where sentences are found and kept.
        """
        classes = class_names(labels)
        sentences = [filled(t, c) for c in classes for t in self.templates]
        vectors = encode_texts(encoder, sentences, store).unflatten(0, (len(classes), len(self.templates)))
        texts = normalize(vectors.mean(1), dim=1)
        if self.centred:
            texts = normalize(texts - texts.mean(0), dim=1)
        scorer = Words(texts, self.scale or encoder.text.logit_scale, self)
        return self.segmenter(encoder, classes, scorer, store)

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        """The segmenter that was saved."""
        return self.segmenter(encoder, classes, Words(tensors["texts"], self.scale or encoder.text.logit_scale, self))

    def segmenter(
        self, encoder: Encoder, classes: tuple[str, ...], scorer: Words, store: FeatureStore | None = None
    ) -> Segmenter:
        """With these scores."""
        given: dict[str, Any] = {**asdict(self), "templates": list(self.templates)}
        presence = Presence(encoder, classes, self.templates[0], self.least_presence, store)
        return Segmenter(
            self.name, given, encoder, classes, scorer, self.zoom, self.least,
            presence=presence if self.least_presence > 0 else None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Words:
    """Scores of cells by the texts of classes.

    Attributes:
        texts: one unit vector per class.
        scale: of cosines before a softmax.
        how: its parameters.
    """

    texts: Float[Tensor, "k d"]
    scale: float
    how: MaskCLIP

    @property
    def compares(self) -> bool:
        return self.how.smoothed > 0

    def random(self, seed: int) -> Words:
        texts = torch.randn(self.texts.shape, generator=torch.Generator().manual_seed(seed))
        if self.how.centred:
            texts = texts - texts.mean(0)
        return replace(self, texts=normalize(texts, dim=1))

    def tensors(self) -> dict[str, Tensor]:
        return {"texts": self.texts}

    def cells(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b d h w"]:
        """Each cell among the words, at unit length."""
        return normalize(joint_cells(encoder, features), dim=1)

    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        return torch.einsum("bdhw,kd->bkhw", self.cells(encoder, features), self.texts)

    def pooled(self, looks: Segmenter) -> PooledScore:
        head = Head(Normalise(), self.texts, scale=self.scale)
        return replace(looks.score(self.cells, head), words="joint", centred=self.how.centred)

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        scores = scores - self.how.centred * scores.mean((1, 2), keepdim=True)
        scores = denoise(scores[None], self.how.denoised, self.scale)
        if keys is None:
            return scores[0]
        smoothed = smooth(scores, keys[None], self.how.smoothed, self.how.normalised, self.scale)
        # As logarithms they are scores again, whose softmax gives the probabilities.
        return (smoothed[0].clamp(min=1e-12).log()) / self.scale


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, without blanks around them."""
    names = tuple(" ".join(str(one).split()) for one in ([labels] if isinstance(labels, str) else labels))
    names = tuple(name for name in names if name)
    twice = first_repeated(names)
    if not 2 <= len(names) <= MOST or twice:
        given = f"{twice!r} twice" if twice else f"{len(names)} class{'' if len(names) == 1 else 'es'}"
        raise DataError(
            f"A segmenter was given {given}. From 2 to {MOST} different names were expected. "
            "Add one for what else is there, such as 'background'."
        )
    return names
