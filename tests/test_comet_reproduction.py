"""The reproduction of COMET: coverage is exact on masks made by hand, and the script runs in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


def test_coverage_of_masks_made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "comet", raising=False)
    import comet

    evidence = torch.zeros(3, 64, 64, dtype=torch.bool)
    evidence[:, :16, :16] = evidence[:, 32:48, 48:] = True
    both = evidence[0].float()
    one = torch.zeros(64, 64)
    one[:16, :32] = 1  # the first copy, and as much beside it
    none = torch.zeros(64, 64)
    none[16:32, :32] = 1
    found = comet.coverage(torch.stack([both, one, none]), evidence)
    assert found["copy 1"] == [1.0, 1.0, 0.0]
    assert found["copy 2"] == [1.0, 0.0, 0.0]
    assert found["background"] == pytest.approx([0.0, 1 / 14, 2 / 14])


@pytest.mark.slow
def test_it_runs_in_small(tmp_path: Path) -> None:
    out = tmp_path / "comet.json"
    command = [sys.executable, str(FOLDER / "comet.py"), "--fast", "--out", str(out)]
    subprocess.run(command, check=True, timeout=600, capture_output=True)
    report = json.loads(out.read_text("utf-8"))
    assert [c["section"] for c in report["claims"]] == [
        "completeness",
        "completeness",
        "interlocking",
        "complement",
        "accuracy",
        "leakage",
    ]
