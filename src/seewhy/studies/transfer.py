"""Compares several encoders on the same pictures and tests which differences are significant."""

from __future__ import annotations

import io
import random
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageFilter
from torch import Tensor

from ..bounds import Bound, Checked, Count, InnerPart, Natural
from ..classifiers.encoded_set import evenly
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..encoders.stream import Encoded, encode_stream
from ..errors import DataError, InputError
from ..heads.normalise import Normalise
from ..heads.votes import Votes
from ..pictures.images import read_picture, read_views
from ..pictures.samples import Samples
from ..pictures.sources import InMemory, One
from ..progress import Progress, shown
from ..storage.features import FeatureStore
from ..types import Crop, Transform
from . import pages
from .bootstrap import Measure, compared, said_of, standings
from .material import LEAST_PER_CLASS, Material, classifier_text, look_with_each, subset_order
from .study import Findings, Row, beside, measured

Values = Mapping[str, Float[Tensor, " t"]]
"""Values of each measure, one per test picture; NaN for pictures that were not tested."""


SIDE = 224
"""Short side, in pixels, to which pictures are reduced before corruption."""
_UNIT = (1.0, 1.0, 1.0)
_SMALL = Transform((32, 32), 32, "bilinear", _UNIT, _UNIT)
WHOLE = Crop((0.0, 0.0, 1.0, 1.0))


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption at levels 1, 3 and 5 of ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261)."""

    name: str
    levels: tuple[float, ...]
    change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]

    def __call__(self, pixels: np.ndarray, level: float, seed: int) -> np.ndarray:
        return self.change(pixels, level, np.random.default_rng([seed, *self.name.encode()]))


def read_small(source: One) -> np.ndarray:
    """Return the picture ``(h, w, 3)``, with its short side at most :data:`SIDE` pixels."""
    width, height = read_picture(source, _SMALL).original_size
    shrink = min(1.0, SIDE / min(width, height))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return read_views(source, Transform(size, size, "bicubic", _UNIT, _UNIT), [WHOLE])[0].pixels


def _jpeg(pixels: np.ndarray, quality: float, _rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=int(quality))
    return np.asarray(Image.open(buffer).convert("RGB"))


def _blur(pixels: np.ndarray, sigma: float, _rng: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian; ``sigma`` is in pixels of a picture of side :data:`SIDE`."""
    radius = sigma * min(pixels.shape[:2]) / SIDE
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _noise(pixels: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return _bytes(pixels / 255 + rng.normal(0, scale, pixels.shape))


def _resampling(pixels: np.ndarray, part: float, _rng: np.random.Generator) -> np.ndarray:
    """Downsample and upsample with a box filter."""
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize(
        (max(1, int(width * part)), max(1, int(height * part))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _brightness(pixels: np.ndarray, more: float, _rng: np.random.Generator) -> np.ndarray:
    """Add to the value channel of HSV."""
    unit = pixels / 255
    value = unit.max(2, keepdims=True)
    raised = np.minimum(value + more, 1)
    return _bytes(np.where(value > 0, unit * raised / np.where(value > 0, value, 1), raised))


def _bytes(unit: np.ndarray) -> np.ndarray:
    return (unit.clip(0, 1) * 255).astype(np.uint8)


CORRUPTIONS = (
    Corruption("JPEG", (25, 15, 7), _jpeg),
    Corruption("blur", (1, 3, 6), _blur),
    Corruption("noise", (0.08, 0.18, 0.38), _noise),
    Corruption("resampling", (0.6, 0.4, 0.25), _resampling),
    Corruption("brightness", (0.1, 0.3, 0.5), _brightness),
)


class Task(ABC):
    """A measurement of an encoder."""

    family: ClassVar[str]
    drawn: ClassVar[bool] = False

    @abstractmethod
    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        """Return numbers for each test picture, and the regularisation strength if one was chosen."""

    def why_not(self, material: Material) -> str | None:
        """Return the reason why these pictures are not enough for the task, or ``None``."""
        return None


class _Probe(Task):
    """A linear classifier, as in ``seewhy fit``, trained on a subset of the pictures."""

    name: str

    @abstractmethod
    def places(self, material: Material, seed: int) -> Int[Tensor, " m"]:
        """Return the positions of the training pictures."""

    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        chosen = self.places(material, seed)
        head, c = material.fitted(material.part(chosen, material.labels[chosen], material.classes, seed), c)
        with torch.no_grad():
            right = head(material.tested).argmax(1) == material.labels[material.test]
        return {self.name: right.double()}, c


@dataclass(frozen=True)
class FewShot(_Probe):
    """A linear classifier on a few pictures per class."""

    family: ClassVar[str] = "few-shot"
    drawn: ClassVar[bool] = True

    per_class: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.per_class} per class"

    def places(self, material: Material, seed: int) -> Tensor:
        return few(material.labels, material.pool, len(material.classes), self.per_class, seed)

    def why_not(self, material: Material) -> str | None:
        least, k = material.labels[material.pool].bincount(minlength=len(material.classes)).min(0)
        said = f"{self.name} was not measured: {material.classes[k]} has only {least} pictures to train on"
        return said if least < self.per_class else None


@dataclass(frozen=True)
class LabelPart(_Probe):
    """A linear classifier on a stratified fraction of the labelled pictures."""

    family: ClassVar[str] = "part of the labels"

    part: float

    @property
    def drawn(self) -> bool:  # type: ignore[override]
        return self.part < 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.part * 100:.3g} % of labels"

    def places(self, material: Material, seed: int) -> Tensor:
        order = subset_order(material.labels, material.pool, range(len(material.classes)), seed)
        return order[: round(self.part * len(order))] if self.drawn else material.pool

    def why_not(self, material: Material) -> str | None:
        least, n = LEAST_PER_CLASS * len(material.classes), round(self.part * len(material.pool))
        said = f"{self.name} were not measured: they have {n} pictures, and two per class need {least}"
        return said if n < least else None


@dataclass(frozen=True)
class Neighbours(Task):
    """A k-nearest-neighbour vote with weights ``exp(cosine / temperature)`` (Wu et al. 2018, arXiv:1805.01978)."""

    family: ClassVar[str] = "neighbours"

    k: int = 20
    temperature: float = 0.07

    def measured(self, material: Material, seed: int, c: float | None) -> tuple[Values, float | None]:
        votes = Votes(material.labels[material.pool], len(material.classes), self.k)
        said = torch.cat([votes(part / self.temperature).argmax(1) for part in likeness(material).split(512)])
        return {f"{self.k} nearest vote": (said == material.labels[material.test]).double()}, None


@dataclass(frozen=True)
class OwnClass(Task):
    """Retrieval of training pictures of the test picture's class, by cosine similarity.

    R@k is the fraction of test pictures for which the first k results include a picture of the same class. mAP is the
    mean average precision over the whole ranking.
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
    """Return the cosine similarities of test and training pictures."""
    feature = Normalise(material.recipe.power, l2=True)
    return feature(material.tested) @ feature(material.pictures.pooled[material.pool]).T


@dataclass(frozen=True)
class Corrupted(Task):
    """Accuracy of the classifier on corrupted test pictures.

    The accuracy for each kind of corruption is the mean over the levels. ``kept`` is the mean over the kinds minus the
    accuracy on the original pictures.
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
        found = {name: torch.stack([right(v) for v in levels]).mean(0) for name, levels in looks.items()}
        every = torch.stack(list(found.values())).mean(0)
        found |= {"all kinds": every, "kept": every - right(material.tested[asked])}
        empty = torch.full((len(material.test),), torch.nan, dtype=torch.double)
        return {name: empty.index_put((asked,), values) for name, values in found.items()}, c

    def looks(self, material: Material, places: Sequence[int]) -> dict[str, list[Float[Tensor, "m d"]]]:
        """Return the features of the corrupted pictures, by kind and level."""
        todo = [(kind, level, place) for kind in self.kinds for level in kind.levels for place in places]
        stream = encode_stream(material.encoder, [self._source(material, *one) for one in todo], store=self.store)
        rows = []
        for encoded in self.progress.track(stream, "Looking at degraded pictures", len(todo)):
            if not isinstance(encoded, Encoded):
                raise DataError(f"{encoded.image} can no longer be read: {encoded.error}. Leave it out.")
            rows.append(encoded.pooled[0])
        levels = iter(torch.stack(rows).split(len(places)))
        return {kind.name: [next(levels) for _ in kind.levels] for kind in self.kinds}

    def _source(self, material: Material, kind: Corruption, level: float, place: int) -> InMemory:
        item = material.pictures.items[place]

        def load() -> object:
            if place not in self.small:
                self.small[place] = torch.from_numpy(read_small(item.source))
            return kind(self.small[place].numpy(), level, place)

        return InMemory(item.image, load)


def few(labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], n_classes: int, per_class: int, seed: int) -> Tensor:
    """Return positions of ``per_class`` random pictures per class; of one seed, larger draws contain smaller ones."""
    chosen = []
    for k in range(n_classes):
        mine = pool[labels[pool] == k].tolist()
        random.Random(f"few {seed} {k}").shuffle(mine)
        chosen += mine[:per_class]
    return torch.tensor(chosen)


