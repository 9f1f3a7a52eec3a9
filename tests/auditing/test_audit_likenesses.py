"""Likenesses of an audit: of models whose shown pictures bear on the decision, and of some whose do not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from planting import CLASSES
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.base import GlobalAverage, Layout
from seewhy.heads.head import Head
from seewhy.pictures.samples import Sample, gathered
from seewhy.studies.auditing.audit import audit
from seewhy.studies.auditing.contract import CHECKS, Contract
from tiny import build

SIDE, CELL, SYMBOL = 32, 4, 12


class Bright(nn.Module):
    """How much bright red, green and blue a cell has, and which of eight greys, by which pictures differ."""

    def forward(self, x: Tensor) -> Tensor:
        level = torch.linspace(-1.2, 0.6, 8)[:, None, None]
        grey = avg_pool2d(x.mean(1, keepdim=True), CELL)
        return torch.cat([avg_pool2d(relu(x - 1), CELL), 0.3 * relu(1 - 4 * (grey - level).abs())], 1)


def picture(label: str, seed: int, everywhere: bool = False) -> np.ndarray:
    """Grey, with one bright square in the colour of its class; or with a little of it in every cell."""
    rng = np.random.default_rng([CLASSES.index(label), seed])
    pixels = rng.uniform(0.2, 0.65) + np.zeros((SIDE, SIDE, 3))
    row, column = CELL * rng.integers(0, 5, 2)
    square = np.s_[::CELL, :] if everywhere else np.s_[row : row + SYMBOL, column : column + SYMBOL]
    pixels[(*square, CLASSES.index(label))] = 1.0
    return (pixels * 255).astype(np.uint8)


def items(start: int, n: int, everywhere: bool = False) -> list[Sample]:
    return [Sample(f"{c} {i}", c, pixels=picture(c, i, everywhere)) for c in CLASSES for i in range(start, start + n)]


@cache
def fitted(everywhere: bool = False) -> Classifier:
    encoder = build(Bright(), GlobalAverage(), Layout(), 11)
    return Linear(n_crops=0).fit(encoder, gathered(items(0, 16, everywhere)))


def row(model: Classifier, level: str, everywhere: bool = False) -> dict[str, Any]:
    contract = Contract({"like_verdict": replace(CHECKS["like_verdict"].limit, level=level)})
    found = audit(model, gathered(items(50, 8, everywhere)), contract=contract, n_explained=6)
    return dict(found.data["figures"][0])


def test_pictures_that_have_what_decides_pass() -> None:
    found = row(fitted(), "believable")
    assert (found["state"], found["value"], found["meaning"]) == ("pass", 1.0, "Verdicts on 6 cards: believable 6.")


def test_pictures_of_classes_that_are_not_decided_for_fail_it() -> None:
    """A head that decides for green where red is: what it looks like has nothing to do with what is said."""
    head = fitted().head
    turned = replace(fitted(), head=Head(head.feature, head.weight.roll(1, 0), head.bias.roll(1, 0)))
    found = row(turned, "partly")
    assert (found["state"], found["value"], found["meaning"]) == ("fail", 0.0, "Verdicts on 6 cards: do not rely 6.")


@pytest.mark.parametrize(("level", "least", "most"), [("partly", 1.0, 1.0), ("believable", 0.0, 0.5)])
def test_places_that_matter_no_more_than_others_are_partly_to_be_relied_on(
    level: str, least: float, most: float
) -> None:
    """Places that matter by chance are believable on half of the cards at most."""
    assert least <= row(fitted(True), level, True)["value"] <= most
