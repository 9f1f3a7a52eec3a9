"""The Dockerfile, as far as it can be run without Docker: its health check, and the versions that it takes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def health_check(port: int) -> list[str]:
    found = re.search(r"^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    return [part.replace("/8000", f"/{port}") for part in json.loads(found[1])]


@contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[int, list[bytes]]]:
    """A port at which one request gets these bytes; ``None`` takes it and says nothing."""
    asked: list[bytes] = []
    over = threading.Event()
    with socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        service.listen()

        def serve() -> None:
            client, _ = service.accept()
            with client:
                request = b""
                while not request.endswith(b"\r\n\r\n") and (piece := client.recv(4096)):  # the shell sends lines
                    request += piece
                asked.append(request)
                if answer is None:
                    over.wait(10)
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield service.getsockname()[1], asked
        over.set()


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 400 Bad Request 200\r\n\r\n", False),
        (b"", False),
        (None, False),
    ],
)
def test_the_health_check_is_the_shells_and_goes_by_the_status(answer: bytes | None, healthy: bool) -> None:
    with answering(answer) as (port, asked):
        done = subprocess.run(health_check(port), env={"PATH": ""}, executable="/bin/bash", timeout=20)
        assert (done.returncode == 0) is healthy
        assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert asked[0].endswith(b"\r\n\r\n")


def test_where_nobody_listens_it_is_not_healthy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(health_check(port), executable="/bin/bash", capture_output=True, timeout=20)
    assert done.returncode != 0


def test_versions_are_those_of_the_lock() -> None:
    found = re.search(r"sed -nE '(.*?)' requirements-dev\.lock", DOCKERFILE)
    assert found is not None
    lock = ROOT / "requirements-dev.lock"
    taken = subprocess.run(["sed", "-nE", found[1], str(lock)], check=True, capture_output=True, text=True).stdout
    pinned = re.findall(r"^([a-zA-Z0-9].*?==[^\s\\]+)", lock.read_text("utf-8"), re.MULTILINE)
    assert [line.partition(" ")[0] for line in taken.splitlines()] == pinned
    assert [line.partition("==")[0] for line in taken.splitlines() if line.startswith("torch")] == [
        "torch",
        "torchvision",
    ]
    assert "--hash" not in taken
    assert "\\" not in taken


def test_it_runs_as_nobody_and_takes_only_what_it_needs() -> None:
    assert re.search(r"^USER 65534:65534$", DOCKERFILE, re.MULTILINE)
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
