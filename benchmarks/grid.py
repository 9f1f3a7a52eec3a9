"""The grid of `seewhy app` at 50,000 pictures: time, memory of the server, answers, and frame times while one scrolls.

    python benchmarks/grid.py birds photos/ --n 50000

The pictures of the folder are linked again under new names until there are enough, so that each has a tile of its own.
The server starts twice: with an empty cache, and with what the first one kept. Frames are those of headless Chromium
without a graphics card.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import BROWSER, Browser, until
from seewhy.pictures.samples import load_samples

VIEWS = ("", "sort=doubt&descending=true", "sort=probability", "right=wrong", "name=_7", "decision=open", "least=0.9")
SCROLL = """
new Promise((done) => {
  const grid = document.getElementById('grid'), times = [];
  let last = performance.now();
  const step = (now) => {
    times.push(now - last); last = now;
    if (times.length > 180) { done(times.slice(1)); return; }
    grid.scrollTop += %d;
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""
FULL = "[...document.querySelectorAll('#grid .cell')].every((cell) => cell.firstChild.complete && cell.firstChild.src)"


def farm(folder: Path, data: str, label: str, n: int) -> None:
    """Links to the pictures of each class, under new names, until there are ``n``."""
    items = load_samples(data, label=label).items
    for i in range(n):
        item = items[i % len(items)]
        place = folder / item.label
        place.mkdir(parents=True, exist_ok=True)
        os.link(item.image, place / f"{i:06d}{Path(item.image).suffix}")


@contextmanager
def app(model: str, data: Path, cache: Path) -> Iterator[tuple[str, int]]:
    """Its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "seewhy", "app", "-m", model, "--data", str(data), "--port", str(port), "--quiet"]
    process = subprocess.Popen(words, env={**os.environ, "SEEWHY_CACHE": str(cache)}, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def fetched(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


def memory(pid: int) -> dict[str, int]:
    """MB in use now, and at most."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) // 1000 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


def looked_at(address: str, pid: int) -> dict[str, Any]:
    """Seconds until the page answers, and until all pictures are looked at."""
    start, first, least = time.monotonic(), 0.0, {}
    while True:
        try:
            data = fetched(f"{address}/rows?count=1")
        except OSError:
            time.sleep(0.1)
            continue
        if not first:
            first, least = time.monotonic() - start, memory(pid)
        if data["done"] == data["of"]:
            break
        time.sleep(0.5)
    return {
        "answers after, s": round(first, 1), "all looked at after, s": round(time.monotonic() - start, 1),
        "MB at the start": least, "MB when all are looked at": memory(pid),
    }  # fmt: skip


def answers(address: str) -> dict[str, float]:
    """Milliseconds of a view's first page, the median of five."""
    milliseconds = {}
    for view in VIEWS:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            fetched(f"{address}/rows?count=120&{view}")
            times.append(time.perf_counter() - start)
        milliseconds[view or "all"] = round(1000 * float(np.median(times)), 1)
    return milliseconds


def frames(address: str, width: int) -> dict[str, Any]:
    """Milliseconds from frame to frame (median, 95th percentile, longest), and until all tiles in view are there."""
    times_by_name: dict[str, Any] = {}
    with Browser() as tab:
        start = time.monotonic()
        tab.open(f"{address}/browse", width)
        until(tab, f"document.querySelector('#grid .cell') && {FULL}", 60)
        times_by_name["first screen whole after, s"] = round(time.monotonic() - start, 2)
        for name, pixels in (("at rest", 0), ("a line a frame", 40), ("a screen a frame", 900)):
            times = np.array(tab.run(SCROLL % pixels))
            times_by_name[f"{name}, ms"] = [round(float(np.percentile(times, q)), 1) for q in (50, 95, 100)]
            start = time.monotonic()
            until(tab, FULL, 60)
            times_by_name[f"{name}: whole after, s"] = round(time.monotonic() - start, 2)
        start = time.monotonic()
        tab.run("(document.getElementById('grid').scrollTop = 1e7)")
        time.sleep(0.05)
        until(tab, FULL, 60)
        times_by_name["a jump to the end whole after, s"] = round(time.monotonic() - start, 2)
        times_by_name["elements"] = tab.run("document.querySelectorAll('#grid .cell').length")
    return times_by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a saved classifier")
    parser.add_argument("data", help="class folders, or a table")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument(
        "--room",
        type=Path,
        help="a folder on the disk of the pictures, for links to them",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.room) as folder:
        pictures, cache = Path(folder) / "pictures", Path(folder) / "cache"
        farm(pictures, given.data, given.label_column, given.n)
        results: dict[str, Any] = {"n": given.n}
        for start in ("empty cache", "kept"):
            with app(given.model, pictures, cache) as (address, pid):
                results[start] = looked_at(address, pid)
                print(json.dumps(results[start]), file=sys.stderr, flush=True)
                if start == "kept":
                    results["answers, ms"] = answers(address)
                    if BROWSER is not None:
                        results["frames"] = frames(address, given.width)
                    results["MB after"] = memory(pid)
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
