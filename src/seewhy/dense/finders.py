"""What finds things in pictures: detectors give boxes, segmenters name every pixel; both explain what they found."""

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
"""Names that each name is compared with, every fourth of ImageNet's, but for the part that is most like it."""
LEAST, PLACE = 3.3, 0.6
"""Presence below which a name is not found; part of it by which a name must stand out at a place, to be said of it."""
FLAT = 1e-6
"""Least standard deviation of cosines: a place without features has none."""


def other_names() -> list[str]:
    """The names that every name is compared with."""
    classes = imagenet_classes()
    return [one.names[0] for one in classes[:: len(classes) // N_OTHERS]]


@dataclass(frozen=True, eq=False)
class Presence:
    """How far names stand out in a picture among :data:`N_OTHERS` other names.

    With ``z_k(v) = (cos(v, t_k) - mean_o cos(v, t_o)) / std_o cos(v, t_o)`` over the other names ``o``, without the
    tenth that is most like the name itself, a name's presence is the larger of two figures: ``z`` on the whole
    picture, and ``z`` of the cosines of each name at its own best place. So one limit suits every name and encoder.

    Form and limit were chosen with lite0 on photographs of Flickr8k and ImageNet. On other pictures of these sets,
    .68 (Flickr8k) and .61 (ImageNet) of 40 absent names are found per picture, and .48 and .96 of the present ones.

    Cost: no forward pass; the other names are encoded once and cached.
    """

    encoder: Encoder
    names: tuple[str, ...]
    template: str
    least: float = LEAST
    store: FeatureStore | None = field(default=None, repr=False)

    @cached_property
    def texts(self) -> Float[Tensor, "k d"]:
        """Of the names."""
        return encode_texts(self.encoder, [filled(self.template, name) for name in self.names], self.store)

    @cached_property
    def others(self) -> Float[Tensor, "o d"]:
        """Of the names that they are compared with."""
        text = self.encoder.text
        return place(text, own_sentences(text, [filled(self.template, name) for name in other_names()]))

    @cached_property
    def compared(self) -> Bool[Tensor, "k o"]:
        """Which names each is compared with: not with those most like it."""
        likeness = self.texts @ self.others.T
        return likeness <= likeness.quantile(1 - RELATIVES, dim=1, keepdim=True)

    @torch.no_grad()
    def of(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> Float[Tensor, " k"]:
        """The presence of each name in a picture."""
        windows = normalize(encoder.text.project(encoder.head(looked.features)), dim=1)
        whole, places = normalize(windows.mean(0), dim=0)[:, None], normalize(cells.flatten(1), dim=0)
        best = [(texts @ places).amax(1, keepdim=True) for texts in (self.texts, self.others)]
        on_whole = standing_out(self.texts @ whole, self.others @ whole, self.compared)
        return torch.maximum(on_whole, standing_out(best[0], best[1], self.compared))[:, 0]

    @torch.no_grad()
    def there(self, encoder: Encoder, looked: Looked, cells: Float[Tensor, "d h w"]) -> NamesThere:
        """The same, and where in the picture."""
        presence, places = self.of(encoder, looked, cells), normalize(cells.flatten(1), dim=0)
        z = standing_out(self.texts @ places, self.others @ places, self.compared)
        return NamesThere(presence, self.found(presence), z.unflatten(1, cells.shape[1:]) - PLACE * self.least)

    def found(self, presence: Float[Tensor, " k"]) -> Bool[Tensor, " k"]:
        """Which names are there."""
        return presence >= self.least if self.least > 0 else torch.ones_like(presence, dtype=torch.bool)

    def to_json(self, presence: Float[Tensor, " k"]) -> dict[str, float]:
        """By name."""
        return {name: round(float(v), 3) for name, v in zip(self.names, presence, strict=True)}


@dataclass(frozen=True, eq=False)
class NamesThere:
    """Which names a picture holds, and where."""

    of_picture: Float[Tensor, " k"]
    found: Bool[Tensor, " k"]
    margin: Float[Tensor, "k h w"]

    def without_others(self, mask: np.ndarray) -> np.ndarray:
        """A mask without the pixels whose name is not in the picture, or does not stand out there; bilinear."""
        down, across = (bilinear(n, m) for n, m in zip(self.margin.shape[1:], mask.shape, strict=True))
        kept = np.full_like(mask, NOTHING)
        for k in np.flatnonzero(self.found.numpy()):
            there = (down @ self.margin[k] @ across.T).numpy() >= 0
            kept[(mask == k) & there] = k
        return kept


def standing_out(
    own: Float[Tensor, "k n"], others: Float[Tensor, "o n"], compared: Bool[Tensor, "k o"]
) -> Float[Tensor, "k n"]:
    """Cosines of names with vectors, in standard deviations above the mean of other names."""
    weights = compared.to(others) / compared.sum(1, keepdim=True)
    mean = weights @ others
    variance = torch.stack([weights[k] @ (others - mean[k]) ** 2 for k in range(len(own))])
    return (own - mean) / variance.sqrt().clamp(min=FLAT)


class Finder(ABC):
    """Finds the objects that it looks for, and explains them."""

    classes: tuple[str, ...]

    @abstractmethod
    def find_all(self, pictures: Iterable[Any]) -> Iterator[Any]:
        """What each picture shows, in order; an unreadable picture does not stop the others."""

    def find(self, picture: One) -> Any:
        """What a picture shows."""
        result = next(iter(self.find_all([picture])))
        if isinstance(result, Failure):
            raise ImageError(result.image, result.error)
        return result

    def pooled(self) -> PooledScore:
        """How its score of a part comes from the cells under it."""
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
        """Explain boxes or segments: where, like what, in words, and what comes from outside; each kind is measured.

        Args:
            picture: a file name, pixels, or whatever else a picture may be given as (:mod:`seewhy.pictures.sources`).
            most: how many to explain: the boxes with the highest scores, or the largest segments.
            descriptions: sentences about the classes.
            known: pictures to compare with, in boxes, masks or class folders.
            store: where encoded sentences are kept between runs.
            **options: of :class:`seewhy.evidence.explain.ExplainOptions`.

        Returns:
            One explanation each, with its ``box`` and a segment's ``mask``. They display themselves in a notebook.
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
    """Draws boxes around what it finds."""

    @checked
    def detect(self, picture: One) -> Detections:
        """Find objects in a picture; an unreadable one raises an ``ImageError``."""
        return self.find(picture)

    @abstractmethod
    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        """The same of many, in order; one that cannot be read never stops the others."""

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
        """The same of many, in order; one that cannot be read never stops the others."""

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Segmentation | Failure]:
        return self.segment_all(pictures)


class Scorer(ABC):
    """What makes scores of classes of an encoder's cells."""

    scale: float

    @property
    def compares(self) -> bool:
        """Whether :meth:`finish` wants the cells' features."""
        return False

    @abstractmethod
    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k h w"]:
        """Of each window by itself."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What its method needs to make it again."""

    @abstractmethod
    def pooled(self, looks: Segmenter) -> PooledScore:
        """The same as a layer on the mean of cells, so that a segment's score can be explained."""

    def random(self, seed: int) -> Scorer | None:
        """The same with other texts, drawn at random; ``None`` where no texts score."""
        return None

    def finish(self, scores: Float[Tensor, "k h w"], keys: Float[Tensor, "c h w"] | None) -> Float[Tensor, "k h w"]:
        """Of the whole picture, when its windows are put together."""
        return scores


@dataclass(frozen=True, eq=False)
class Segmenter(NamesPixels):
    """An encoder at a larger input, and what makes classes of its cells; its ``halves``, where they learnt with it."""

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
        """What looks at pictures."""
        return Reader(self.base, self.zoom, self.levels)

    @property
    def encoder(self) -> Encoder:
        """What looks, at the size of a window."""
        return self.reader.encoder

    def pooled(self) -> PooledScore:
        return self.scorer.pooled(self)

    def score(self, cells: Callable[[Encoder, Tensor], Tensor], head: Head) -> PooledScore:
        """A layer on the mean of cells, by which its scorer names a segment."""
        return PooledScore(
            self.reader, self.method, self.classes, cells, head, parameters=self.parameters, trained_on=self.trained_on
        )

    def check(self) -> None:
        """See that it can score what its encoder gives, with as many classes as it has; ``ValueError`` otherwise."""
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
        """Of each class at each cell of the whole picture."""
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
        """Which names a picture and its places hold; ``None`` where every pixel is named."""
        if self.presence is None:
            return None
        cells = looked.windows.merged(joint_cells(self.encoder, looked.features))
        return self.presence.there(self.encoder, looked, cells)

    def pixels(
        self, scores: Float[Tensor, "k h w"], looked: Looked, there: NamesThere | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class and probability of each pixel; no finer than the network's input was, then repeated."""
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
