"""The reproduction of the score of interpretability in small: every claim is judged, verdicts follow the numbers."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from seewhy.studies.concepts import HeadTraining

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


def test_verdicts_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("iis")
    right = {arm: [float(i % 2) for i in range(40)] for arm in script.ARMS}
    even = {arm: [0.5, 0.5] for arm in script.ARMS}
    made = script.tuning_claims({"right": right, "seeds": even, "iis": even, "area": even})
    assert [c.verdict for c in made] == ["too small to tell"] * 3 + ["not shown"] * 2
    right[script.METHOD] = [1.0] * 40
    better = {**even, script.METHOD: [0.6, 0.45]}
    always = {**even, script.METHOD: [0.6, 0.7]}
    made = script.tuning_claims({"right": right, "seeds": always, "iis": better, "area": always})
    assert [c.verdict for c in made] == ["shown"] * 3 + ["partly", "shown"]
    made = script.tuning_claims({"right": right, "seeds": better, "iis": better, "area": always})
    assert [c.verdict for c in made][:3] == ["partly"] * 3
    line = {"library": "prototype", "of": "iis", "with": "accuracy", "given": None, "n": 6, "rho": 0.5}
    row = {"encoder": "a", "iis": {"value": 0.5}}
    found = {
        "correlations": [{**line, "interval": [0.1, 0.9]}, {**line, "library": "cluster", "interval": [-0.1, 0.9]}],
        "encoders": [{"encoder": "a", "below_floor": False}],
        "rows": [{**row, "library": "prototype"}, {**row, "library": "random"}],
    }
    verdicts = [c.verdict for c in script.score_claims(found)]
    assert verdicts == ["shown", "partly", "too small to tell", "too small to tell", "too small to tell"]


@pytest.mark.slow
def test_a_small_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("iis")
    whole = script.Digits.read()
    few = script.Digits(whole.x[:400], whole.labels[:400], whole.rows[:400])
    monkeypatch.setattr(script.Digits, "read", lambda: few)
    monkeypatch.setattr(script, "HeadTraining", lambda least_steps: HeadTraining(least_steps=5))
    out = tmp_path / "iis.json"
    report = script.main(["--n-train", "100", "--seeds", "1", "--epochs", "2", "--steps", "5", "--out", str(out)])
    assert len(report.numbers["encoders"]) == 6
    assert {c.section for c in report.claims} == {"the score", "fine-tuning"}
    assert out.is_file()
