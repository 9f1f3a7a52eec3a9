"""An encoder's own towers, trained on pictures that are read anew and on texts of theirs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.base import Encoder, Tokenised
from ..encoders.delta import halves_of
from ..encoders.region_heads import HeadSizes, RegionHeads
from ..encoders.split import example_pixels
from ..encoders.tuned_towers import TunedTowers, trainable
from ..progress import Progress
from ..training.augmentation import TrainingPictures
from ..training.batches import TrainingData
from ..training.task import Task
from .contrast import Contrast, Drawn
from .objectives.contrastive import Contrastive, RandomBoxes, Regional
from .random_boxes import BoxContrast
from .regions import ImageRegions, RegionalContrast, Still, TextWords
from .seen_pairs import SeenPairs, placed


def towers_task(on: Encoder, towers: TunedTowers, objective: Contrastive, *, labels: bool = False) -> Task:
    """The task of those towers that are trained; the others' vectors are looked up, unless their parts are compared."""
    if isinstance(objective, Regional):
        return _regional(on, towers, objective)
    if isinstance(objective, RandomBoxes) and towers.trunk is not None:
        return _boxed(on, towers, objective)
    image: nn.Module = nn.Identity()
    if towers.trunk is not None:
        image = nn.Sequential(*towers.image_parts()).requires_grad_(True)
    text: nn.Module = nn.Identity() if towers.words is None else towers.words.requires_grad_(True)
    column = "image" if towers.trunk is None else "pixels"
    return Contrast(image, text, objective, column=column, labels=labels, hold=True)


def _regional(on: Encoder, towers: TunedTowers, objective: Regional) -> RegionalContrast:
    """With both halves in it, since cells and words are not looked up; one that is not trained stays as it is."""
    trunk, pool = towers.trunk, towers.pool
    projection = trainable(on).projection if towers.projection is None else towers.projection
    if trunk is None or pool is None:
        image: nn.Module = Still(ImageRegions(*halves_of(on), copy.deepcopy(projection), on.layout))
    else:
        image = ImageRegions(trunk, pool, projection, on.layout).requires_grad_(True)
    words = Still(copy.deepcopy(trainable(on).module)) if towers.words is None else towers.words.requires_grad_(True)
    return RegionalContrast(image, TextWords(words), objective, hold=True)


def _boxed(on: Encoder, towers: TunedTowers, objective: RandomBoxes) -> BoxContrast:
    """With a detector's heads, which are drawn by torch or, where the encoder has some already, go on from there."""
    trunk, pool, projection = towers.image_parts()
    with torch.no_grad():
        features = trunk(example_pixels(on.transform.input_size))
        sizes = HeadSizes(on.layout.to_grid(features).shape[1], projection(pool(features)).shape[1])
    before = on.region_heads
    towers.heads = RegionHeads(sizes) if before is None else copy.deepcopy(before)
    text: nn.Module = nn.Identity() if towers.words is None else towers.words.requires_grad_(True)
    image, whole = trunk.requires_grad_(True), nn.Sequential(pool, projection).requires_grad_(True)
    heads = towers.heads.requires_grad_(True)
    return BoxContrast(image, whole, heads, text, objective, layout=on.layout, hold=True)


def towers_data(
    on: Encoder, towers: TunedTowers, own: SeenPairs, progress: Progress, objective: Contrastive
) -> TrainingData:
    """Each picture once an epoch, with one of its texts, or as many as the objective compares at once."""
    tower, regional = trainable(on), isinstance(objective, Regional)
    columns: dict[str, Any] = {}
    if towers.trunk is None and not regional:
        with torch.no_grad():
            columns["image"] = on.text.project(own.pooled)
    else:
        columns["pixels"] = TrainingPictures(on, [item.source for item in own.items], None, progress)
    known = placed(on, own) if towers.words is None and not regional else None

    def said(rows: list[int]) -> Tensor | Tokenised:
        return tower.tokens([own.texts[i] for i in rows]) if known is None else known[rows]

    return TrainingData(len(own), {**columns, "text": Drawn(own.choices, said, objective.n_texts)})
