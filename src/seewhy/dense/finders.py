"""Base classes of detectors and segmenters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ..arguments import checked
from ..bounds import Checked, Count, OpenPart
from ..descriptions.base import Words
from ..encoders.base import Encoder
from ..encoders.names import filled, imagenet_classes, own_sentences
from ..encoders.stream import encode_texts
from ..errors import ImageError, InputError
from ..explanation.base import Explanation
from ..heads.head import Head
from ..keywords import ExplainKeywords
from ..learning.encoders.heads import place
from ..learning.encoders.image_copy import ImageCopy
from ..pictures.sources import One
from ..storage.features import FeatureStore
from ..types import Failure
from .cells import joint_cells
from .parts import PooledScore
from .reader import ABSENT, LARGEST, Looked, Reader, Zoom, best_classes, bilinear
from .regions import NOTHING, Detections, Segmentation, segments_of

N_OTHERS, RELATIVES = 250, 0.1
"""Number of ImageNet names for comparison, and share of them that is excluded as too similar to the name."""
LEAST, PLACE = 3.3, 0.6
"""Default threshold of the presence, and factor on this threshold for single grid cells."""
FLAT = 1e-6
"""Smallest standard deviation of cosines to divide by."""


def other_names() -> list[str]:
    """Return the ImageNet names with which every name is compared."""
    classes = imagenet_classes()
    return [one.names[0] for one in classes[:: len(classes) // N_OTHERS]]


@dataclass(frozen=True, eq=False)
class Presence:
    """A score of how strongly each name is present in a picture, relative to other names.

    The cosine of a vector ``v`` with a name is standardised by its cosines with the other names:

        z_k(v) = (cos(v, t_k) - mean_o cos(v, t_o)) / std_o cos(v, t_o)

    - ``z_k(v)``: the standardised cosine of ``v`` with the name ``k``.
    - ``t_k``: the text embedding of the name ``k``.
    - ``o``: the other names, without the 10 % that are most similar to ``k``.

    The presence of a name is the larger of two standardised cosines: that of the whole picture, and that of the grid
    cells, for which each cosine is the maximum over the grid cells. The same threshold can be used for every name and
    encoder.

    The trunk does not run again. The other names are encoded once and cached.
    """

    encoder: Encoder
    names: tuple[str, ...]
    template: str
    least: float = LEAST
    store: FeatureStore | None = field(default=None, repr=False)

    @cached_property
    def texts(self) -> Float[Tensor, "k d"]:
        return encode_texts(self.encoder, [filled(self.template, name) for name in self.names], self.store)

    @cached_property
    def others(self) -> Float[Tensor, "o d"]:
        text = self.encoder.text
        return place(text, own_sentences(text, [filled(self.template, name) for name in other_names()]))

    @cached_property
    def compared(self) -> Bool[Tensor, "k o"]:
        """Return a mask of the names with which each name is compared."""
        likeness = self.texts @ self.others.T
        return likeness <= likeness.quantile(1 - RELATIVES, dim=1, keepdim=True)

    @torch.no_grad()
    def of(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> Float[Tensor, " k"]:
        """Compute the presence of each name."""
        windows = normalize(encoder.text.project(encoder.head(looked.features)), dim=1)
        whole, places = normalize(windows.mean(0), dim=0)[:, None], normalize(cells.flatten(1), dim=0)
        best = [(texts @ places).amax(1, keepdim=True) for texts in (self.texts, self.others)]
        on_whole = standing_out(self.texts @ whole, self.others @ whole, self.compared)
        return torch.maximum(on_whole, standing_out(best[0], best[1], self.compared))[:, 0]

    @torch.no_grad()
    def there(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> NamesThere:
        """Compute the presence of each name in a picture and in each grid cell."""
        presence, places = self.of(encoder, looked, cells), normalize(cells.flatten(1), dim=0)
        z = standing_out(self.texts @ places, self.others @ places, self.compared)
        return NamesThere(presence, self.found(presence), z.unflatten(1, cells.shape[1:]) - PLACE * self.least)

    def found(self, presence: Float[Tensor, " k"]) -> Bool[Tensor, " k"]:
        return presence >= self.least if self.least > 0 else torch.ones_like(presence, dtype=torch.bool)

    def to_json(self, presence: Float[Tensor, " k"]) -> dict[str, float]:
        return {name: round(float(v), 3) for name, v in zip(self.names, presence, strict=True)}


@dataclass(frozen=True, eq=False)
class NamesThere:
    """The names present in a picture, with their positions."""

    of_picture: Float[Tensor, " k"]
    found: Bool[Tensor, " k"]
    margin: Float[Tensor, "k h w"]

    def without_others(self, mask: np.ndarray) -> np.ndarray:
        """Return the mask without pixels of absent names."""
        down, across = (bilinear(n, m) for n, m in zip(self.margin.shape[1:], mask.shape, strict=True))
        kept = np.full_like(mask, NOTHING)
        for k in np.flatnonzero(self.found.numpy()):
            there = (down @ self.margin[k] @ across.T).numpy() >= 0
            kept[(mask == k) & there] = k
        return kept


def standing_out(
    own: Float[Tensor, "k n"], others: Float[Tensor, "o n"], compared: Bool[Tensor, "k o"]
) -> Float[Tensor, "k n"]:
    """Standardise the cosines of names by the cosines of the other names."""
    weights = compared.to(others) / compared.sum(1, keepdim=True)
    mean = weights @ others
    variance = torch.stack([weights[k] @ (others - mean[k]) ** 2 for k in range(len(own))])
    return (own - mean) / variance.sqrt().clamp(min=FLAT)


class Finder(ABC):
    """A detector or segmenter for a fixed list of names."""

    classes: tuple[str, ...]

    @abstractmethod
    def find_all(self, pictures: Iterable[Any]) -> Iterator[Any]:
        """Find the objects in each picture, in order; an unreadable picture yields a failure."""

    def find(self, picture: One) -> Any:
        result = next(iter(self.find_all([picture])))
        if isinstance(result, Failure):
            raise ImageError(result.image, result.error)
        return result

    def pooled(self) -> PooledScore:
        """Return a classifier of one box or segment, which reads its grid cells."""
        raise InputError(
            f"Scores of a {type(self).__name__} cannot be explained, because they are not computed from the grid cells "
            "of a feature map. Choose word_regions, maskclip or a trained method."
        )

    @checked
    def explain(
        self,
        picture: One,
        *,
        most: Count = 20,
        descriptions: Words | None = None,
        known: str | Path | None = None,
        store: FeatureStore | None = None,
        **options: Unpack[ExplainKeywords],
    ) -> list[Explanation]:
        """Explain the boxes or segments found in a picture.

        Args:
            picture: a file name, an array of pixels, or any other form of picture (:mod:`seewhy.pictures.sources`).
            most: largest number of explanations: the boxes with the highest scores, or the largest segments.
            descriptions: texts that describe the classes; default: none.
            known: pictures to compare with, with boxes or masks, or in one folder per class.
            store: cache of encoded sentences; default: no cache.
            **options: options of :class:`seewhy.evidence.explain.ExplainOptions`.

        Returns:
            An explanation for each box or segment; a notebook displays it.
        """
        from ..evidence.explain import ExplainOptions
        from .part_evidence import PartExplainer, with_examples

        explainer = PartExplainer.of(self, descriptions, store)
        if known is not None:
            explainer = with_examples(explainer, known)
        found = self.find(picture)
        numbers = range(1, min(most, len(found.regions)) + 1)
        return list(explainer.explain(picture, found, ExplainOptions(**options), numbers))


class Detector(Finder):
    """A detector, which draws boxes around objects."""

    @checked
    def detect(self, picture: One) -> Detections:
        """Find the objects in a picture; raise ``ImageError`` if it cannot be read."""
        return self.find(picture)

    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        """Find the objects in many pictures, in order; an unreadable picture yields a failure."""
        return self.find_all(pictures)


class NamesPixels(Finder):
    """A segmenter, which names every pixel of a picture."""

    @checked
    def segment(self, picture: One) -> Segmentation:
        """Name every pixel of a picture; raise ``ImageError`` if it cannot be read."""
        return self.find(picture)

    def segment_all(self, pictures: Iterable[Any]) -> Iterator[Segmentation | Failure]:
        """Name the pixels of many pictures, in order; an unreadable picture yields a failure."""
        return self.find_all(pictures)


class Scorer(ABC):
    """Base class of functions from an encoder's features to class scores."""

    scale: float

    @property
    def compares(self) -> bool:
        """Whether :meth:`finish` needs the features of the grid cells."""
        return False

    @abstractmethod
    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        """Compute the class scores of each window."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save."""

    @abstractmethod
    def pooled(self, looks: Segmenter) -> PooledScore:
        """Return a classifier of one segment, which reads its mean embedding."""

    def random(self, seed: int) -> Scorer | None:
        """Return the same scorer with random text embeddings, or ``None`` without texts."""
        return None

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        """Post-process the scores of the whole picture, merged from its windows."""
        return scores


