"""The reproduction of data scaling: verdicts follow the numbers, and the whole runs in small on drawn pictures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tiny import colours, tiny_cnn


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "reproductions"))
    sys.modules.pop("data_scaling", None)
    return importlib.import_module("data_scaling")


def of(value: float, half: float = 0.01) -> dict[str, Any]:
    return {"value": value, "interval_90": [value, value], "interval_95": [value - half, value + half]}


def arm(slope: float, *, straight: float = 0.1, bent: float = 0.2, less: float = 0.0, **more: Any) -> dict[str, Any]:
    forms = [("log-linear", straight), ("power law with floor", bent), ("sigmoid", bent + 0.1)]
    return {
        "encoder": "lite0",
        "noise": 0.0,
        "slope": of(slope),
        "forms": [{"name": name, "held_out_error": off} for name, off in forms],
        "against": {"slope": of(less), "accuracy": of(0.05), "worth": of(0.6)},
        **more,
    }


def verdicts(scaling: ModuleType, base: dict, larger: dict, noisy: dict, fewer: dict) -> list[str]:
    data = {"arms": [base, larger, noisy, fewer], "n_test": 9, "tested_range": [10, 90]}
    return [claim.verdict for claim in scaling.claims_of(data, 4)]


def test_verdicts_follow_the_numbers(scaling: ModuleType) -> None:
    good = verdicts(scaling, arm(0.08), arm(0.1, less=0.02), arm(0.05, noise=0.2), arm(0.08))
    assert good == ["shown"] * 5
    bad = verdicts(scaling, arm(-0.05, straight=0.3), arm(0.1, less=-0.02), arm(-0.02, noise=0.2), arm(0.08, less=0.05))
    assert bad == ["not shown"] * 5
    open_ = verdicts(scaling, arm(0.005, straight=0.21), arm(0.1), arm(0.0, noise=0.2), arm(0.08))
    assert open_ == ["too small to tell", "partly", "too small to tell", "shown", "too small to tell"]


@pytest.mark.slow
def test_it_runs_in_small_and_goes_on_where_it_was(
    scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick = {"lite0": tiny_cnn(), "lite2": colours()}
    monkeypatch.setattr(scaling, "encoder", quick.get)
    words = ["--planted", "--sizes", "3", "--seeds", "2", "--out", str(tmp_path / "data_scaling.json")]
    report = scaling.main(words)
    assert report.claims[1].measured == "too few sizes to hold any out"
    assert [report.claims[1].verdict, len(report.claims)] == ["too small to tell", 6]
    n_cells = len((tmp_path / "data_scaling.cells" / "progress.jsonl").read_text().splitlines())
    assert n_cells == 5 * 3 * 2
    assert scaling.main(words).claims == report.claims
    assert len((tmp_path / "data_scaling.cells" / "progress.jsonl").read_text().splitlines()) == n_cells
