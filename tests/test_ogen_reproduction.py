"""OGEN in small: verdicts follow the numbers, controls are what they say, a second run learns nothing."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import CLASSES, class_folders

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ogen")


def right(share: float) -> Tensor:
    return (torch.arange(100) < 100 * share).double()


def curve(*steps: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"step": i, "learnt": right(b), "new": right(n)} for i, (b, n) in enumerate(steps, 1)]


def test_verdicts_follow_the_numbers(script: ModuleType) -> None:
    falls, keeps = curve((0.4, 0.5), (0.8, 0.2)), curve((0.4, 0.5), (0.8, 0.4))
    curves = dict.fromkeys(script.ARMS, falls) | {script.MADE: keeps, script.NAMED: keeps}
    zero = {"learnt": right(0.3), "new": right(0.5)}
    made = script.claims(curves, zero)
    assert [c.verdict for c in made] == ["shown"] * 8 + ["too small to tell", "shown"]
    assert "best step for them (1, chosen on these pictures)" in made[-1].measured
    assert "0.500 (" in made[1].measured
    assert "difference 0.300 (" in made[1].measured
    turned = dict.fromkeys(script.ARMS, keeps) | {script.MADE: falls, script.NAMED: falls}
    better = {"learnt": right(0.9), "new": right(0.1)}
    assert [c.verdict for c in script.claims(turned, better)] == [
        *("not shown", "shown", "not shown"),
        *["not shown"] * 5,
        *("too small to tell", "shown"),
    ]
    numbers = script.numbers(curves, zero)
    assert numbers[script.MADE] == {"learnt": [0.4, 0.8], "new": [0.5, 0.4], "harmonic mean": 0.5333}
    assert numbers["steps"] == [1, 2]


def test_means_are_of_each_picture_over_seeds(script: ModuleType) -> None:
    both = script.means([curve((1.0, 0.0)), curve((0.5, 1.0))])
    assert both[0]["learnt"].tolist() == [1.0] * 50 + [0.5] * 50
    assert both[0]["new"].tolist() == [0.5] * 100


def test_noise_is_made_of_nothing_and_has_the_same_shape(script: ModuleType) -> None:
    generator = script.Noise(8)
    query, key = torch.randn(5, 1, 8), torch.randn(5, 3, 8)
    one, other = generator(query, key, key), generator(query, key, key)
    assert one.shape == (5, 8)
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one.norm(dim=1), torch.ones(5))
    one.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in generator.parameters())


def test_an_arm_is_learnt_once(script: ModuleType, tmp_path: Path) -> None:
    args = argparse.Namespace(out=tmp_path / "ogen.json", train="a", test="b", classes=4, shots=2, epochs=3)
    first = script.Kept(args)
    made = first.get(0, "CoOp", lambda: curve((0.4, 0.5)))
    again = script.Kept(args)
    found = again.get(0, "CoOp", lambda: pytest.fail("it was learnt before"))
    assert again.seconds == first.seconds
    assert torch.equal(found[0]["new"], made[0]["new"])
    with pytest.raises(pytest.fail.Exception):
        again.get(1, "CoOp", lambda: pytest.fail("another seed"))


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_says_the_same(script: ModuleType, tmp_path: Path) -> None:
    folder = str(class_folders(tmp_path / "photos", 3, CLASSES))
    given = ["--train", folder, "--test", folder, "--classes", "4", "--shots", "2", "--epochs", "6", "--seeds", "1"]
    report = script.main([*given, "--out", str(tmp_path / "ogen.json")])
    assert len(report.claims) == 10
    assert set(report.numbers) == {"zero-shot", "steps", *script.ARMS}
    again = script.main([*given, "--out", str(tmp_path / "ogen.json")])
    assert (again.seconds, again.numbers) == (report.seconds, report.numbers)
