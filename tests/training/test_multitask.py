"""Several tasks on one network: a weighted sum, each task's own terms, and what follows a step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seewhy.learning.contrast import Contrast
from seewhy.learning.multitask import POOLED, Multitask
from seewhy.learning.objectives.clip import CLIP
from seewhy.learning.objectives.gpt4image import GPT4Image
from seewhy.learning.retrieval import recall
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised

COLUMNS = {"pixels": torch.randn(6, 4), "labels": torch.arange(6) % 3, "text": torch.randn(6, 5)}


def two(objective: object) -> tuple[Multitask, Supervised, Contrast]:
    classes = Supervised(nn.Linear(8, 3), column=POOLED)
    texts = Contrast(nn.Linear(8, 5), nn.Identity(), objective, column=POOLED, watch=True)  # type: ignore[arg-type]
    return Multitask(nn.Linear(4, 8), {"ce": (2.0, classes), "text": (0.5, texts)}), classes, texts


def test_the_loss_is_the_weighted_sum_and_every_term_is_told() -> None:
    task, classes, texts = two(GPT4Image())
    batch = Batch([*range(6)], COLUMNS)
    told = task.loss(task.features(batch), batch)
    pooled = task.network(COLUMNS["pixels"])
    own = classes.loss(classes.network(pooled), batch)
    near = GPT4Image()(texts.image(pooled), COLUMNS["text"])
    assert set(told) == {"loss", "ce", "right", "text", "recall"}
    torch.testing.assert_close(told["loss"], 2 * own["loss"] + 0.5 * near)
    torch.testing.assert_close([told[n] for n in ("ce", "right", "text")], [own["loss"], own["right"], near])
    assert float(told["recall"]) == pytest.approx(recall(texts.image(pooled), COLUMNS["text"]))
    assert task.needs == ("pixels", "labels", "text")


def test_a_temperature_is_held_after_each_step() -> None:
    task, _, texts = two(CLIP())
    texts.state.log_scale.data.fill_(9.0)
    train(task, TrainingData(6, COLUMNS), Training(1, 6))
    assert float(texts.state.log_scale.exp()) <= 100.001


def test_recall_counts_those_who_find_their_own() -> None:
    image = torch.eye(4)
    assert recall(image, 2 * image) == 1.0
    assert recall(image, image.flip(0)) == 0.0
    assert recall(torch.ones(4, 2), torch.ones(4, 2)) == 1.0, "one text for all is everyone's own"
