"""Runs of ``seewhy index --parquet``: processes and Ray beside one process, memory over many
rows.

Rates leave the start out: they are of the pictures after every process has done a shard. Each way is run in turn,
several times, in processes of their own, on the same pictures; what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.progress import Progress
from seewhy.scale.inputs import find_input
from seewhy.scale.on_ray import Cluster
from seewhy.scale.run import run
from seewhy.scale.work import Embed, Opened, Work, arrow
from seewhy.threads import n_cores

WAYS: dict[str, dict[str, Any]] = {
    "one process, one thread": {"workers": 1, "threads": 1},
    "one process, all threads": {"workers": 1, "threads": n_cores()},
    "two workers": {"workers": 2, "threads": n_cores()},
    "two workers on Ray": {"cluster": {"workers": 2, "threads": max(1, n_cores() // 2)}},
}


@dataclass(frozen=True)
class Simulated(Work):
    """A trunk that takes no time: memory is of what is around it."""

    width: int = 64
    verb = "embed"

    def open(self) -> Opened:
        return _Simulated(self.width)


class _Simulated(Opened):
    def __init__(self, width: int) -> None:
        self.identity = {"encoder": "simulated"}
        self._width = width

    def columns(self) -> list[tuple[str, Any]]:
        pa = arrow()
        return [("digest", pa.string()), ("embedding", pa.list_(pa.float32(), self._width))]

    def results(self, sources: Iterator[Any]) -> Iterator[dict[str, Any]]:
        for source in sources:
            digest = hashlib.sha256(str(source).encode())
            yield {
                "digest": digest.hexdigest(),
                "embedding": np.resize(np.frombuffer(digest.digest(), np.uint8), self._width),
            }


class Clock(Progress):
    """When each shard was done, and how much memory there was."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.megabytes: list[float] = []

    def track(self, items: Any, what: str, total: int | None = None) -> Any:
        for item in items:
            self.seconds.append(time.perf_counter())
            self.megabytes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            yield item


def timed(photos: str, per_shard: int, way: dict[str, Any], engine: str) -> dict[str, float]:
    """Pictures a second after the start, and seconds in all."""
    how = dict(way)
    if "cluster" in how:
        how["cluster"] = Cluster(**how["cluster"])
    clock, start = Clock(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            Embed(engine=engine), find_input(photos, per_shard=per_shard), Path(folder) / "out", progress=clock, **how
        )
    first = how.get("workers", 2)
    rate = (len(clock.seconds) - first) * per_shard / (clock.seconds[-1] - clock.seconds[first - 1])
    return {"rate": rate, "seconds": time.perf_counter() - start, "rows": report.rows}


def memory(n: int) -> list[tuple[int, float]]:
    """Most memory so far, in MB, after so many rows of a table of names."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "names.csv"
        with open(table, "w") as file:
            file.write("image\n")
            file.writelines(f"{i // 1000:06}/{i:09}.jpg\n" for i in range(n))
        clock = Clock()
        given = find_input(table)
        run(Simulated(), given, Path(folder) / "out", progress=clock)
    steps = [n // 100, n // 10, n // 2, n]
    return [(rows, clock.megabytes[min(-(-rows // given.per_shard), len(clock.megabytes)) - 1]) for rows in steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", help="a folder of photographs; some 2,000 are enough")
    parser.add_argument("--rows", type=int, help="only memory, over a table of so many names, with a simulated trunk")
    parser.add_argument("--per-shard", type=int, default=64)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rows:
        for rows, megabytes in memory(given.rows):
            print(f"{rows:>12,} rows  {megabytes:,.0f} MB")
        return
    if given.way:
        print(json.dumps(timed(given.photos, given.per_shard, WAYS[given.way], given.engine)))
        return
    ways = [w for w in WAYS if "Ray" not in w or importlib.util.find_spec("ray")]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(given.times):
        for way in ways:
            options = ["--per-shard", str(given.per_shard), "--engine", given.engine, "--way", way]
            command = [sys.executable, __file__, given.photos, *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
            told = json.loads(done.stdout.splitlines()[-1])
            found[way].append(told["rate"])
            print(f"{way:<26} {told['rate']:8.1f} a second  {told['seconds']:8.1f} s in all", flush=True)
    middle = {way: statistics.median(rates) for way, rates in found.items()}
    for way, other, target in (
        ("two workers", "one process, all threads", 0.9),
        ("two workers", "one process, one thread", 1.8),
        ("two workers on Ray", "two workers", 0.85),
    ):
        if way in middle:
            print(f"{way} / {other}: {middle[way] / middle[other]:.2f} (at least {target} was asked for)")


if __name__ == "__main__":
    main()
