"""An encoder's own towers, trained on pictures that are read anew and on texts of theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.base import Encoder, Tokenised, TrainableText
from ..encoders.tuned_towers import TunedTowers
from ..objectives.contrastive import Contrastive
from ..progress import Progress
from .augmentation import TrainingPictures
from .batches import TrainingData
from .contrast import Contrast, Drawn
from .seen_pairs import SeenPairs, placed


def towers_task(towers: TunedTowers, objective: Contrastive) -> Contrast:
    """The task of those towers that are trained; the others' vectors are looked up."""
    image: nn.Module = nn.Identity()
    if towers.trunk is not None:
        parts = [half for half in (towers.trunk, towers.pool, towers.projection) if half is not None]
        image = nn.Sequential(*parts).requires_grad_(True)
    text: nn.Module = nn.Identity() if towers.words is None else towers.words.requires_grad_(True)
    column = "image" if towers.trunk is None else "pixels"
    return Contrast(image, text, objective, column=column, hold=True)


def towers_data(
    on: Encoder, tower: TrainableText, towers: TunedTowers, own: SeenPairs, progress: Progress
) -> TrainingData:
    """Each picture once an epoch, with one of its texts.

    Args:
        on: the encoder.
        tower: makes tokens of texts.
        towers: what is trained.
        own: pictures and texts.
        progress: hears of pictures that cannot be read.
    """
    columns: dict[str, Any] = {}
    if towers.trunk is None:
        with torch.no_grad():
            columns["image"] = on.text.project(own.pooled)
    else:
        columns["pixels"] = TrainingPictures(on, [item.source for item in own.items], None, progress)
    known = placed(on, own) if towers.words is None else None

    def said(rows: list[int]) -> Tensor | Tokenised:
        return tower.tokens([own.texts[i] for i in rows]) if known is None else known[rows]

    return TrainingData(len(own), {**columns, "text": Drawn(own.choices, said)})
