"""What may be drawn of texts, and that it is drawn from the seed, the step and the place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seewhy.learning.contrast import Drawn
from seewhy.learning.pooled import spans
from seewhy.training.batches import TrainingData

REPORT = "FINDINGS:\n1. No effusion. A nodule of 2.5 cm. Is it new? Yes!\n\nNo effusion."


@pytest.mark.parametrize(
    ("texts", "of", "wanted"),
    [
        ([REPORT], "sentence", ("FINDINGS:", "No effusion.", "A nodule of 2.5 cm.", "Is it new?", "Yes!")),
        ([REPORT, REPORT], "text", (REPORT, REPORT)),
        (["A dog. It runs.", "A dog."], "both", ("A dog. It runs.", "A dog.", "It runs.")),
        (["没有积液。有结节。"], "sentence", ("没有积液。", "有结节。")),
        (["3", " a cat\r\n"], "sentence", ("3", "a cat")),
    ],
)
def test_texts_are_taken_apart(texts: list[str], of: str, wanted: tuple[str, ...]) -> None:
    assert spans(texts, of) == wanted


def test_one_sentence_is_drawn_by_seed_step_and_place() -> None:
    reports = ["A one. A two. A three.", "B one.", "C one. C two."]
    data = TrainingData(3, {"text": Drawn([spans([r], "sentence") for r in reports], list), "labels": torch.arange(3)})
    batches = [data.batch(step, 3, seed=4) for step in range(30)]
    for batch in batches:
        assert [said[0] for said in batch["text"]] == ["ABC"[i] for i in batch.index]
    assert {said for batch in batches for said in batch["text"]} == {s for r in reports for s in spans([r], "sentence")}
    assert [data.batch(step, 3, seed=4)["text"] for step in range(30)] == [batch["text"] for batch in batches]
    assert [data.batch(step, 3, seed=5)["text"] for step in range(30)] != [batch["text"] for batch in batches]


def test_several_are_drawn_at_once_different_ones_first() -> None:
    rows = torch.arange(12.0).view(6, 2)
    said = Drawn([[0, 1, 2, 3], [4, 5]], lambda found: (rows[found], torch.tensor(found)), 3)
    draws = [np.random.default_rng([7, i]) for i in range(40)]
    vectors, numbers = said.drawn([0, 1] * 20, draws)
    assert vectors.shape == (40, 3, 2)
    assert torch.equal(vectors, rows[numbers])
    assert all(len(set(one)) == 3 for one in numbers[::2].tolist())
    assert {i for one in numbers[::2].tolist() for i in one} == {0, 1, 2, 3}
    assert all(set(one) == {4, 5} for one in numbers[1::2].tolist()), "again, where there are too few"
    assert Drawn([[0, 1, 2, 3]], lambda found: rows[found], 2).drawn([0], draws[:1]).shape == (1, 2, 2)
