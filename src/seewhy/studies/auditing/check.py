"""What one figure of an audit is: the base of them all, and the material they are measured on."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...classifiers.base import Classifier
from ...evaluation.copies import Judged
from ...explanation.base import Explanation
from ...metrics.calibration import accuracy_interval
from ...pictures.object_masks import MaskSource
from ...pictures.samples import Sample
from ...progress import Progress
from ...storage.features import FeatureStore
from .limit import Bound, Figure, Limit, Side


@dataclass(frozen=True, eq=False)
class Material:
    """A classifier and what it said of labelled pictures that it should not have been fitted on.

    Attributes:
        classifier: what is audited.
        items: the pictures that can be read.
        logits: by the classifier.
        pooled: their features.
        labels: places of their classes.
        files: what tells each again.
        grouped: whether a column of groups was named.
        n_unreadable: pictures that cannot be read.
        n_explained: pictures drawn at random whose explanations are measured.
        masks: who says where the objects are, if anybody does.
        store: where looks are kept.
        seed: of every draw.
        progress: hears of progress and failures.
    """

    classifier: Classifier
    items: tuple[Sample, ...]
    logits: Float[Tensor, "n k"]
    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    files: tuple[Judged, ...]
    grouped: bool
    n_unreadable: int
    n_explained: int
    masks: MaskSource | None
    store: FeatureStore | None
    seed: int
    progress: Progress

    @cached_property
    def right(self) -> Bool[Tensor, " n"]:
        return self.logits.argmax(1) == self.labels

    @cached_property
    def explained(self) -> tuple[Explanation, ...]:
        """Cards of pictures drawn at random; made when a figure first asks for them."""
        drawn = random.Random(self.seed).sample(range(len(self.items)), min(self.n_explained, len(self.items)))
        pictures = [self.items[i].source for i in sorted(drawn)]
        stream = self.classifier.explain_all(pictures, store=self.store, seed=self.seed)
        made = self.progress.track(stream, "Measuring explanations", len(pictures))
        return tuple(e for e in made if isinstance(e, Explanation))


@dataclass(frozen=True)
class Check(ABC):
    """One figure.

    Attributes:
        name: in contracts.
        title: on pages.
        told: what it is, for the contract that is written.
        side, preset, bound, required: the limit of the contract that is written.
        low, high: between which a limit makes sense.
        level: least verdict that counts, where the figure counts verdicts.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    told: ClassVar[str]
    side: ClassVar[Side]
    preset: ClassVar[float]
    bound: ClassVar[Bound] = "value"
    required: ClassVar[bool] = True
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    level: ClassVar[str] = ""

    @abstractmethod
    def measure(self, material: Material, limit: Limit) -> Figure:
        """The figure; one without a value where it cannot be had."""

    @property
    def limit(self) -> Limit:
        """That of the contract that is written."""
        return Limit(self.side, self.preset, self.bound, self.required, self.level)


def share(inside: Bool[Tensor, " n"], meaning: str) -> Figure:
    """A part of pictures, with Wilson's interval."""
    return Figure(float(inside.float().mean()), accuracy_interval(inside), len(inside), meaning)
