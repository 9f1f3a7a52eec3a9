"""What several encoders are asked on the same pictures: each task gives numbers of every test picture."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.encoded_set import evenly
from ..encoders.stream import Encoded, encode_stream
from ..errors import DataError
from ..heads.normalise import Normalise
from ..heads.votes import Votes
from ..pictures.corruptions import CORRUPTIONS, Corruption, read_small
from ..pictures.sources import InMemory
from ..progress import Progress
from ..storage.features import FeatureStore
from .material import LEAST_PER_CLASS, Material, subset_order

Values = Mapping[str, Float[Tensor, " t"]]
"""Measure → a number of each test picture, NaN where it was not asked."""


class Task(ABC):
    """One question to an encoder."""

    family: ClassVar[str]
    drawn: ClassVar[bool] = False

    @abstractmethod
    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        """Numbers of each test picture."""

    def why_not(self, material: Material) -> str | None:
        """Why it cannot be asked of these pictures; ``None`` where it can."""
        return None


class _Probe(Task):
    """The linear classifier of ``seewhy fit`` on some of the pictures."""

    name: str

    @abstractmethod
    def places(self, material: Material, seed: int) -> Int[Tensor, " m"]:
        """Of the pictures learnt from."""

    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        chosen = self.places(material, seed)
        part = material.part(chosen, material.labels[chosen], material.classes, seed)
        head, c = material.fitted(part, c)
        with torch.no_grad():
            right = head(material.tested).argmax(1) == material.labels[material.test]
        return {self.name: right.double()}, c


@dataclass(frozen=True)
class FewShot(_Probe):
    """So many pictures of each class, drawn; smaller draws lie in larger ones."""

    family: ClassVar[str] = "few-shot"
    drawn: ClassVar[bool] = True

    per_class: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.per_class} per class"

    def places(self, material: Material, seed: int) -> Tensor:
        return few(material.labels, material.pool, len(material.classes), self.per_class, seed)

    def why_not(self, material: Material) -> str | None:
        counts = material.labels[material.pool].bincount(minlength=len(material.classes))
        least = int(counts.min())
        if least >= self.per_class:
            return None
        return f"{self.name} was not asked: {material.classes[int(counts.argmin())]} has {least} to learn from"


@dataclass(frozen=True)
class LabelPart(_Probe):
    """A part of the labelled pictures, drawn with the classes in their shares; all of them at 1."""

    family: ClassVar[str] = "part of the labels"

    part: float

    @property
    def drawn(self) -> bool:  # type: ignore[override]
        return self.part < 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.part * 100:.3g} % of labels"

    def size(self, material: Material) -> int:
        return round(self.part * len(material.pool))

    def places(self, material: Material, seed: int) -> Tensor:
        if not self.drawn:
            return material.pool
        every = range(len(material.classes))
        return subset_order(material.labels, material.pool, every, seed)[: self.size(material)]

    def why_not(self, material: Material) -> str | None:
        least = LEAST_PER_CLASS * len(material.classes)
        if self.size(material) >= least:
            return None
        return f"{self.name} was not asked: that are {self.size(material)} pictures, and two per class are {least}"


@dataclass(frozen=True)
class Neighbours(Task):
    """The nearest pictures vote, each with ``exp(cosine / temperature)`` (Wu et al. 2018, arXiv:1805.01978)."""

    family: ClassVar[str] = "neighbours"

    k: int = 20
    temperature: float = 0.07

    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        votes = Votes(material.labels[material.pool], len(material.classes), self.k)
        said = torch.cat([votes(part / self.temperature).argmax(1) for part in likeness(material).split(512)])
        return {f"{self.k} nearest vote": (said == material.labels[material.test]).double()}, None


@dataclass(frozen=True)
class OwnClass(Task):
    """Each test picture looks for others of its class among those learnt from, by cosine.

    R@k: one of the first k is; mAP: mean over pictures of the average precision of the whole order.
    """

    family: ClassVar[str] = "retrieval"

    depths: tuple[int, ...] = (1, 5)

    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        owner, truth = material.labels[material.pool], material.labels[material.test]
        order = likeness(material).argsort(dim=1, descending=True, stable=True)
        hit = (owner[order] == truth[:, None]).double()
        values = {f"R@{k}": hit[:, :k].amax(1) for k in self.depths}
        precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1)
        return {**values, "mAP": (precision * hit).sum(1) / hit.sum(1)}, None


def likeness(material: Material) -> Float[Tensor, "t p"]:
    """Cosines of test pictures with those learnt from, features as the classifier of ``seewhy fit`` takes them."""
    feature = Normalise(material.recipe.power, l2=True)
    return feature(material.tested) @ feature(material.learnt).T


@dataclass(frozen=True)
class Corrupted(Task):
    """The classifier on all labels, asked about corrupted test pictures: the same corrupted pictures for all encoders.

    Of each kind the mean over its levels; ``kept`` is the mean over kinds less what is right of the same pictures
    uncorrupted, which is 0 where nothing is lost.
    """

    family: ClassVar[str] = "corrupted"

    kinds: tuple[Corruption, ...] = field(default=CORRUPTIONS, repr=False)
    n_pictures: int = 300
    store: FeatureStore | None = field(default=None, repr=False, compare=False)
    progress: Progress = field(default_factory=Progress, repr=False, compare=False)
    small: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        part = material.part(material.pool, material.labels[material.pool], material.classes, seed)
        head, c = material.fitted(part, c)
        asked = evenly(torch.ones_like(material.test, dtype=torch.bool), self.n_pictures)
        truth = material.labels[material.test][asked]

        @torch.no_grad()
        def right(pooled: Tensor) -> Tensor:
            return (head(pooled).argmax(1) == truth).double()

        looks = self.looks(material, material.test[asked].tolist())
        found = {kind.name: torch.stack([right(v) for v in looks[kind.name]]).mean(0) for kind in self.kinds}
        every = torch.stack(list(found.values())).mean(0)
        found |= {"all kinds": every, "kept": every - right(material.tested[asked])}
        empty = torch.full((len(material.test),), torch.nan, dtype=torch.double)
        return {name: empty.index_put((asked,), values) for name, values in found.items()}, c

    def looks(self, material: Material, places: Sequence[int]) -> dict[str, list[Float[Tensor, "m d"]]]:
        """Kind → level → what the encoder saw of the pictures in these places."""
        todo = [(kind, level, place) for kind in self.kinds for level in kind.levels for place in places]
        stream = encode_stream(material.encoder, [self._source(material, *one) for one in todo], store=self.store)
        rows: dict[tuple[str, float], list[Tensor]] = {}
        for (kind, level, _), seen in zip(
            todo, self.progress.track(stream, "Looking at corrupted", len(todo)), strict=True
        ):
            if not isinstance(seen, Encoded):
                raise DataError(f"{seen.image} cannot be looked at once more: {seen.error}. Leave it out.")
            rows.setdefault((kind.name, level), []).append(seen.pooled[0])
        return {kind.name: [torch.stack(rows[kind.name, level]) for level in kind.levels] for kind in self.kinds}

    def _source(self, material: Material, kind: Corruption, level: float, place: int) -> InMemory:
        item = material.pictures.items[place]

        def load() -> object:
            if place not in self.small:
                self.small[place] = torch.from_numpy(read_small(item.source))
            return kind(self.small[place].numpy(), level, place)

        return InMemory(item.image, load)


def few(labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], n_classes: int, per_class: int, seed: int) -> Tensor:
    """Places of so many of each class; more of one seed hold fewer of it.

    >>> labels = torch.tensor([0, 0, 0, 1, 1])
    >>> labels[few(labels, torch.arange(5), 2, 2, 0)].tolist()
    [0, 0, 1, 1]
    """
    chosen = []
    for k in range(n_classes):
        mine = pool[labels[pool] == k].tolist()
        random.Random(f"few {seed} {k}").shuffle(mine)
        chosen += mine[:per_class]
    return torch.tensor(chosen)
