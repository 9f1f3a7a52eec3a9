"""A process that decodes pictures with limits on time and memory, so that a broken decoder cannot affect the caller."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from typing import IO, Any

import numpy as np

from ..errors import ImageError, InputError
from ..types import Transform
from .images import Picture, read_picture

MOST_HEAD = 100_000
SPARE_SECONDS = 2
"""Seconds between the decoder's own limit, which has a better message, and the operating system's limit."""


def write_request(to: IO[bytes], source: bytes | str, transform: Transform) -> None:
    """Request a picture: send the bytes of a file, or the name of a file."""
    data = source if isinstance(source, bytes) else b""
    head = {"path": None if isinstance(source, bytes) else source, "n": len(data), "transform": transform.to_json()}
    to.write(json.dumps(head).encode() + b"\n" + data)
    to.flush()


def read_reply(source: IO[bytes], name: str, transform: Transform) -> Picture:
    try:
        head = json.loads(source.readline(MOST_HEAD))
        if "error" in head:
            raise ImageError(name, str(head["error"]))
        height, width = transform.input_size
        data = source.read(height * width * 3)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
        size, window = tuple(map(int, head["size"])), tuple(map(float, head["window"]))
        return Picture(name, pixels, size, window, str(head["digest"]))  # type: ignore[arg-type]
    except ImageError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EOFError("no answer") from error


def main() -> None:
    """Answer requests on standard input until it is closed."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's prints must not mix with the answers
    seconds, n_bytes = int(sys.argv[1]), int(sys.argv[2])
    with contextlib.suppress(ImportError, OSError, ValueError):  # without such limits, only the pixel limit applies
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, used + n_bytes))
    while line := sys.stdin.buffer.readline(MOST_HEAD):
        head = json.loads(line)
        source = head["path"] if head["path"] is not None else sys.stdin.buffer.read(head["n"])
        _limit_time(seconds + SPARE_SECONDS)
        answers.write(_answer(source, Transform.from_json(head["transform"])))
        answers.flush()


def _answer(source: bytes | str, transform: Transform) -> bytes:
    try:
        picture = read_picture(source, transform)
    except InputError as error:
        return json.dumps({"error": getattr(error, "reason", str(error))}).encode() + b"\n"
    head: dict[str, Any] = {"size": picture.original_size, "window": picture.window, "digest": picture.digest}
    return json.dumps(head).encode() + b"\n" + picture.pixels.tobytes()


def _limit_time(seconds: int) -> None:
    """Set a limit on the CPU time of this process, from now on."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, most))


if __name__ == "__main__":
    main()
