"""Scores of boxes, and which are kept: against the authors' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seewhy.dense.regions import Keep
from seewhy.dense.two_stage import Blend, shrunk

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dito.json").read_text("utf-8"))
DETECTOR, WORDS = (torch.tensor(GOLDEN[name]) / t for name, t in (("detector", 0.1), ("words", 0.01)))
BASE, OBJECTNESS = torch.tensor(GOLDEN["base"]), torch.tensor(GOLDEN["objectness"])


def test_blended_as_the_authors_do() -> None:
    for given, name in (
        ((BASE, None), "blended"),
        ((None, None), "without_base"),
        ((BASE, OBJECTNESS), "with_objectness"),
    ):
        found = Blend()(DETECTOR, WORDS, *given)
        torch.testing.assert_close(found, torch.tensor(GOLDEN[name]), rtol=0, atol=GOLDEN["tolerance"])


def test_words_far_from_all_names_leave_finite_scores() -> None:
    assert Blend()(torch.tensor([[0.0, 900.0, 0.0]]), torch.tensor([[0.0, -900.0, 0.0]])).isfinite().all()


def test_kept_as_the_authors_do() -> None:
    """Each name by itself; every box may be of every name."""
    given = GOLDEN["detections"]
    boxes, scores = torch.tensor(given["boxes"]), torch.tensor(given["scores"])[:, 1:]
    n, k = scores.shape
    labels = torch.arange(k).expand(n, k).flatten()
    found = Keep(0.0, 0.5, given["most"]).detections(
        boxes.repeat_interleave(k, 0), scores.flatten(), labels, ("0", "1", "2"), (200, 200)
    )
    assert len(found) == len(given["found"])
    for own, theirs in zip(found, given["found"], strict=True):
        assert (int(own.label), own.score) == (theirs["name"], pytest.approx(theirs["score"], abs=1e-4))
        assert own.box == pytest.approx(theirs["box"], abs=1e-2)


def test_a_box_is_made_smaller_about_its_middle() -> None:
    found = shrunk(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), 0.7)
    assert found[0].tolist() == pytest.approx([13, 26, 27, 54])