@dataclass(frozen=True)
class TransferStudy(Checked):
    """Compares several encoders on the same pictures and tests which differences are significant.

    The study measures linear classifiers on few pictures per class, on fractions of the labels and on all labels, k
    nearest neighbours, retrieval, and the accuracy on corrupted pictures. The protocol follows ConVIRT (Zhang et al.
    2020, arXiv:2010.00747: 1, 10 and 100 % of the labels, 5 draws) with frozen features. :func:`.bootstrap.compared`
    tests the differences.

    Args:
        shots: numbers of training pictures per class, each at least 1, separated by commas.
        parts: fractions of the labels to train on, between 0 and 1, separated by commas; the classifier on all labels
            is always included.
        n_seeds: number of random draws of training pictures, at least 2; more draws give narrower intervals.
        n_corrupted: largest number of test pictures to corrupt; 0 skips this measure.
        recipe: classifier to fit.
        held_out: fraction of the pictures to test on, 0 to 1, if no test pictures are given; pictures of the same
            object stay together.
        level: confidence level of the intervals, 0.5 to 1; a difference is significant if its corrected p value is
            below 1 - level.
        seed: seed of the split and the draws.
    """

    noun = "the study"

    shots: tuple[Count, ...] = (1, 2, 4, 8, 16)
    parts: tuple[InnerPart, ...] = (0.01, 0.1)
    n_seeds: Annotated[int, Bound(2)] = 5
    n_corrupted: Natural = 300
    recipe: Linear = field(default_factory=lambda: Linear(n_crops=0))
    held_out: float = 0.2
    level: float = 0.95
    seed: int = 0

    @shown("Working out the answer")
    def run(
        self,
        encoders: Mapping[str, Encoder],
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
    ) -> Findings:
        """Run the study; results that an earlier run stored in ``folder`` are not computed again."""
        if not encoders:
            raise InputError("`encoders` must have at least one entry. Add -e lite0 -e lite2, for example.")
        progress = progress or Progress()
        materials = look_with_each(
            encoders, samples, self.recipe, held_out=self.held_out, seed=self.seed, test=test, store=store,
            progress=progress,
        )  # fmt: skip
        material, names = next(iter(materials.values())), list(materials)
        every: list[Task] = [FewShot(k) for k in sorted(set(self.shots))]
        every += [LabelPart(part) for part in sorted({*self.parts, 1.0})]
        every += [Neighbours(), OwnClass()]
        if self.n_corrupted:
            every.append(Corrupted(n_pictures=self.n_corrupted, store=store, progress=progress))
        tasks = []
        for task in every:
            if (reason := task.why_not(material)) is None:
                tasks.append(task)
            else:
                progress.note(reason)
        groups = material.pictures.groups[material.test]
        tables = compared(self._measured(tasks, materials, folder, progress), names, groups, self.level, pairs)
        n_compared = sum(len(t["differences"]) for t in tables)
        judged = f" Level: {100 * self.level:.0f} %, corrected for {n_compared} comparisons."
        settings = {name: getattr(self, name) for name in ("n_seeds", "level", "seed", "n_corrupted")}
        data = {
            "study": "transfer",
            "sentence": f"{said_of(tables, names)}.{judged if n_compared else ''}",
            "n": len(material.labels), "n_learn": len(material.pool), "n_test": len(material.test),
            "n_groups": len(groups.unique()), "n_classes": len(material.classes),
            "encoders": [
                {"name": name, "fingerprint": m.encoder.fingerprint[:12], "width": m.tested.shape[1]}
                for name, m in materials.items()
            ],
            "standings": standings(tables, names), "measures": tables,
            "settings": {**settings, "n_compared": n_compared, "classifier": classifier_text(self.recipe)},
            **beside(progress),
        }  # fmt: skip
        return Findings(data, pages.comparison)

    def _measured(
        self, tasks: Sequence[Task], materials: Mapping[str, Material], folder: Path | None, progress: Progress
    ) -> list[Measure]:
        planned = [
            (task, name, seed)
            for task in tasks
            for name in materials
            for seed in range(self.seed, self.seed + (self.n_seeds if task.drawn else 1))
        ]
        digests = {name: material.digest() for name, material in materials.items()}
        chosen: dict[tuple[Task, str], float | None] = {}

        def key(task: Task, name: str, seed: int) -> str:
            return f"{digests[name]} {task!r} {seed}"

        def ask(task: Task, name: str, seed: int) -> Row:
            values, c = task.measured(materials[name], seed, chosen.get((task, name)))
            return {"values": written(values), "cell": {"encoder": name, "C": c}}

        found: dict[tuple[str, str], dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        for (task, name, _), row in measured(planned, key, ask, folder, progress, "Fitting and measuring encoders"):
            chosen.setdefault((task, name), row["cell"]["C"])
            for measure, numbers in row["values"].items():
                found[task.family, measure][name].append(read(numbers))
        return [
            Measure(measure, family, torch.stack([torch.stack(by_name[name]) for name in materials]))
            for (family, measure), by_name in found.items()
        ]


def written(values: Values) -> dict[str, list[float | None]]:
    """Format numbers as JSON: integers without decimals, NaN as ``null``."""

    def short(value: float) -> float | None:
        return None if value != value else int(value) if value == int(value) else round(value, 5)

    return {name: [short(v) for v in numbers.tolist()] for name, numbers in values.items()}


def read(numbers: Sequence[float | None]) -> Tensor:
    return torch.tensor([torch.nan if v is None else v for v in numbers], dtype=torch.double)
