"""Base classes that find objects in pictures: detectors give boxes, segmenters name every pixel; both explain them."""

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
from ..bounds import Count, OpenPart, check_fields
from ..descriptions.base import Words
from ..encoders.base import Encoder
from ..encoders.names import filled, imagenet_classes, own_sentences
from ..encoders.stream import encode_texts
from ..errors import ImageError, InputError
from ..explanation.base import Explanation
from ..heads.head import Head
from ..keywords import ExplainKeywords
from ..learning.encoders.heads import place
from ..learning.encoders.towers import TunedPictures
from ..pictures.sources import One
from ..storage.features import FeatureStore
from ..types import Failure
from .cells import joint_cells
from .parts import PooledScore
from .reader import ABSENT, LARGEST, Looked, Reader, Zoom, best_classes, bilinear
from .regions import NOTHING, Detections, Segmentation, segments_of

N_OTHERS, RELATIVES = 250, 0.1
"""Names for comparison, every fourth of ImageNet's, and the share of them left out because they resemble a name
most.
"""
LEAST, PLACE = 3.3, 0.6
"""Presence below which a name counts as absent; share of it by which a name must stand out at a place to be used
there.
"""
FLAT = 1e-6
"""Least standard deviation of cosines: below it, a place has no features."""


def other_names() -> list[str]:
    """Return the names with which every name is compared."""
    classes = imagenet_classes()
    return [one.names[0] for one in classes[:: len(classes) // N_OTHERS]]


@dataclass(frozen=True, eq=False)
class Presence:
    """How far names stand out in a picture, compared with :data:`N_OTHERS` other names.

    ``z_k(v) = (cos(v, t_k) - mean_o cos(v, t_o)) / std_o cos(v, t_o)`` over the other names ``o``, without the tenth
    that is most similar to the name itself. A name's presence is the larger of two figures: ``z`` on the whole
    picture, and ``z`` of the cosines of each name at its own best place. So one limit suits every name and encoder.

    Form and limit were chosen with lite0 on photographs of Flickr8k and ImageNet. On other pictures of these sets, it
    finds .68 (Flickr8k) and .61 (ImageNet) of 40 absent names per picture, and .48 and .96 of the present ones.

    Cost: no forward pass; the other names are encoded once and cached.
    """

    encoder: Encoder
    names: tuple[str, ...]
    template: str
    least: float = LEAST
    store: FeatureStore | None = field(default=None, repr=False)

    @cached_property
    def texts(self) -> Float[Tensor, "k d"]:
        """Return the texts of the names."""
        return encode_texts(self.encoder, [filled(self.template, name) for name in self.names], self.store)

    @cached_property
    def others(self) -> Float[Tensor, "o d"]:
        """Return the texts of the names for comparison."""
        text = self.encoder.text
        return place(text, own_sentences(text, [filled(self.template, name) for name in other_names()]))

    @cached_property
    def compared(self) -> Bool[Tensor, "k o"]:
        """Return which names each name is compared with; the most similar ones are left out."""
        likeness = self.texts @ self.others.T
        return likeness <= likeness.quantile(1 - RELATIVES, dim=1, keepdim=True)

    @torch.no_grad()
    def of(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> Float[Tensor, " k"]:
        """Return the presence of each name in a picture."""
        windows = normalize(encoder.text.project(encoder.head(looked.features)), dim=1)
        whole, places = normalize(windows.mean(0), dim=0)[:, None], normalize(cells.flatten(1), dim=0)
        best = [(texts @ places).amax(1, keepdim=True) for texts in (self.texts, self.others)]
        on_whole = standing_out(self.texts @ whole, self.others @ whole, self.compared)
        return torch.maximum(on_whole, standing_out(best[0], best[1], self.compared))[:, 0]

    @torch.no_grad()
    def there(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> NamesThere:
        """Return the presence of each name, and where it stands out."""
        presence, places = self.of(encoder, looked, cells), normalize(cells.flatten(1), dim=0)
        z = standing_out(self.texts @ places, self.others @ places, self.compared)
        return NamesThere(presence, self.found(presence), z.unflatten(1, cells.shape[1:]) - PLACE * self.least)

    def found(self, presence: Float[Tensor, " k"]) -> Bool[Tensor, " k"]:
        """Return which names are present."""
        return presence >= self.least if self.least > 0 else torch.ones_like(presence, dtype=torch.bool)

    def to_json(self, presence: Float[Tensor, " k"]) -> dict[str, float]:
        """Return the presence by name."""
        return {name: round(float(v), 3) for name, v in zip(self.names, presence, strict=True)}


@dataclass(frozen=True, eq=False)
class NamesThere:
    """The names present in a picture, and their places."""

    of_picture: Float[Tensor, " k"]
    found: Bool[Tensor, " k"]
    margin: Float[Tensor, "k h w"]

    def without_others(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask without pixels whose name is absent from the picture, or does not stand out there; bilinear."""
        down, across = (bilinear(n, m) for n, m in zip(self.margin.shape[1:], mask.shape, strict=True))
        kept = np.full_like(mask, NOTHING)
        for k in np.flatnonzero(self.found.numpy()):
            there = (down @ self.margin[k] @ across.T).numpy() >= 0
            kept[(mask == k) & there] = k
        return kept


def standing_out(
    own: Float[Tensor, "k n"], others: Float[Tensor, "o n"], compared: Bool[Tensor, "k o"]
) -> Float[Tensor, "k n"]:
    """Return cosines of names with vectors, in standard deviations above the mean of other names."""
    weights = compared.to(others) / compared.sum(1, keepdim=True)
    mean = weights @ others
    variance = torch.stack([weights[k] @ (others - mean[k]) ** 2 for k in range(len(own))])
    return (own - mean) / variance.sqrt().clamp(min=FLAT)


class Finder(ABC):
    """Finds the objects with its names, and explains them."""

    classes: tuple[str, ...]

    @abstractmethod
    def find_all(self, pictures: Iterable[Any]) -> Iterator[Any]:
        """Find the objects in each picture, in order; an unreadable picture does not stop the others."""

    def find(self, picture: One) -> Any:
        """Find the objects in a picture."""
        result = next(iter(self.find_all([picture])))
        if isinstance(result, Failure):
            raise ImageError(result.image, result.error)
        return result

    def pooled(self) -> PooledScore:
        """Return how its score of a part is computed from the cells under it."""
        raise InputError(
            f"Scores of a {type(self).__name__} cannot be explained: it does not score a part by the cells under "
            "it. Expected a method that reads its encoder's map. Choose word_regions, maskclip, or a fitted one."
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
        """Explain boxes or segments: where, like what, in words, and the influence from outside; each kind is
        measured.

        Args:
            picture: a file name, pixels, or any other form of picture (:mod:`seewhy.pictures.sources`).
            most: how many to explain: the boxes with the highest scores, or the largest segments.
            descriptions: sentences about the classes.
            known: pictures to compare with, in boxes, masks or class folders.
            store: where encoded sentences are kept between runs.
            **options: options of :class:`seewhy.evidence.explain.ExplainOptions`.

        Returns:
            One explanation per part, with its ``box`` or a segment's ``mask``. They display themselves in a notebook.
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
    """Draws boxes around the objects that it finds."""

    @checked
    def detect(self, picture: One) -> Detections:
        """Find objects in a picture; an unreadable one raises an ``ImageError``."""
        return self.find(picture)

    @abstractmethod
    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        """Find objects in many pictures, in order; an unreadable one does not stop the others."""

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        return self.detect_all(pictures)


class NamesPixels(Finder):
    """Names every pixel of a picture."""

    @checked
    def segment(self, picture: One) -> Segmentation:
        """Name every pixel of a picture; an unreadable one raises an ``ImageError``."""
        return self.find(picture)

    @abstractmethod
    def segment_all(self, pictures: Iterable[Any]) -> Iterator[Segmentation | Failure]:
        """Name the pixels of many pictures, in order; an unreadable one does not stop the others."""

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Segmentation | Failure]:
        return self.segment_all(pictures)


class Scorer(ABC):
    """Computes class scores from an encoder's cells."""

    scale: float

    @property
    def compares(self) -> bool:
        """Whether :meth:`finish` needs the cells' features."""
        return False

    @abstractmethod
    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        """Return the scores of each window separately."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors from which its method can rebuild it."""

    @abstractmethod
    def pooled(self, looks: Segmenter) -> PooledScore:
        """Return the same scores as a layer on the mean of cells, so that a segment's score can be explained."""

    def random(self, seed: int) -> Scorer | None:
        """Return the same scorer with other texts, drawn at random; ``None`` if it uses no texts."""
        return None

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        """Finish the scores of the whole picture, merged from its windows."""
        return scores


@dataclass(frozen=True, eq=False)
class Segmenter(NamesPixels):
    """An encoder at a larger input, with a scorer of its cells; ``halves`` are the encoder's parts that were trained
    with it.
    """

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
    halves: TunedPictures | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, "A segmenter")

    @cached_property
    def reader(self) -> Reader:
        """Return the reader of pictures."""
        return Reader(self.base, self.zoom, self.levels)

    @property
    def encoder(self) -> Encoder:
        """The encoder, at the size of a window."""
        return self.reader.encoder

    def pooled(self) -> PooledScore:
        return self.scorer.pooled(self)

    def score(self, cells: Callable[[Encoder, Tensor], Tensor], head: Head) -> PooledScore:
        """Return a layer on the mean of cells, by which its scorer names a segment."""
        return PooledScore(
            self.reader, self.method, self.classes, cells, head, parameters=self.parameters, trained_on=self.trained_on
        )

    def check(self) -> None:
        """Check that the scorer fits the encoder's features and the number of classes; raises ``ValueError``
        otherwise.
        """
        features = self.encoder.forward_features(torch.zeros(1, 3, *self.encoder.transform.input_size))
        scores = self.scorer.scores(self.encoder, features)
        if scores.shape[1] != len(self.classes) or not bool(scores.isfinite().all()):
            raise ValueError(
                f"it gives {scores.shape[1]} scores for {len(self.classes)} classes, or some are not finite"
            )

    def segment_all(self, pictures: Iterable[Any], *, batch_size: int = 8) -> Iterator[Segmentation | Failure]:
        for looked in self.reader.looked(pictures, batch_size=batch_size):
            yield looked if isinstance(looked, Failure) else self._named(looked)

    @torch.no_grad()
    def scores(self, looked: Looked) -> Float[Tensor, "k h w"]:
        """Return the score of each class at each cell of the whole picture."""
        grid = looked.windows.merged
        keys = grid(self.encoder.layout.to_grid(looked.features)) if self.scorer.compares else None
        return self.scorer.finish(grid(self.scorer.scores(self.encoder, looked.features)), keys)

    def _named(self, looked: Looked) -> Segmentation:
        scores = self.scores(looked)
        presence = self.named_in(looked)
        mask, probability = self.pixels(scores, looked, presence)
        about = {
            "method": self.method,
            "encoder": self.base.name,
            "fingerprint": self.base.fingerprint,
            "input": list(self.encoder.transform.input_size),
            "n_windows": looked.windows.n[0] * looked.windows.n[1],
            "grid": list(scores.shape[1:]),
        }
        segments = segments_of(self.classes, mask, probability)
        by_name = {} if presence is None or self.presence is None else self.presence.to_json(presence.of_picture)
        return Segmentation(looked.name, self.classes, mask, scores.numpy(), segments, about, looked.pixels, by_name)

    def named_in(self, looked: Looked) -> NamesThere | None:
        """Return the names present in a picture, and where; ``None`` if every pixel gets a name."""
        if self.presence is None:
            return None
        cells = looked.windows.merged(joint_cells(self.encoder, looked.features))
        return self.presence.there(self.encoder, looked, cells)

    def pixels(
        self, scores: Float[Tensor, "k h w"], looked: Looked, there: NamesThere | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return class and probability of each pixel, at no more than the resolution of the network's input."""
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
