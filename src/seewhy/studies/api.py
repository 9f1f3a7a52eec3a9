"""The study of explanations in one call."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..api import pretrained
from ..arguments import checked
from ..bounds import Count
from ..classifiers.base import Classifier
from ..encoders.base import Encoder
from ..encoders.module import from_module
from ..pictures.datasets import pictures_of
from ..pictures.sources import Many
from ..progress import Progress
from ..storage.output import temporary_folder
from .faithfulness import FaithfulnessStudy
from .study import Findings


@checked
def study(
    model: Classifier | Encoder | nn.Module,
    pictures: Many | str | Path,
    *,
    transform: Any = None,
    methods: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    n: Count | None = None,
    masks: str | Path | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Which explanations of this model can be believed? What ``seewhy study faithfulness`` measures."""
    asked = FaithfulnessStudy.of(methods, metrics, masks=None if masks is None else Path(masks), seed=seed)
    if isinstance(model, nn.Module):
        model = from_module(model, transform=transform)
    classifier = model if isinstance(model, Classifier) else pretrained(model)
    many = pictures_of(pictures)
    random.Random(seed).shuffle(many)
    return asked.run(classifier, many[:n], output or temporary_folder(), progress)
