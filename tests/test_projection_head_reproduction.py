"""Projection heads' reproduction in small: the linear model by hand, pictures as they say, every arm runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("projection_head")


@pytest.fixture
def world() -> ModuleType:
    return importlib.import_module("digits_on_texture")


def test_layers_weigh_one_feature_as_its_equation_says() -> None:
    linear = importlib.import_module("linear_features")
    found = linear.Descent(2, n_steps=400, rate=0.02, start=0.5)([0, 1], (1.0, 2.0), (1.0, 0.0))
    assert found[-1].tolist() == [[pytest.approx(0.5, abs=1e-3)] * 2] * 2
    assert found[0].tolist() == [[pytest.approx(0.5**0.5, abs=1e-3)] * 2] * 2
    three = linear.Descent(3, n_steps=5, start=0.6)([0], (1.0, 2.0), (1.0, 0.0))[:, 0]
    assert torch.allclose(three[0] ** 3, three[2])  # also on the way
    decayed = linear.Descent(2, decay=0.5, n_steps=400, rate=0.02, start=1.0)([0], (1.0,), (0.0,))
    root = float(decayed[-1, 0, 0])
    assert -4 * root + 4 * root**3 + 0.5 == pytest.approx(0, abs=1e-3)


def test_a_feature_of_more_weight_needs_fewer_labels() -> None:
    linear = importlib.import_module("linear_features")
    weights = torch.ones(2, 30).double()
    weights[1, 0] = 5.0
    wrong = linear.probe_errors(weights, 0, 10, n_draws=20).mean(0)
    assert wrong[1] < wrong[0] - 0.05


def test_a_view_goes_without_its_digit_as_often_as_said(world: ModuleType) -> None:
    own, test = world.split(1.0, most=60)
    assert (len(own), len(test)) == (60, world.N_TEST)
    index, draw = list(range(60)), torch.Generator().manual_seed(0)
    blank = world.Digits(own.strokes * 0, own.textures, own.digit, own.ink, 1.0)
    without = blank.views(2, 0.0)(index, torch.Generator().manual_seed(0))
    for drop, low, high in ((0.0, 1.0, 1.0), (0.6, 0.25, 0.55), (1.0, 0.0, 0.0)):
        with_it = own.views(2, drop)(index, draw.manual_seed(0))
        there = torch.stack([(a != b).flatten(1).any(1) for a, b in zip(with_it, without, strict=True)]).float()
        assert low <= float(there.mean()) <= high
    assert not torch.equal(*own.views(2, 0.0)(index, draw))
    assert own.plain().shape == (60, 3, 32, 32)


def test_ink_goes_with_the_class_where_it_is_learnt_and_by_half_where_it_is_tested(world: ModuleType) -> None:
    own, test = world.split(1.0, 0.95)
    assert float((own.ink == 1 + own.odd).double().mean()) == pytest.approx(0.95, abs=0.02)
    assert float((test.ink == 1 + test.odd).double().mean()) == pytest.approx(0.5, abs=0.06)
    assert int(world.split(1.0)[0].ink.max()) == 0


def test_labels_are_as_many_of_each_kind(script: ModuleType, world: ModuleType) -> None:
    own, _ = world.split(1.0, 0.95)
    assert own.digit[script.labelled(own, 20, 0, balanced=False)].bincount().tolist() == [2] * 10
    rows = script.labelled(own, 2000, 0, balanced=True)
    kinds = (2 * own.odd + own.ink)[rows].bincount()
    assert len(set(kinds[kinds > 0].tolist())) == 1
    assert len(kinds[kinds > 0]) == 4


def test_the_probe_does_not_undo_a_weighting(script: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.randn(400, 20, generator=generator)
    x[:, 0] += 3 * (y.float() - 0.5)
    rows = torch.arange(20)
    weighed = x * torch.cat([torch.tensor([0.02]), torch.ones(19)])
    right = [script.probed(v, y, v[200:], y[200:], rows, 0).count("1") for v in (x, weighed)]
    assert right[0] > right[1] + 20


@pytest.mark.slow
def test_every_arm_runs_and_a_second_run_learns_nothing(script: ModuleType, tmp_path: Path) -> None:
    given = ["--seeds", "2", "--steps", "2", "--pictures", "200", "--draws", "3", "--linear-steps", "400"]
    given += ["--out", str(tmp_path / "projection_head.json")]
    report = script.main(given)
    assert {c.section for c in report.claims} >= {script.LINEAR, script.TEXTURE}
    assert len(report.numbers["networks"]) == len(script.arms())
    again = script.main(given)
    assert again.numbers["networks"] == report.numbers["networks"]
