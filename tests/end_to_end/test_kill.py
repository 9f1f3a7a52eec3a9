"""Killed at any moment, the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import CLASSES, class_folders

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")]
N_KILLS = 10


def start(arguments: list[str], where: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "seewhy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=where,
    )


def finish(arguments: list[str], where: Path) -> tuple[str, float]:
    begun = time.monotonic()
    process = start(arguments, where)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, time.monotonic() - begun


def kill_at(arguments: list[str], where: Path, seconds: float) -> bool:
    """Whether it was still running when it was killed."""
    process = start(arguments, where)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures"), 12, CLASSES[:3], side=240)


def moments(whole: float) -> list[float]:
    rng = random.Random(0)
    return [rng.uniform(0.1, 0.8) * whole for _ in range(N_KILLS)]


def test_fit(folders: Path, tmp_path: Path) -> None:
    def fit(store: str, model: str) -> list[str]:
        return ["fit", str(folders), "-o", model, "--store", store, "--n-crops", "4", "--json"]

    expected, whole = finish(fit("whole.sqlite", "whole"), tmp_path)
    n_killed = sum(kill_at(fit("cut.sqlite", "cut"), tmp_path, seconds) for seconds in moments(whole))
    assert n_killed >= 3
    found, _ = finish(fit("cut.sqlite", "cut"), tmp_path)
    assert {**json.loads(found), "model": ""} == {**json.loads(expected), "model": ""}
    predict = ["predict", str(folders), "--store", "none", "--json", "-m"]
    whole_says, cut_says = (finish([*predict, m], tmp_path)[0] for m in ("whole", "cut"))
    assert cut_says == whole_says
    visible = sorted(p.name for p in tmp_path.iterdir() if p.is_dir() and not p.name.startswith("."))
    assert visible == ["cut", "whole"]
    assert all(p.suffix != ".part" for p in (tmp_path / "cut").iterdir())


def test_predict(folders: Path, tmp_path: Path) -> None:
    def predict(store: str, output: str) -> list[str]:
        return ["predict", str(folders), "--store", store, "--batch-size", "4", "-o", output]

    _, whole = finish(predict("whole.sqlite", "whole.jsonl"), tmp_path)
    for seconds in moments(whole):
        kill_at(predict("cut.sqlite", "cut.jsonl"), tmp_path, seconds)
        if (tmp_path / "cut.jsonl").exists():
            assert (tmp_path / "cut.jsonl").read_text("utf-8") == (tmp_path / "whole.jsonl").read_text("utf-8")
            (tmp_path / "cut.jsonl").unlink()
    finish(predict("cut.sqlite", "cut.jsonl"), tmp_path)
    assert (tmp_path / "cut.jsonl").read_text("utf-8") == (tmp_path / "whole.jsonl").read_text("utf-8")
    assert {p.suffix for p in tmp_path.iterdir() if not p.name.startswith(".")} <= {
        ".jsonl",
        ".sqlite",
        ".sqlite-wal",
        ".sqlite-shm",
    }


def test_explain(folders: Path, tmp_path: Path) -> None:
    pictures = [str(folders / c / f"{c}_0.png") for c in CLASSES[:3]]

    def explain(output: str) -> list[str]:
        return ["explain", *pictures, "--store", f"{output}.sqlite", "-o", output, "--no-measure", "--quiet"]

    _, whole = finish(explain("whole"), tmp_path)
    for seconds in moments(whole)[::3]:
        kill_at(explain("cut"), tmp_path, seconds)
    finish(explain("cut"), tmp_path)

    def records(output: str) -> list[dict[str, object]]:
        lines = (tmp_path / output / "explanations.jsonl").read_text("utf-8").splitlines()
        return [{**json.loads(line), "card": ""} for line in lines]

    assert [r["label"] for r in records("cut")] == [r["label"] for r in records("whole")]
    assert [r["top"] for r in records("cut")] == [r["top"] for r in records("whole")]
    shown = {p.name for p in (tmp_path / "whole").iterdir() if not p.name.startswith(".")}
    assert {p.name for p in (tmp_path / "cut").iterdir() if not p.name.startswith(".")} == shown
