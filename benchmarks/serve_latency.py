"""One client at `seewhy serve`: milliseconds of `/readyz`, a picture and a card, on one connection and on new ones.

python benchmarks/serve_latency.py [--times 100] [--model MODEL]
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from serve_load import write_pictures

FORM = {"content-type": "multipart/form-data; boundary=x"}
TO_SKIP = 3


def form(picture: bytes) -> bytes:
    head = b'--x\r\ncontent-disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\n'
    return head + picture + b"\r\n--x--\r\n"


def milliseconds(port: int, path: str, bodies: Sequence[bytes], keep: bool, times: int) -> list[float]:
    """Of each request, without the first ones."""
    taken, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for i in range(times + TO_SKIP):
        start = time.perf_counter()
        if not keep:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if bodies:
            connection.request("POST", path, bodies[i % len(bodies)], FORM)
        else:
            connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        taken.append(1000 * (time.perf_counter() - start))
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status}")
        if not keep:
            connection.close()
    return taken[TO_SKIP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--model")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write_pictures(Path(place))
        bodies = [form(file.read_bytes()) for file in sorted(Path(place).glob("*.jpg"))]
    command = [sys.executable, "-m", "seewhy", "serve", "--port", "0", *(["-m", asked.model] if asked.model else [])]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = int(re.findall(r":(\d+)/", server.stderr.readline())[0])
        for keep in (True, False):
            print("one connection" if keep else "a new connection for each request")
            for path, sent in (("/readyz", []), ("/predict", bodies), ("/predict?explain=where", bodies)):
                taken = milliseconds(port, path, sent, keep, asked.times)
                p95 = statistics.quantiles(taken, n=20)[-1]
                print(f"  {path:<24} p50 {statistics.median(taken):7.2f} ms   p95 {p95:7.2f} ms")
    finally:
        server.terminate()
        code = server.wait(60)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; SIGTERM ended it with {code}")
    sys.exit(code)


if __name__ == "__main__":
    main()
