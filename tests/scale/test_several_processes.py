"""Kills: of a process, of all of them, of what writes; afterwards each picture has one row, and the same bytes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from seewhy.encoders import find
from seewhy.errors import ModelError, SeeWhyError
from seewhy.progress import Progress
from seewhy.scale.inputs import find_input
from seewhy.scale.reading import status
from seewhy.scale.run import run
from seewhy.threads import bound_threads, n_threads
from simulated_work import Simulated, make_pictures, rows

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "photos", 40)
    run(Simulated(), find_input(tmp_path / "photos", per_shard=4), tmp_path / "alone")
    return tmp_path / "photos"


def files(output: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.iterdir()}


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_do_what_one_does(photos: Path, tmp_path: Path) -> None:
    killed = Simulated(dies="17.png", survived=str(tmp_path / "survived"))
    report = run(killed, find_input(photos, per_shard=4), tmp_path / "out", workers=2, threads=2)
    assert (tmp_path / "survived").exists()
    assert (report.done, report.rows, report.unread) == (10, 40, [])
    assert files(tmp_path / "out") == files(tmp_path / "alone")


@pytest.mark.slow
def test_a_shard_of_which_processes_die_is_left_out(photos: Path, tmp_path: Path) -> None:
    report = run(
        Simulated(dies="17.png"),
        find_input(photos, per_shard=4),
        tmp_path / "out",
        workers=2,
        threads=2,
    )
    assert (report.done, [one["shard"] for one in report.unread]) == (9, ["pictures 17 to 20"])
    assert report.unread[0]["error"].startswith(
        "A process was killed by signal 9 while it did this shard, often because memory ran "
        "out. Run the same command again with fewer --workers."
    )
    assert status(tmp_path / "out").missing == ["4"]
    assert run(Simulated(), find_input(photos, per_shard=4), tmp_path / "out").done == 1
    assert files(tmp_path / "out") == files(tmp_path / "alone")


@pytest.mark.slow
def test_a_model_that_cannot_be_opened_is_told_once(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SeeWhyError, match=r"^There is no place to look from\.$"):
        run(
            Simulated(refuses="There is no place to look from."),
            find_input(photos),
            tmp_path / "out",
            workers=2,
            threads=2,
        )
    with pytest.raises(ModelError, match="A process was killed by signal 9 while it loaded the model"):
        run(Simulated(refuses="kill"), find_input(photos), tmp_path / "out", workers=2, threads=2)
    with pytest.raises(ModelError, match=r"Do not change its files during the run, and run the same command again\."):
        run(
            Simulated(refuses="differ", seconds=1),
            find_input(photos, per_shard=4),
            tmp_path / "x",
            workers=2,
            threads=2,
        )


RUN = """
from pathlib import Path
from seewhy.scale.inputs import find_input
from seewhy.scale.run import run
from simulated_work import Simulated
if __name__ == "__main__":
    run(Simulated(seconds=0.01), find_input({photos!r}, per_shard=4), Path({output!r}), workers={workers}, threads=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (1, 7), (2, 4)])
def test_killed_in_the_middle_and_run_again_each_picture_has_one_row(
    photos: Path, tmp_path: Path, workers: int, shards: int
) -> None:
    output = tmp_path / "out"
    script = tmp_path / "script.py"
    script.write_text(RUN.format(photos=str(photos), output=str(output), workers=workers))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    until = time.monotonic() + 120
    while len(list(output.glob("*.parquet"))) < shards and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5 if workers > 1 else 0)  # those that it started end their shard, and then find it gone
    there = len(list(output.glob("*.parquet")))
    assert shards <= there < 10
    report = run(Simulated(seconds=0.01), find_input(photos, per_shard=4), output)
    assert (report.there, report.done) == (there, 10 - there)
    assert [row["image"] for row in rows(output)] == [row["image"] for row in rows(tmp_path / "alone")]
    assert files(output) == files(tmp_path / "alone"), "and nothing that the kill left"


def test_more_workers_than_threads_are_not_started(photos: Path, tmp_path: Path) -> None:
    progress = Progress()
    run(Simulated(), find_input(photos), tmp_path / "out", workers=3, threads=1, progress=progress)
    assert progress.notes == ["3 workers were requested, but there are threads for 1, so 1 workers are used."]
    with pytest.raises(SeeWhyError, match=r"--workers must be at least 1, got 0\."):
        run(Simulated(), find_input(photos), tmp_path / "out", workers=0)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
def test_threads_bound_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setattr("seewhy.threads._bound", [])
    monkeypatch.setattr("seewhy.threads.n_cores", lambda: 2)
    monkeypatch.setattr("seewhy.encoders.engines.n_cores", lambda: 2)
    try:
        bound_threads(1)
        assert (n_threads(), torch.get_num_threads()) == (1, 1)
        engine = find.encoder("lite0", engine="openvino").engine
        assert engine._streams == 1  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(before)
