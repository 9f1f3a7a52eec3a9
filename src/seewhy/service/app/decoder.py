"""Pictures decoded in processes of their own: one that is made to hang or to grow stops nobody but itself."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import IO, cast

from ...errors import ImageError
from ...pictures.decoder_process import SPARE_SECONDS, read_reply, write_request
from ...pictures.images import Picture
from ...types import Transform
from .worker import BusyError

MOST_BYTES = 2**31
"""Memory of one process, beyond what it starts with."""
_COSTLY = "takes more time or memory to decode than a picture may here; shrink it, or save it anew"


class Decoder:
    """Decodes pictures, each in one of a few processes; one that takes too long is ended and replaced."""

    def __init__(self, seconds: int, n_waiting: int) -> None:
        self.seconds = seconds
        self.n_waiting = n_waiting
        self._n = 0
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._pool = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 2)), thread_name_prefix="seewhy-decoder")

    def read(self, source: bytes | str, name: str, transform: Transform) -> Future[Picture]:
        """A picture's view, as :func:`seewhy.pictures.images.read_picture` gives it."""
        with self._lock:
            if self._n >= self.n_waiting:
                raise BusyError(f"{self._n} pictures are waiting already. Try again in a few seconds.")
            self._n += 1
        future = self._pool.submit(self._read, source, name, transform)
        future.add_done_callback(self._done)
        return future

    def _done(self, _future: Future[Picture]) -> None:
        with self._lock:
            self._n -= 1

    def _read(self, source: bytes | str, name: str, transform: Transform) -> Picture:
        process = self._process()
        clock = 3 * (self.seconds + SPARE_SECONDS)
        watch = threading.Timer(clock, process.kill)
        watch.daemon = True
        watch.start()
        try:
            write_request(cast("IO[bytes]", process.stdin), source, transform)
            return read_reply(cast("IO[bytes]", process.stdout), name, transform)
        except ImageError:
            raise
        except (OSError, EOFError, ValueError) as error:
            self._mine.process = None
            self._running.discard(process)
            _end(process)
            raise ImageError(name, _COSTLY) from error
        finally:
            watch.cancel()

    def _process(self) -> subprocess.Popen[bytes]:
        """This thread's process, started where there is none."""
        process = getattr(self._mine, "process", None)
        if process is None or process.poll() is not None:
            path = os.pathsep.join(p for p in sys.path if p)
            environment = os.environ | {"PYTHONPATH": path, "SEEWHY_MAX_SECONDS": str(self.seconds)}
            environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "seewhy.pictures.decoder_process", str(self.seconds), str(MOST_BYTES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            self._mine.process = process
            self._running.add(process)
        return process

    def stop(self) -> None:
        """End all processes; the next picture starts one anew."""
        while self._running:
            _end(self._running.pop())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            cast("IO[bytes]", pipe).close()
    process.wait()


@cache
def decoder_with(seconds: int, n_waiting: int) -> Decoder:
    """The decoder with these limits; one for all pages of this process, whose end ends its processes too."""
    made = Decoder(seconds, n_waiting)
    atexit.register(made.stop)
    return made
