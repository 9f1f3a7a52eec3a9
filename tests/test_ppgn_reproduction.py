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


def test_weight_noise_and_steps_are_chosen_by_the_judge(script: ModuleType) -> None:
    rows = {
        "none noise 0.5 eps1 0 lr 0.0333": [1.0, 0.0], "none noise 0.5 eps1 0 lr 0.1000": [1.0, 1.0],
        "score noise 0.5 eps1 1 lr 0.0333": [1.0, 1.0], "score noise 1 eps1 3 lr 0.1000": [0.0, 1.0],
    }  # fmt: skip
    found = script.chosen({"arms": {key: {"judged": right} for key, right in rows.items()}})
    assert found == {"none": (0.5, 0.0, 0.1), "score": (0.5, 1.0, 0.0333)}


def test_shapes_are_drawn_each_unlike_the_others(script: ModuleType) -> None:
    pixels, label, colour = script.kinds.shapes(0, 400)
    assert (pixels.shape, len(label.unique()), len(colour.unique())) == ((400, 16, 16, 3), 10, 3)
    means = torch.stack([torch.from_numpy(pixels[(label == c).numpy()]).float().mean((0, 3)) for c in range(10)])
    assert torch.pdist(means.flatten(1)).min() > 100


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_learns_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.generation import decoders

    for check in ("check_errors", "check_noise"):  # after five batches there is nothing to see
        monkeypatch.setattr(decoders, check, lambda *given: None)
    small = ["--kinds", "digits", "--worlds", "1", "--steps", "0.01", "--walk", "2", "--each", "2"]
    given = [*small, "--work", str(tmp_path / "worlds"), "--out", str(tmp_path / "ppgn.json")]
    report = script.main(given)
    assert [c.section for c in report.claims].count("target") == 4
    assert len(report.numbers["judged"]) == 2 * 4 + 2 + 1 + len(script.EPS3)
    assert len(list((tmp_path / "worlds").glob("digits-1-*.png"))) == 2 * 4 + 2 + 1 + len(script.EPS3)
    again = script.main(given)
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)