@dataclass(frozen=True, eq=False)
class Segmenter(Checked, NamesPixels):
    """A segmenter from an encoder and a scorer of its grid cells."""

    noun = "a segmenter"

    method: str
    parameters: dict[str, Any]
    base: Encoder
    classes: tuple[str, ...]
    scorer: Scorer = field(repr=False)
    zoom: Zoom = LARGEST
    least: OpenPart = 0.0
    trained_on: str = "nothing but the names of the classes"
    levels: int = 1
    presence: Presence | None = field(default=None, repr=False)
    image: ImageCopy | None = field(default=None, repr=False)

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.base, self.zoom, self.levels)

    @property
    def encoder(self) -> Encoder:
        """The encoder at the size of a window."""
        return self.reader.encoder

    def pooled(self) -> PooledScore:
        return self.scorer.pooled(self)

    def score(self, cells: Callable[[Encoder, Tensor], Tensor], head: Head) -> PooledScore:
        """Return a linear classifier of one segment, which reads its mean embedding."""
        return PooledScore(
            self.reader, self.method, self.classes, cells, head, parameters=self.parameters, trained_on=self.trained_on
        )

    def check(self) -> None:
        """Check that the scorer fits the encoder and the classes; raise ``ValueError`` otherwise."""
        features = self.encoder.forward_features(torch.zeros(1, 3, *self.encoder.transform.input_size))
        scores = self.scorer.scores(self.encoder, features)
        if scores.shape[1] != len(self.classes) or not bool(scores.isfinite().all()):
            raise ValueError(f"it must give {len(self.classes)} finite scores, one per class, got {scores.shape[1]}")

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Segmentation | Failure]:
        for looked in self.reader.looked(pictures):
            yield looked if isinstance(looked, Failure) else self._named(looked)

    @torch.no_grad()
    def scores(self, looked: Looked) -> Float[Tensor, "k h w"]:
        """Compute the score of each class at each grid cell."""
        grid = looked.windows.merged
        keys = grid(self.encoder.layout.to_grid(looked.features)) if self.scorer.compares else None
        return self.scorer.finish(grid(self.scorer.scores(self.encoder, looked.features)), keys)

    def _named(self, looked: Looked) -> Segmentation:
        scores = self.scores(looked)
        presence = self.named_in(looked)
        mask, probability = self.pixels(scores, looked, presence)
        about = {
            "method": self.method, "encoder": self.base.name, "fingerprint": self.base.fingerprint,
            "input": list(self.encoder.transform.input_size), "n_windows": looked.windows.n[0] * looked.windows.n[1],
            "grid": list(scores.shape[1:]),
        }  # fmt: skip
        segments = segments_of(self.classes, mask, probability)
        by_name = {} if presence is None or self.presence is None else self.presence.to_json(presence.of_picture)
        size, parts = (mask.shape[1], mask.shape[0]), (segments, about, looked.pixels, mask, scores.numpy())
        return Segmentation(looked.name, size, self.classes, *parts, presence=by_name)

    def named_in(self, looked: Looked) -> NamesThere | None:
        """Return which names are present in a picture; ``None`` if :attr:`presence` is ``None``."""
        if self.presence is None:
            return None
        cells = looked.windows.merged(joint_cells(self.encoder, looked.features))
        return self.presence.there(self.encoder, looked, cells)

    def pixels(
        self, scores: Float[Tensor, "k h w"], looked: Looked, there: NamesThere | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        size, (height, width) = looked.size[::-1], self.reader.resolution(looked)
        if there is not None:
            scores = scores.masked_fill(~there.found[:, None, None], ABSENT)
        mask, probability = (one.numpy() for one in best_classes(scores, (height, width), self.scorer.scale))
        if there is not None:
            mask = there.without_others(mask)
        if self.least:
            mask = np.where(probability < self.least, np.uint8(NOTHING), mask)
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, (height, width), strict=True))
        return mask[rows][:, columns], probability[rows][:, columns]
