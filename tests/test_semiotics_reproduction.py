"""The reproduction of semiotics networks, in small, and its rules on planted numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture
def semiotics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("semiotics", FOLDER / "semiotics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "semiotics", module)
    spec.loader.exec_module(module)
    return module


def test_the_largest_singular_value_is_that_of_the_matrix(semiotics: ModuleType) -> None:
    layer = nn.Linear(4, 4, bias=False)
    layer.weight.data = torch.diag(torch.tensor([0.5, -3.0, 1.0, 0.1]))
    found = semiotics.largest_singular_value(layer, torch.zeros(1, 4))
    assert found == pytest.approx(3.0, rel=1e-4)


def test_the_parts_of_the_digits_share_none_and_a_draw_has_n_of_each(semiotics: ModuleType) -> None:
    pool = semiotics.digits(0)
    parts = [set(p.tolist()) for p in (pool.drawn, pool.tested, pool.others)]
    assert sum(map(len, parts)) == len(parts[0] | parts[1] | parts[2]) == len(pool.labels)
    own, held = semiotics.draw(pool, 3, 20, 1)
    assert torch.bincount(pool.labels[own]).tolist() == [3] * 10
    assert len(held) == 20
    assert not set(own.tolist()) & set(held.tolist())


def planted(**accuracy: float) -> dict[str, Any]:
    seen = {"right": [1.0, 0.0], "strong": [1.0, 1.0], "kin": [1.0, 0.0], "distance": 0.0, "near": [1.0, 1.0]}
    return {
        "n": 5,
        "reconstruction": 0.0,
        "accuracy": {
            **dict.fromkeys(("mlp", "vanilla", "average", "augmented", "test_time", "nearest"), 0.5),
            **accuracy,
        },
        "shown": {"vanilla": seen, "stochastic": seen},
        "control": {**seen, "strong": [1.0, 0.0]},
        "attractors": {"0.1": [1.0], "0.3": [1.0], "0.5": [0.0], "largest": [0.5]},
        "curve": {"median": [0.0], "still": [1.0, 1.0]},
    }


@pytest.mark.parametrize(
    ("control", "says"), [({}, "shown"), ({"augmented": 0.9}, "partly"), ({"mlp": 0.9, "augmented": 0.9}, "not shown")]
)
def test_what_a_control_does_as_well_is_not_shown(semiotics: ModuleType, control: dict[str, float], says: str) -> None:
    rows = [planted(stochastic=0.8, **control)] * 4
    found = semiotics.claims_of(rows, {"two": [1.0], "apart": [0.1]})
    assert [c.verdict for c in found if "stochastic perceiver classifies" in c.claim] == [says]
    assert found[0].verdict == "shown"


@pytest.mark.slow
def test_it_runs_in_small(semiotics: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(semiotics, "EPOCHS", (1, 3))
    small = ["--n", "1", "--draws", "2", "--steps", "3", "--width", "8", "--depth", "2", "--copies", "2"]
    place = tmp_path / "semiotics.json"
    given = [*small, "--tests", "12", "--validation", "10", "--out", str(place)]
    first = semiotics.main(given)
    assert place.exists()
    # What was done lies beside the report: a second run goes on from it.
    assert semiotics.main(given).claims == first.claims
