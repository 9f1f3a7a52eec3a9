"""Training of an encoder on pictures without texts."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..bounds import Bound, Count, check_fields
from ..classifiers.encoded_set import EncodedSet
from ..encoders.base import Encoder, GlobalAverage, Layout, TrainableText
from ..encoders.split import example_pixels
from ..errors import DataError, InputError, UnknownNameError
from ..pictures.datasets import samples_or_pictures
from ..pictures.samples import Sample, some, under_two_classes
from ..progress import Progress
from ..seeded import seeded
from ..storage.features import FeatureStore
from ..training.augmentation import Augmentation, TrainingPictures, augmentation
from ..training.batches import Batch, TrainingData, gathered
from ..training.loop import Trained, Training
from ..training.task import Task
from .contrast import hold_norms
from .encoders.image_copy import ImageCopy
from .encoders.projection import Form, Projection
from .encoders.pyramid import Pyramid
from .objectives import objectives
from .objectives.pictures import Dense, PictureObjective, Vectors
from .pooled import classes_of
from .way import Finished, Way, noted

TUNING_LR = 1e-4
"""Default learning rate of encoders without one of their own."""


class Pretrained(Finished[EncodedSet, Any]):
    """The result of :func:`seewhy.pretrain`: an encoder trained on pictures without texts."""


@dataclass(frozen=True)
class Pretrain(Way[EncodedSet, Any]):
    """Training of an encoder on pictures, with or without classes.

    Args:
        objective: loss, which must not need texts.
        settings: settings of the loss.
        projection: projection head during training: ``none``, ``linear``, ``mlp`` or ``fixed``. See
            :class:`seewhy.learning.encoders.projection.Projection`.
        projection_width: output dimensions of the projection head.
        kappa: in a ``fixed`` projection, ratio of each coordinate's weight to the next, at least 1; default: computed
            from ``effective``.
        effective: in a ``fixed`` projection, number of coordinates whose weight is at least a thousandth of the first;
            default: half of the coordinates.
        keep_head: whether to save the projection head with the encoder.
        pyramid: whether to train a feature pyramid on the trunk's stages and save it as the new trunk.
        augmentation: name of the augmentation.
        micro_batch: number of pictures per forward pass; default: as many as fit into memory. Lower it if memory runs
            out.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "label", "group")
    all_of_it: ClassVar[Mapping[str, Any]] = {}
    by_class: ClassVar[bool] = True
    result: ClassVar[type[Finished[Any, Any]]] = Pretrained
    keep: float | None = field(init=False, default=1.0)
    may_forget: float = field(init=False, default=1.0)

    objective: PictureObjective | str = "simclr"
    settings: Mapping[str, Any] = field(default_factory=dict)
    projection: Form = "mlp"
    projection_width: int = 128
    kappa: float | None = None
    effective: float | None = None
    keep_head: bool = False
    pyramid: bool = False
    augmentation: Augmentation | str = "simclr"
    micro_batch: int | None = None
    _: KW_ONLY
    epochs: Count = 20
    batch_size: Annotated[int, Bound(2)] = 256
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        check_fields(self, "pretrain")
        name, dense = self.made().name, isinstance(self.made(), Dense)
        unfit = "keep_head" if self.keep_head and dense else "pyramid" if self.pyramid and not dense else ""
        if unfit:
            sees, expected = ("patches", "whole views") if dense else ("whole views", "patches")
            raise InputError(
                f"{unfit}=True needs an objective on {expected}, got {name!r}, which learns from {sees}. Leave {unfit} "
                "out, or use another objective."
            )
        _ = self.head(), self.views()

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> tuple[Sample, ...]:
        items = noted(samples_or_pictures(source, **columns), progress)
        check_classes(self.made(), items)
        return items

    def n_texts(self, read: Sequence[Sample]) -> int:
        return 0

    def look(self, on: Encoder, read: Sequence[Sample], store: FeatureStore | None, progress: Progress) -> EncodedSet:
        return EncodedSet.of(on, read, classes_of(read), store, progress)

    def refuse(self, on: Encoder, read: Sequence[Sample]) -> None:
        check_classes(self.made(), read)

    def check(self, own: EncodedSet, progress: Progress) -> None:
        check_classes(self.made(), own.items)
        twice = under_two_classes([item.label for item in own.items], own.digests)
        names = [item.image for item, both in zip(own.items, twice, strict=True) if both]
        if names:
            progress.note(f"some pictures occur twice with different classes: {some(names, 3)}")

    def made(self) -> PictureObjective:
        if not isinstance(self.objective, str):
            return self.objective
        found = objectives[self.objective]
        if not issubclass(found, PictureObjective):
            able = ", ".join(name for name in objectives if is_of_pictures(name))
            raise InputError(
                f"`objective` must learn from pictures only, got {self.objective!r}, which needs {found.needs}. Use "
                f"one of {able}, or give pictures with texts."
            )
        known = [one.name for one in fields(cast(Any, found))]
        for name in self.settings:
            UnknownNameError.check(f"setting of {self.objective}", name, known)
        return found(**self.settings)

    def head(self) -> Projection:
        normalised = isinstance(self.made(), Dense)
        return Projection(self.projection, self.projection_width, self.kappa, self.effective, normalised)

    def views(self) -> Augmentation:
        return augmentation(self.augmentation) if isinstance(self.augmentation, str) else self.augmentation

    def training(self, data: TrainingData, on: Encoder) -> Training:
        own = on.text.tuning_lr if on.has_text and isinstance(on.text, TrainableText) else TUNING_LR
        return Training.cosine(self, data, self.lr or own)

    def seal(self, own: EncodedSet) -> list[Any]:
        return [self.facts(), [item.label for item in own.items] if own.classes else []]

    def prepared(self, on: Encoder, own: EncodedSet, progress: Progress) -> tuple[ImageCopy, Task, TrainingData]:
        objective, sources = self.made(), [item.source for item in own.items]
        pictures = TrainingPictures(on, sources, None, progress, n_views=objective.n_views, augmentation=self.views())
        columns: dict[str, Any] = {"pixels": pictures}
        classes = own.classes if objective.needs_labels else ()
        if classes:
            columns["labels"] = own.labels
        data, width = TrainingData(len(own), columns), own.pooled.shape[1]
        n_steps = self.training(data, on).n_steps
        if isinstance(objective, Dense):
            return *dense_views(on, objective, self.head(), self.pyramid, n_steps=n_steps, seed=self.seed), data
        tower = ImageCopy.before(on)
        with seeded(self.seed):
            head = self.head().build(width, progress)
            network, out = nn.Sequential(tower.trunk, tower.pool), self.head().out_width(width)
            n, k = len(own), len(classes)
            vectors = cast(Vectors, objective)
            task = Views(network, head, vectors, width=out, n_classes=k, n_pictures=n, n_steps=n_steps)
        if self.keep_head:
            tower.behind, tower.head = head, self.head().facts(width)
        return tower, task, data

    def facts(self) -> dict[str, Any]:
        objective = self.made()
        plain = asdict(replace(self, objective=objective.name, settings={}, augmentation=self.views()))
        return {**plain, "settings": {"n_views": objective.n_views, **asdict(cast(Any, objective))}}

    def told(self, own: EncodedSet, data: TrainingData, done: Trained) -> dict[str, Any]:
        sizes = {"n_pictures": len(own), "n_classes": len(own.classes)}
        return {**self.facts(), "train": "pictures", **sizes, "loss": done.loss}


