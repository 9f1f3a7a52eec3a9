"""PPGN's reproduction in small: several classes climb side by side as each alone would, and every arm runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

import seewhy
from seewhy.generation.conditions import of_class
from tiny import tiny_cnn

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ppgn")


@pytest.mark.parametrize("gradient", ["log_softmax", "own_logit"])
def test_classes_side_by_side_climb_as_each_alone(script: ModuleType, gradient: str) -> None:
    model = seewhy.pretrained(tiny_cnn())
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = script.EachItsOwn(model, torch.tensor([2, 0, 3, 1]))
    found, values = together.objective(pictures, gradient), together.value(pictures)
    for i, label in enumerate((2, 0, 3, 1)):
        alone = of_class(model, label)
        torch.testing.assert_close(found[i], alone.objective(pictures, gradient)[i])
        torch.testing.assert_close(values[i], alone.value(pictures)[i])


def test_weight_and_steps_are_chosen_by_the_judge(script: ModuleType) -> None:
    right = {(0.1, 1 / 15): [1.0, 1.0], (0.03, 1 / 30): [1.0, 0.0], (0.0, 1 / 60): [1.0, 1.0]}
    arms = {
        f"eps1 {e:g} lr {r:.4f}": {"judged": right.get((e, r), [0.0, 0.0])} for e in script.EPS1 for r in script.RATES
    }
    assert script.chosen({"arms": arms}) == (0.1, 1 / 15, 1 / 60)


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_learns_nothing(script: ModuleType, tmp_path: Path) -> None:
    small = ["--seeds", "1", "--steps", "2", "--walk", "2", "--each", "2"]
    report = script.main([*small, "--out", str(tmp_path / "ppgn.json")])
    assert [c.section for c in report.claims].count("judge") == 4
    assert len(report.numbers["judged"]) == 3 + len(script.EPS3) + 5
    again = script.main([*small, "--out", str(tmp_path / "ppgn.json")])
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)
