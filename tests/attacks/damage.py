"""What somebody may put in the place of a file, and a limit of time within which it must be told."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 20


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Ends a block that waits for ever."""

    def over(*_: object) -> None:
        raise AssertionError(f"it was still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def emptied(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pipe(path: Path) -> None:
    emptied(path)
    os.mkfifo(path)


def device(path: Path) -> None:
    emptied(path)
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    emptied(path)
    path.mkdir()


def empty(path: Path) -> None:
    emptied(path)
    path.touch()


def sparse(path: Path) -> None:
    """10 GB of nothing, in no room."""
    emptied(path)
    with path.open("wb") as file:
        file.truncate(10 << 30)


def sparse_behind(path: Path) -> None:
    """The file itself, and 10 GB of nothing behind it."""
    with path.open("r+b") as file:
        file.truncate(10 << 30)


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def noise(path: Path) -> None:
    path.write_bytes(bytes((i * 37 + i // 7) % 256 for i in range(5000)))


def huge_header(path: Path) -> None:
    """A file of tensors whose header says it is longer than any memory."""
    path.write_bytes((1 << 62).to_bytes(8, "little") + b'{"a":' + bytes(1000))


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 200_000)


def deep_header(path: Path) -> None:
    text = b'{"a":' + b"[" * 200_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def gone(path: Path) -> None:
    emptied(path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (pipe, device, folder, empty, sparse, sparse_behind, half, noise, huge_header, deep, deep_header, gone)
}


def flipped(data: bytes, place: int, bit: int) -> bytes:
    """The same but for one bit."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)
