"""GIST's reproduction in small: every arm runs, a stopped run goes on, and what is left out of it is left out."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"
SMALL = ["--size", "64", "--seeds", "1", "--steps", "2"]


@pytest.mark.slow
def test_layers_and_towers_on_a_small_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("gist")
    for name, n in (("N_TRAIN", 3), ("N_CHOICE", 1), ("N_TEST", 2)):
        monkeypatch.setattr(script, name, n)
    out = tmp_path / "gist.json"
    report = script.main([*SMALL, "--tower-steps", "1", "--out", str(out)])
    assert [c.section for c in report.claims] == ["", script.LAYERS, script.LAYERS, script.BOTH, script.BOTH]
    assert set(report.numbers["accuracy"]) == {*script.ARMS, "towers, name", "towers, matched text"}
    assert report.claims[1].n == 16
    again = script.main([*SMALL, "--tower-steps", "1", "--out", str(out)])
    assert again.seconds == report.seconds
    assert again.numbers == report.numbers
    without = script.main([*SMALL, "--tower-steps", "0"])
    assert len(without.claims) == 3
    assert without.numbers["accuracy"]["matched text"] == report.numbers["accuracy"]["matched text"]
