"""50 clients at `seewhy serve`, driven by locust: requests a second, p50, p99, errors, memory at the start and the end.

Locust is run as a program of its own, from wherever it is installed (it brings gevent, which SeeWhy does not want).
    python benchmarks/serve_load.py [--clients 50] [--seconds 600] [--model MODEL] [--locust PROGRAM] [--explain]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

LOCUSTFILE = """
import itertools, pathlib
from locust import FastHttpUser, constant, task

FILES = [p.read_bytes() for p in sorted(pathlib.Path(__file__).parent.glob("*.jpg"))]
turn = itertools.count()

def form(*pictures):
    parts = [
        b'--x\\r\\ncontent-disposition: form-data; name="picture"; filename="a.jpg"\\r\\n\\r\\n' + one + b"\\r\\n"
        for one in pictures
    ]
    return b"".join(parts) + b"--x--\\r\\n"

class Client(FastHttpUser):
    wait_time = constant(0)
    network_timeout = connection_timeout = 60

    def send(self, name, n):
        files = [FILES[next(turn) % len(FILES)] for _ in range(n)]
        kind = {"content-type": "multipart/form-data; boundary=x"}
        with self.client.post(ADDRESS, form(*files), headers=kind, name=name, catch_response=True) as answer:
            if answer.status_code != 200 or sum("label" in row for row in answer.json()["pictures"]) != n:
                answer.failure(f"status {answer.status_code}: {str(answer.text)[:100]}")

    @task(9)
    def one(self):
        self.send("one picture", 1)

    @task(1)
    def four(self):
        self.send("four pictures", 4)
"""


def write_pictures(folder: Path, n: int = 40) -> None:
    """Photographs that come with scikit-image, each turned differently."""
    import skimage.data
    from PIL import Image

    for i in range(n):
        image = Image.fromarray((skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee())[i % 3])
        image.rotate(i).save(folder / f"{i:02}.jpg", "JPEG", quality=88)


def resident(pid: int) -> float:
    """Megabytes of the service and of the processes that decode for it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = 0.0
    for one in (pid, *map(int, children)):
        status = Path(f"/proc/{one}/status").read_text()
        found += int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000
    return found


def watch(pid: int, readings: list[tuple[float, float]], stop: threading.Event) -> None:
    start = time.monotonic()
    while not stop.wait(2):
        readings.append((time.monotonic() - start, resident(pid)))


def drive(locust: str, folder: Path, url: str, clients: int, seconds: int) -> list[dict[str, str]]:
    command = [locust, "-f", str(folder / "locustfile.py"), "--headless", "-u", str(clients), "-r", str(clients)]
    command += ["-t", f"{seconds}s", "--stop-timeout", "60", "-H", url.rstrip("/"), "--csv", str(folder / "load")]
    done = subprocess.run([*command, "--only-summary"], capture_output=True, text=True)
    if not (folder / "load_stats.csv").exists():
        sys.exit(f"{locust} did not run:\n{done.stderr[-2000:]}")
    for row in csv.DictReader((folder / "load_failures.csv").open()):
        print("  failed:", row)
    return list(csv.DictReader((folder / "load_stats.csv").open()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--model")
    parser.add_argument("--locust", default="locust")
    parser.add_argument("--explain", action="store_true", help="ask for where, like and words with every picture")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(folder)
        address = "/predict?explain=where,like,words" if asked.explain else "/predict"
        (folder / "locustfile.py").write_text(LOCUSTFILE.replace("ADDRESS", repr(address)))
        command = [
            sys.executable,
            "-m",
            "seewhy",
            "serve",
            "--port",
            "0",
            *(["-m", asked.model] if asked.model else []),
        ]
        log = (folder / "access.jsonl").open("wb")
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, text=True)
        readings: list[tuple[float, float]] = []
        stop = threading.Event()
        try:
            assert server.stderr is not None
            url = re.findall(r"http://\S+/", server.stderr.readline())[0]
            thread = threading.Thread(target=watch, args=(server.pid, readings, stop))
            thread.start()
            rows = drive(asked.locust, folder, url, asked.clients, asked.seconds)
            counts = urllib.request.urlopen(f"{url}metrics").read().decode()
        finally:
            stop.set()
            server.terminate()
            code = server.wait(60)
            log.close()
        lines = [json.loads(one) for one in (folder / "access.jsonl").read_text().splitlines()]
        report(asked, rows, readings, counts, code, lines)


def report(
    asked: argparse.Namespace,
    rows: list[dict[str, str]],
    readings: list[tuple[float, float]],
    counts: str,
    code: int,
    lines: list[dict[str, object]],
) -> None:
    load = os.getloadavg()[0]
    print(f"{asked.clients} clients, {asked.seconds} s; {os.cpu_count()} cores, load {load:.1f} at the end")
    for row in rows:
        times = "  ".join(f"p{p} {float(row[f'{p}%']) / 1000:6.2f} s" for p in (50, 95, 99))
        name = row["Name"] if row["Name"] != "Aggregated" else "all"
        rate = float(row["Requests/s"])
        print(f"  {name:<14} {row['Request Count']:>7} requests, {rate:6.1f}/s  {times}  {row['Failure Count']} errors")
    sizes = {key: float(v) for key, v in re.findall(r"seewhy_batch_pictures_(sum|count)\{.*?\} (\S+)", counts)}
    print(
        f"  {sizes['sum']:.0f} pictures in {sizes['count']:.0f} batches: {sizes['sum'] / sizes['count']:.1f} together"
    )
    settled = [m for s, m in readings if s > 0.2 * asked.seconds] or [m for _, m in readings]
    early, late, most = settled[0], settled[-1], max(settled)
    print(f"  memory {early:.0f} MB after a fifth of the time, {late:.0f} MB at the end, {most:.0f} MB at most")
    print(f"  {len(lines)} lines in the log; SIGTERM ended it with {code}")
    sys.exit(bool(code) or any(int(row["Failure Count"]) for row in rows))


if __name__ == "__main__":
    main()
