"""Kill runs on Ray: an actor, any process of Ray's, a machine with all that is on it, the driver, at random moments.

A cluster of three machines is drawn on this one: a head that does no work, and two with two cores each. Each run has
something killed once, at a moment that is drawn: while it starts, or when so many shards are done. Then rows are
counted, and files compared byte by byte with those of a run without Ray. Where the driver was killed, the same command
is run again; all else has to come right by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.errors import ImageError
from seewhy.pictures.images import Picture, read_picture
from seewhy.scale.inputs import find_input
from seewhy.scale.on_ray import Cluster, no_way_out, ray
from seewhy.scale.run import run
from seewhy.scale.work import Opened, Work, arrow
from seewhy.types import Failure, Transform

TRANSFORM = Transform((8, 8), 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
N_SHARDS, PER_SHARD, BROKEN = 25, 6, 40
MOST_SECONDS = 800
KINDS = ("actor", "process", "node", "driver")


@dataclass(frozen=True)
class Slow(Work):
    """A trunk that takes its time; its numbers are the picture's digest."""

    seconds: float = 0.1
    verb = "embed"

    def open(self) -> Opened:
        return _Slow(self.seconds)


class _Slow(Opened):
    transform = TRANSFORM

    def __init__(self, seconds: float) -> None:
        self.identity = {"encoder": "slow"}
        self._seconds = seconds

    def columns(self) -> list[tuple[str, Any]]:
        pa = arrow()
        return [("digest", pa.string()), ("embedding", pa.list_(pa.float32(), 4))]

    def results(self, sources: Iterator[Any]) -> Iterator[dict[str, Any] | Failure]:
        for source in sources:
            time.sleep(self._seconds)
            try:
                picture = source if isinstance(source, Picture) else read_picture(source, TRANSFORM)
            except ImageError as error:
                yield Failure(str(source), error.reason)
            else:
                yield {"digest": picture.digest, "embedding": list(bytes.fromhex(picture.digest)[:4])}


class Machines:
    """A head and two machines, as processes of this one; what dies is started anew for the next run."""

    def __init__(self) -> None:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        ray()
        from ray.cluster_utils import Cluster as Simulated

        with no_way_out:
            self._cluster = Simulated(True, head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000})
        self.address = self._cluster.address
        self._nodes: list[Any] = []
        self.mend()

    def mend(self) -> None:
        for node in [node for node in self._nodes if not node.any_processes_alive() or node.dead_processes()]:
            self._nodes.remove(node)
            self._cluster.remove_node(node, allow_graceful=False)
        with no_way_out:
            while len(self._nodes) < 2:
                self._nodes.append(self._cluster.add_node(num_cpus=2, object_store_memory=80_000_000))

    def stop(self) -> None:
        self._cluster.shutdown()

    def kill_node(self, draw: random.Random) -> str:
        """One with all its processes, at once."""
        node = self._nodes.pop(draw.randrange(len(self._nodes)))
        doomed = self._below(node)
        for process in doomed:
            end(process.pid)
        self._cluster.remove_node(node, allow_graceful=False)
        return f"{len(doomed)} processes"

    def kill_process(self, draw: random.Random, name: str) -> str:
        """A process of Ray's that does something, or will."""
        running = [(p, title(p)) for node in self._nodes for p in self._below(node)]
        chosen = [(p, text) for p, text in running if text.startswith("ray::") and name in text]
        if not chosen:
            return ""
        process, text = draw.choice(chosen)
        end(process.pid)
        return text.strip()

    def _below(self, node: Any) -> list[Any]:
        import psutil  # type: ignore[import-untyped]

        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]


def title(process: Any) -> str:
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def end(pid: int) -> None:
    """Kill at once, as no memory or a pulled plug does."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*")}


def n_done(output: Path) -> int:
    return len(list(output.glob("shard-*.parquet")))


def times_of_rows(output: Path) -> Counter[str]:
    from pyarrow.parquet import read_table

    return Counter(
        name for path in output.glob("*.parquet") for name in read_table(path, columns=["image"])["image"].to_pylist()
    )


def drive(photos: Path, output: Path, address: str) -> None:
    """The driver, in a process of its own."""
    cluster = Cluster(address, workers=2, threads=1)
    report = run(Slow(), find_input(photos, per_shard=PER_SHARD), output, cluster=cluster)
    print(json.dumps(report.to_json()))


def start(photos: Path, output: Path, address: str) -> subprocess.Popen[str]:
    code = "import sys; from pathlib import Path; from ray_kills import drive; "
    code += "drive(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(photos), str(output), address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(driver: subprocess.Popen[str]) -> tuple[str, str]:
    """What a driver said; one that does not end is a run that is not whole."""
    try:
        return driver.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        driver.kill()
        return driver.communicate()


def kill_run(machines: Machines, kind: str, photos: Path, output: Path, draw: random.Random) -> dict[str, Any]:
    """A run in which something dies, and what came of it."""
    at, later = draw.randrange(N_SHARDS - 4), draw.random() * 2
    driver, began, killed = start(photos, output, machines.address), time.monotonic(), ""
    while n_done(output) < at and driver.poll() is None:
        time.sleep(0.05)
    time.sleep(later if at else 5 * later)
    while not killed and driver.poll() is None:
        if kind == "driver":
            killed = f"pid {driver.pid}"
            end(driver.pid)
        elif kind == "node":
            killed = machines.kill_node(draw)
        else:
            killed = machines.kill_process(draw, "Actor" if kind == "actor" else "")
        time.sleep(0.05)
    done = n_done(output)
    told, errors = ended(driver)
    if kind == "driver":
        driver = start(photos, output, machines.address)
        told, errors = ended(driver)
    report = json.loads(told) if driver.returncode == 0 else {"unread": [errors[-2000:]]}
    return {
        "kind": kind, "killed": killed, "done_then": done, "unread": report["unread"],
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def make_photos(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    for i in range(N_SHARDS * PER_SHARD):
        if i == BROKEN:
            (folder / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        else:
            Image.new("RGB", (9, 8), (i, 255 - i, 7)).save(folder / f"{i}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--times", type=int, default=5, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, fell = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_photos(folder / "photos")
        run(Slow(0), find_input(folder / "photos", per_shard=PER_SHARD), folder / "alone")
        right = contents(folder / "alone")
        machines = Machines()
        try:
            for kind, number in ((kind, n) for n in range(given.times) for kind in given.kinds):
                output = folder / f"{kind}-{number}"
                outcome = kill_run(machines, kind, folder / "photos", output, draw)
                rows = times_of_rows(output)
                outcome |= {"rows": rows.total(), "twice": sum(n > 1 for n in rows.values())}
                outcome |= {"files": n_done(output), "same_bytes": contents(output) == right}
                fell += not outcome["same_bytes"] or bool(outcome["unread"])
                print(json.dumps(outcome), flush=True)
                machines.mend()
        finally:
            machines.stop()
    print(f"{len(given.kinds) * given.times} runs, {fell} of them not whole")
    raise SystemExit(fell > 0)


if __name__ == "__main__":
    main()
