"""Typed keyword arguments of public functions, for editors and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from .attributions.base import Attribution
from .bounds import Count, Natural
from .pictures.samples import Samples
from .progress import Progress
from .storage.features import FeatureStore
from .training.augmentation import Augmentation
from .types import Crop


class ExplainKeywords(TypedDict, total=False):
    """Keywords of :class:`seewhy.evidence.explain.ExplainOptions`."""

    where: str | Attribution | None
    target: str | int | None
    contrast: str | int | None
    measure: bool
    n_regions: Natural
    top: Count
    seed: int
    layer: str | None
    target_text: str | None
    contrast_text: str | None
    settings: Mapping[str, Any] | tuple[tuple[str, Any], ...]
    neurons: Natural
    like: str | None
    prototypes: str | Path | None
    because: str | None
    level: float
    typical: str | Path | None
    judge: Annotated[Any, "checked where it is read"]
    objects: Annotated[Any, "checked where it is read"]


class EvaluateKeywords(TypedDict, total=False):
    """Keywords of :func:`seewhy.evaluation.evaluate`."""

    n_explained: Natural
    store: FeatureStore | None
    views: Callable[[int], Sequence[Crop | None]] | None
    seed: int
    faithfulness: bool
    level: float
    unknown: Annotated[Samples | str | Path | Iterable[Any] | None, "checked where it is read"]
    objects: Annotated[Any, "checked where it is read"]
    progress: Progress | None


class AdaptKeywords(TypedDict, total=False):
    """Keywords of :class:`seewhy.learning.adapt.Adapt`."""

    objective: str
    train: Literal["heads", "image", "text", "towers"]
    keep: float | None
    epochs: Count
    batch_size: Count
    micro_batch: Count | None
    lr: float | None
    weight_decay: float
    width: Count
    refit: bool
    guard: bool
    may_forget: float
    held_out: float
    seed: int


class TeachKeywords(AdaptKeywords, total=False):
    """Keywords of :func:`seewhy.adapt`, :class:`seewhy.learning.api.ByInstructions` and
    :class:`seewhy.learning.api.ByClassesAndCaptions`.
    """

    instructions: Mapping[str, str | Sequence[str]]
    rank: Count
    n_layers: Count
    n_asked: Count
    n_through: int
    learn: Literal["words", "prefixes"]
    prefix_lr: float


class PretrainKeywords(TeachKeywords, total=False):
    """Keywords of :func:`seewhy.pretrain` and :class:`seewhy.learning.pretrain.Pretrain`."""

    settings: Mapping[str, Any]
    projection: Literal["none", "linear", "mlp", "fixed"]
    projection_width: Count
    kappa: float | None
    effective: float | None
    keep_head: bool
    pyramid: bool
    augmentation: str | Augmentation


class LinearKeywords(TypedDict, total=False):
    """Keywords of :class:`seewhy.classifiers.linear.recipe.Linear`."""

    solver: Literal["logistic", "svm"]
    n_crops: Natural
    power: float
    l2: bool
    class_weight: Literal["balanced"] | None
    held_out: float
    split: Literal["grouped", "random"]
    n_bank: Natural
    seed: int


class ZeroShotKeywords(TypedDict, total=False):
    """Keywords of :class:`seewhy.classifiers.unfitted.ZeroShot`."""

    templates: tuple[str, ...]
    scale: float | None


class DescribedKeywords(TypedDict, total=False):
    """Keywords of :class:`seewhy.classifiers.unfitted.Described`."""

    with_names: bool
    scale: float | None
