"""Steps of a training, as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.cli.train import Watched

events = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="the extra 'tensorboard' is not installed"
)


def test_every_term_is_a_curve_over_the_steps(tmp_path: Path) -> None:
    watched = Watched(True, tmp_path / "runs")
    for step, loss in ((1, 2.5), (2, 1.25)):
        watched.measured(step, {"loss": loss, "temperature": 0.5 * step})
    watched.close()
    read = events.EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    curves = {name: [(e.step, e.value) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert curves == {"loss": [(1, 2.5), (2, 1.25)], "temperature": [(1, 0.5), (2, 1.0)]}


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    watched = Watched(True, None)
    watched.measured(1, {"loss": 2.5})
    watched.close()
    assert list(tmp_path.iterdir()) == []
