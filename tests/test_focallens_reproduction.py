"""FocalLens' reproduction in small: every arm runs, and its measure is exact where the answer is known."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


def test_average_precision_of_known_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    found = importlib.import_module("focallens").average_precision
    cosine = torch.tensor([[1.0, 0.9, 0.1, 0.5], [0.9, 1.0, 0.2, 0.1], [0.1, 0.2, 1.0, 0.3], [0.5, 0.1, 0.3, 1.0]])
    assert found(cosine, torch.tensor([0, 0, 1, 0])).tolist() == pytest.approx([1, (1 + 2 / 3) / 2, 0, (1 + 2 / 3) / 2])


@pytest.mark.slow
def test_every_arm_on_a_few_drawn_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("focallens")
    monkeypatch.setattr(script, "N_SEEDS", 1)
    report = script.main(["--drawn", "12", "--epochs", "2"])
    assert [len(report.claims), report.claims[0].n] == [10, 12]
    assert set(report.numbers["named right"]) == {"colour", "shape"}
    assert set(report.numbers["average precision"]["shape"]) == set(script.ARMS)
