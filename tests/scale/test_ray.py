"""A run on Ray: the same bytes as without, each picture once when actors die, and nothing that leaves the machine."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from seewhy.errors import MissingExtraError, ModelError
from seewhy.scale import on_ray
from seewhy.scale.inputs import find_input
from seewhy.scale.reading import status
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures

TESTS = Path(__file__).resolve().parents[1]
CODE = """
import sys
from pathlib import Path
from seewhy.scale.inputs import find_input
from seewhy.scale.on_ray import Cluster
from seewhy.scale.run import run
from simulated_work import Simulated
if __name__ == "__main__":
    report = run({work}, find_input(sys.argv[1], per_shard=4), Path(sys.argv[2]), cluster=Cluster(**{cluster}))
    print("told", report.done, report.rows, report.failed, [one["shard"] for one in report.unread])
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "photos", 22, broken=(9,))
    run(Simulated(), find_input(tmp_path / "photos", per_shard=4), tmp_path / "alone")
    return tmp_path / "photos"


def files(output: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.iterdir()}


def on_its_own(work: str, cluster: dict[str, object], photos: Path, output: Path, **environment: str) -> str:
    """A process of its own, as Ray leaves threads and sockets behind."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'seewhy[ray]'")
    code = CODE.format(work=work, cluster=cluster)
    paths = os.pathsep.join([*filter(None, sys.path), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(photos), str(output)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return next(line.removeprefix("told ") for line in done.stdout.splitlines() if line.startswith("told "))


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """An address, and whatever arrives there."""
    heard: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            heard.append(connection.recv(1000))
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", heard
    server.close()


@pytest.mark.slow
def test_the_bytes_are_those_of_one_process_and_nothing_leaves(
    photos: Path, tmp_path: Path, listener: tuple[str, list[bytes]]
) -> None:
    address, heard = listener
    outside = {
        "RAY_USAGE_STATS_ENABLED": "1",
        "RAY_USAGE_STATS_REPORT_URL": address,
        "RAY_USAGE_STATS_REPORT_INTERVAL_S": "1",
    }
    outside |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
    outside |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    told = on_its_own("Simulated()", {"workers": 2}, photos, tmp_path / "out", **outside)
    assert told == "6 22 1 []"
    assert files(tmp_path / "out") == files(tmp_path / "alone")
    assert heard == []


@pytest.mark.slow
def test_an_actor_that_dies_costs_nothing(photos: Path, tmp_path: Path) -> None:
    once = f'Simulated(dies="13.png", survived={str(tmp_path / "survived")!r})'
    assert on_its_own(once, {"workers": 2}, photos, tmp_path / "out") == "6 22 1 []"
    assert (tmp_path / "survived").exists()
    assert files(tmp_path / "out") == files(tmp_path / "alone")


@pytest.mark.slow
def test_a_shard_of_which_actors_die_is_left_out(photos: Path, tmp_path: Path) -> None:
    told = on_its_own('Simulated(dies="13.png")', {"workers": 2}, photos, tmp_path / "out")
    assert told == "5 18 1 ['pictures 13 to 16']"
    assert status(tmp_path / "out").missing == ["3"]


@pytest.mark.slow
def test_a_machine_and_the_driver_die_and_each_row_is_there_once() -> None:
    """Kill runs; ``--times`` of the script has more of them."""
    for name in ("ray", "psutil"):
        pytest.importorskip(name, reason="Ray and psutil are not installed: pip install 'seewhy[ray]' psutil")
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, TESTS.parent / "benchmarks" / "ray_kills.py", "--times", "1", "--kinds", "node", "driver"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_ray_that_is_not_there_or_does_not_answer_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(os, "environ", {**os.environ, "RAY_USAGE_STATS_ENABLED": "1"})
    with pytest.raises(
        MissingExtraError, match=r"^Running on Ray needs the extra 'ray'.*: pip install 'seewhy\[ray\]'$"
    ):
        on_ray.on_ray(Simulated(), on_ray.Cluster()).__enter__()
    assert os.environ["RAY_USAGE_STATS_REPORT_URL"] == "http://127.0.0.1:9/"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'seewhy[ray]'")
    with pytest.raises(ModelError, match=r"^The cluster 127\.0\.0\.1:1 does not answer \("):
        on_ray.on_ray(Simulated(), on_ray.Cluster("127.0.0.1:1")).__enter__()
