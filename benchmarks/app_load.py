"""Many readers at once: 50 clients send pictures to a running page and fetch their cards; nothing may fail.

Prints the time from sending a picture to having its card, p50 and p95, and how full the engine's batches were.
    python benchmarks/app_load.py [--clients 50] [--each 4] [--model MODEL] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from PIL import Image

BOUNDARY = "seewhybenchmark"


def pictures(folder: Path | None, n: int = 40) -> list[bytes]:
    """Files of a folder, or photographs that come with scikit-image, each different."""
    if folder is not None:
        return [p.read_bytes() for p in sorted(folder.rglob("*.jpg"))[:n]]
    import skimage.data

    found = []
    for i in range(n):
        image = Image.fromarray((skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee())[i % 3])
        file = io.BytesIO()
        image.rotate(i).save(file, "JPEG", quality=88)
        found.append(file.getvalue())
    return found


def ask(port: int, picture: bytes, name: str) -> tuple[float, float]:
    """Seconds until the picture was looked at, and until its card was there."""
    body = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="picture"; filename="{name}"\r\n\r\n'.encode()
        + picture
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/look", body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
    response = connection.getresponse()
    response.read()
    if response.status != 303:
        raise RuntimeError(f"POST /look: {response.status}")
    looked = time.perf_counter() - start
    connection.request("GET", response.headers["location"])
    response = connection.getresponse()
    page = response.read()
    if response.status != 200 or b"Where it looked" not in page:
        raise RuntimeError(f"GET the card: {response.status}")
    connection.close()
    return looked, time.perf_counter() - start


def load(
    port: int, files: list[bytes], n_clients: int, each: int
) -> tuple[list[tuple[float, float]], list[str], float]:
    """All clients at once, each sending one picture after the other."""
    times: list[tuple[float, float]] = []
    errors: list[str] = []
    ready = threading.Barrier(n_clients + 1)

    def client(number: int) -> None:
        ready.wait()
        for turn in range(each):
            try:
                times.append(ask(port, files[(number * each + turn) % len(files)], f"{number}-{turn}.jpg"))
            except Exception as error:
                errors.append(repr(error))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(n_clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return times, errors, time.perf_counter() - start


def say(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    print(f"  {what:<28} p50 {statistics.median(ordered):6.2f} s   p95 {p95:6.2f} s   longest {ordered[-1]:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--model")
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    files = pictures(asked.pictures)
    command = [sys.executable, "-m", "seewhy", "app", "--port", "0", "--store", "none"]
    command += ["-m", asked.model] if asked.model else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])
        ask(port, files[0], "first.jpg")
        alone = [ask(port, files[i % len(files)], "alone.jpg")[1] for i in range(8)]
        times, errors, wall = load(port, files, asked.clients, asked.each)
    finally:
        server.terminate()
        server.wait(timeout=20)
    cores, others = os.cpu_count(), os.getloadavg()[0]
    print(f"{asked.clients} clients, {asked.each} pictures each; {cores} cores, load {others:.1f} at the end")
    say("one client alone, card", alone)
    say("looked at", [a for a, _ in times])
    say("card there", [b for _, b in times])
    print(f"  {len(times)} cards in {wall:.1f} s: {len(times) / wall:.1f} a second; {len(errors)} errors {errors[:2]}")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
