"""The reproduction of explaining prototypes: its pictures differ in what is planted, and it runs from end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        import explaining_prototypes
    finally:
        sys.path.remove(str(FOLDER))
    return explaining_prototypes


def grain_of(picture: np.ndarray) -> float:
    """Median difference of neighbours, which edges do not reach."""
    return float(np.median(np.abs(np.diff(picture.astype(float), axis=1))))


def saturation_of(picture: np.ndarray) -> float:
    return float(np.asarray(Image.fromarray(picture).convert("HSV"))[..., 1].mean())


def contrast_of(picture: np.ndarray) -> float:
    return float(np.asarray(Image.fromarray(picture).convert("HSV"))[..., 2].astype(float).std())


@pytest.mark.parametrize(
    ("planted", "read"), [("texture", grain_of), ("saturation", saturation_of), ("contrast", contrast_of)]
)
def test_classes_differ_in_what_is_planted(
    script: ModuleType, planted: str, read: Callable[[np.ndarray], float]
) -> None:
    rng = np.random.default_rng(0)
    without, having = ([read(script.draw(planted, label, rng)) for _ in range(20)] for label in (0, 1))
    other = [[read(script.draw("hue", label, rng)) for _ in range(40)] for label in (0, 1)]
    assert np.mean(having) > 1.5 * np.mean(without)
    assert np.mean(other[1]) == pytest.approx(np.mean(other[0]), rel=0.3)


def test_it_runs_and_a_second_run_only_reads(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    small = ["--seeds", "1", "--properties", "hue", "--pictures", "4", "--epochs", "1", "--measured", "2"]
    monkeypatch.setattr(sys, "argv", ["explaining_prototypes.py", *small, "--out", str(out)])
    script.main()
    first = json.loads(out.read_text("utf-8"))
    assert len(first["claims"]) == 8
    assert str(tmp_path) not in json.dumps(first)
    assert set(first["numbers"]["networks"][0]) == {"planted", "accuracy", "phi", "phi_calibrated", "change"}
    monkeypatch.setattr(script, "train", None)
    script.main()
    assert json.loads(out.read_text("utf-8"))["claims"] == first["claims"]
    capsys.readouterr()
