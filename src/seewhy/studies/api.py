"""The study of explanations in one call."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..api import pretrained
from ..arguments import Count, checked
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
    """Which explanations of this model can be believed? What ``seewhy study faithfulness`` measures.

    Args:
        model: a classifier; or an encoder or a torch network, whose own last layer decides.
        pictures: a folder, or several pictures (:mod:`seewhy.pictures.sources`).
        transform: the preprocessing of a torch network, as :func:`seewhy.from_module` takes it.
        methods: attributions by name; left out, those that need no forward pass of their own; ``rise:50`` is measured
            on 50 pictures at most.
        metrics: by name; left out, the usual ones.
        n: so many of the pictures, drawn at random; left out, all.
        masks: a folder of masks named like the pictures, for metrics of localisation.
        output: folder of the progress, from which a stopped study goes on; left out, a temporary one.
        seed: of the pictures' order and of the resampling.
        progress: hears of progress and failures.

    Returns:
        Tables, ranking and the sentence; displays itself in a notebook, and ``save("study.html")`` writes it.

    Raises:
        UnknownNameError: there is no such method or metric.
        DataError: no picture can be read.
    """
    asked = FaithfulnessStudy.of(methods, metrics, masks=None if masks is None else Path(masks), seed=seed)
    if isinstance(model, nn.Module):
        model = from_module(model, transform=transform)
    classifier = model if isinstance(model, Classifier) else pretrained(model)
    many = pictures_of(pictures)
    random.Random(seed).shuffle(many)
    return asked.run(classifier, many[:n], output or temporary_folder(), progress)