def is_of_pictures(objective: str) -> bool:
    """Return whether an objective trains without texts."""
    return issubclass(objectives[objective], PictureObjective)


def check_classes(objective: PictureObjective, items: Sequence[Sample]) -> None:
    if not objective.needs_labels:
        return
    without = [item.image for item in items if not item.label]
    if without:
        raise DataError(
            f"The objective {objective.name} needs a class for each picture, but {len(without)} of {len(items)} "
            f"pictures have none: {some(without, 3)}. Give the column of classes, or use an objective without classes."
        )
    counts = Counter(item.label for item in items)
    if len(counts) < 2:
        raise DataError(
            f"The objective {objective.name} needs at least 2 classes, but all {len(items)} pictures have the class "
            f"{next(iter(counts), '')!r}. Add another class, or use an objective without classes."
        )
    if max(counts.values()) == 1:
        raise DataError(
            f"The objective {objective.name} needs a class with at least 2 pictures, but each of the {len(counts)} "
            "classes has only one. Add pictures, or use an objective without classes."
        )


class Slow(nn.Module):
    """Exponential moving average of a network (BYOL, arXiv 2006.07733, section 3.3).

    After each step, ``slow = m slow + (1 - m) network``, where ``slow`` are the averaged weights and ``m`` is the
    momentum.
    """

    step: Tensor

    def __init__(self, network: nn.Module, momentum: float, n_steps: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.momentum, self.n_steps = momentum, n_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        for module in self.network.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    del module._parameters[name]
                    module.register_buffer(name, value.detach().clone())

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    @property
    def rate(self) -> float:
        """Return the momentum ``m = 1 - (1 - momentum) (cos(pi t / n_steps) + 1) / 2`` at step ``t``."""
        share = min(int(self.step) / self.n_steps, 1.0)
        return 1 - (1 - self.momentum) * (math.cos(math.pi * share) + 1) / 2

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        own = dict(self.network.named_buffers())
        weights = dict(network.named_parameters())
        torch._foreach_lerp_([own[name] for name in weights], [p.detach() for p in weights.values()], 1 - self.rate)
        for name, value in network.named_buffers():
            own[name].copy_(value)
        self.step += 1


class Views(Task):
    """Training task that compares the vectors of several views.

    The value ``spread`` in the log is 0 if all vectors are the same (collapse).
    """

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module,
        objective: Vectors,
        *,
        width: int,
        n_classes: int,
        n_pictures: int,
        n_steps: int,
        hold: bool = True,
    ) -> None:
        super().__init__()
        self.needs = ("views", *(("labels",) if n_classes else ()))  # type: ignore[misc]
        self.network = nn.Sequential(tower, projection).requires_grad_(True)
        self.objective, self.hold = objective, hold
        self.beside = objective.state(width, n_classes, n_pictures, n_steps)
        self.slow = Slow(self.network, objective.momentum, n_steps) if objective.slow_views else None

    def features(self, batch: Batch) -> dict[str, Float[Tensor, "b v d"]]:
        if self.hold:
            hold_norms(self)
        views = batch["views"][: self.objective.n_views]
        found = {"vectors": _vectors(self.network, views)}
        if self.slow is not None:
            found["slow"] = _vectors(self.slow, views[-self.objective.slow_views :])
        found["index"] = torch.tensor(batch.index, device=views[0].device)
        return found

    def loss(self, features: dict[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        slow = gathered(features["slow"])[0] if "slow" in features else None
        labels = gathered(batch["labels"])[0] if "labels" in self.needs else None
        vectors, index = gathered(features["vectors"])[0], gathered(features["index"])[0]
        loss = self.objective(vectors, labels, state=self.beside, slow=slow, index=index)
        directions = normalize(vectors.detach().float(), dim=2).flatten(0, 1)
        return {"loss": loss, "spread": directions.var(0, unbiased=False).sum(), **self.beside.watched}

    def after_step(self) -> None:
        self.beside.after_step()
        if self.slow is not None:
            self.slow.follow(self.network)


def _vectors(network: nn.Module, views: tuple[Tensor, ...]) -> Float[Tensor, "b v d"]:
    vectors: Tensor = network(views[0] if len(views) == 1 else torch.cat(views))
    return vectors.unflatten(0, (len(views), -1)).transpose(0, 1)


class OneMap(nn.Module):
    """The feature map of a trunk, in the form of a pyramid with one level."""

    def __init__(self, trunk: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.trunk, self.layout = trunk, layout

    def levels(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c gh gw"], ...]:
        return (self.layout.to_grid(self.trunk(pixels)),)


class Cells(nn.Module):
    """A head ``(n, c)`` → ``(n, d)`` applied at every position of a feature map."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        rows: Tensor = self.head(cells.movedim(1, 3).flatten(0, 2))
        return rows.unflatten(0, (len(cells), *cells.shape[2:])).movedim(3, 1)


class Branch(nn.Module):
    """Pixels → projected feature maps of all levels and, optionally, a projected pooled map."""

    def __init__(self, maps: nn.Module, cells: nn.Module, whole: nn.Module | None) -> None:
        super().__init__()
        self.maps, self.cells, self.whole = maps, cells, whole

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> dict[str, Any]:
        levels = self.maps.levels(pixels)  # type: ignore[operator]
        whole = {} if self.whole is None else {"whole": self.whole(levels[-1])}
        return {"cells": tuple(self.cells(level) for level in levels), **whole}


class DenseViews(Task):
    """Training task in which one view predicts the patches of the other view, encoded by the moving average.

    All pyramid levels share the projection heads, and their losses have equal weights. Batch normalisation in the trunk
    stays in evaluation mode. Batch normalisation in the heads uses batch statistics, which prevents collapse with small
    batches.
    """

    needs = ("views", "boxes", "flipped")

    def __init__(self, maps: nn.Module, head: Projection, objective: Dense, *, n_in: int, n_steps: int) -> None:
        super().__init__()
        self.objective, self.whole = objective, objective.instance_weight > 0
        width = head.out_width(n_in)
        cells, whole = Cells(head.build(n_in)), Cells(head.build(n_in)) if self.whole else None
        self.branch = Branch(maps, cells, whole).requires_grad_(True)
        self.slow = Slow(self.branch, objective.momentum, n_steps)
        self.predictor = Cells(head.build(width)) if self.whole else None
        self.beside = objective.state(width)

    def features(self, batch: Batch) -> tuple[dict[str, Any], ...]:
        for part in ("branch.maps.trunk", "slow.network.maps.trunk"):
            hold_norms(self.get_submodule(part))
        found = []
        for view in batch["views"][:2]:
            own = self.branch(view)
            if self.predictor is not None:
                own = {**own, "whole": self.predictor(own["whole"])}
            found.append({"own": own, "slow": self.slow(view)})
        return tuple(found)

    def loss(self, features: tuple[dict[str, Any], ...], batch: Batch) -> Mapping[str, Tensor]:
        boxes, flipped, (first, second) = batch["boxes"][:2], batch["flipped"][:2], features
        cells = self._cells(first, second, boxes, flipped) + self._cells(second, first, boxes.flip(0), flipped.flip(0))
        loss, watched = self.objective.cell_weight * cells, {"cells": cells.detach()}
        if self.whole:
            means = [(a["own"]["whole"], b["slow"]["whole"]) for a, b in ((first, second), (second, first))]
            whole = torch.stack([self.objective.whole(a.mean((2, 3)), b.mean((2, 3))) for a, b in means]).sum()
            loss, watched["whole"] = loss + self.objective.instance_weight * whole, whole.detach()
        return {"loss": loss, **watched, "spread": spread(first["own"]["cells"][0])}

    def _cells(self, one: dict[str, Any], other: dict[str, Any], boxes: Tensor, flipped: Tensor) -> Tensor:
        levels = zip(one["own"]["cells"], other["slow"]["cells"], strict=True)
        return torch.stack([self.objective(x, y, boxes, flipped, self.beside) for x, y in levels]).mean()

    def after_step(self) -> None:
        self.slow.follow(self.branch)


def dense_views(
    on: Encoder, objective: Dense, head: Projection, pyramid: bool, *, n_steps: int, seed: int
) -> tuple[ImageCopy, DenseViews]:
    """Return a copy of the image encoder, optionally with a pyramid, and the task that trains the copy on patches."""
    with seeded(seed):
        if pyramid:
            maps = Pyramid.on(on)
            task = DenseViews(maps, head, objective, n_in=maps.width, n_steps=n_steps)
            return ImageCopy(maps, GlobalAverage()), task
        tower = ImageCopy.before(on)
        with torch.no_grad():
            own = on.layout.to_grid(tower.trunk(example_pixels(on.transform.input_size)))
        return tower, DenseViews(OneMap(tower.trunk, on.layout), head, objective, n_in=own.shape[1], n_steps=n_steps)


@torch.no_grad()
def spread(cells: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
    """Return the total variance of the unit vectors of all patches; 0 means that all are the same (collapse)."""
    return normalize(cells.float(), dim=1).movedim(1, 3).flatten(0, 2).var(0, unbiased=False).sum()
