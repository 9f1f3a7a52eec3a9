"""Processes that decode pictures, and a thread that encodes them in batches."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import heapq
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Any, TypeVar, cast

import numpy as np

from ...encoders.base import Encoder
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import ImageError, SeeWhyError
from ...pictures.decoder_process import SPARE_SECONDS, read_reply, write_request
from ...pictures.images import Picture
from ...processes import start_python
from ...types import Failure, Transform
from .settings import Settings

T = TypeVar("T")
Look = tuple[Picture, str, Future[Encoded | Failure]]

SOON, LATER, IDLE = 0, 1, 2
"""Priorities of jobs: a reader waits, a reader waits for a later part, or nobody waits."""
MOST_IN_ROW = 4
"""Maximum number of batches in a row before a job with a waiting reader runs."""

_logger = logging.getLogger(__name__)


class BusyError(SeeWhyError):
    """Raised when the queue is full."""


class Worker:
    """A thread that encodes pictures in batches and runs other jobs by priority."""

    def __init__(
        self, encoder: Encoder, settings: Settings, on_batch: Callable[[int, float], None] | None = None
    ) -> None:
        self.encoder = encoder
        self.settings = settings
        self.decoder = decoder_with(settings.decode_seconds, settings.n_waiting)
        blank = np.zeros((*encoder.transform.input_size, 3), np.uint8)
        encoder.encode(encoder.pixels([blank]))  # starts the engine, so that the first request does not wait
        self._on_batch = on_batch
        self._in_row = 0
        self._n_coming = 0
        self.batches: deque[int] = deque(maxlen=1000)
        self._looks: deque[Look] = deque()
        self._jobs: list[tuple[int, int, Callable[[], Any], Future[Any]]] = []
        self._number = itertools.count()
        self._wake = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="seewhy-app", daemon=True)
        self._thread.start()

    async def see(self, source: bytes | str, name: str) -> Encoded | Failure:
        """Decode and encode a picture."""
        with self.coming():
            picture = await asyncio.wrap_future(self.decoder.read(source, name, self.encoder.transform))
            look = self.look(picture, name)
        return await asyncio.wrap_future(look)

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """Announce a picture that is being decoded, so that the next batch waits for it."""
        with self._wake:
            self._n_coming += 1
        try:
            yield
        finally:
            with self._wake:
                self._n_coming -= 1
                self._wake.notify()

    def look(self, picture: Picture, name: str) -> Future[Encoded | Failure]:
        """Queue a picture for encoding, in a batch with other pictures."""
        future: Future[Encoded | Failure] = Future()
        with self._wake:
            self._admit(len(self._looks))
            self._looks.append((picture, name, future))
            self._wake.notify()
        return future

    def do(self, job: Callable[[], T], urgency: int = SOON) -> Future[T]:
        future: Future[T] = Future()
        with self._wake:
            self._admit(-1 if urgency == IDLE else len(self._jobs))
            heapq.heappush(self._jobs, (urgency, next(self._number), job, future))
            self._wake.notify()
        return future

    @property
    def n_waiting(self) -> int:
        return len(self._looks) + len(self._jobs)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish the running job, and cancel the waiting ones."""
        with self._wake:
            self._open = False
            waiting: list[Future[Any]] = [f for _, _, f in self._looks] + [f for *_, f in self._jobs]
            self._looks.clear()
            self._jobs.clear()
            self._wake.notify()
        for future in waiting:
            future.cancel()
        self._thread.join(timeout=10)

    def _admit(self, n_waiting: int) -> None:
        if not self._open:
            raise BusyError("The server is stopping. Start it again.")
        if n_waiting >= self.settings.n_waiting:
            raise BusyError(f"{n_waiting} requests are already waiting. Try again in a few seconds.")

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._open and not self._looks and not self._jobs:
                    self._wake.wait()
                if not self._open:
                    return
                turn = bool(self._jobs) and self._jobs[0][0] == SOON and self._in_row >= MOST_IN_ROW
                batch = self._gather() if self._looks and not turn else []
                job = None if batch or not self._jobs else heapq.heappop(self._jobs)
                self._in_row = self._in_row + 1 if batch else 0
            if batch:
                self._look(batch)
            elif job is not None:
                _settle(job[3], job[2])

    def _gather(self) -> list[Look]:
        """Return the next batch, after a short wait for pictures that are being decoded. Requires the lock."""
        until = time.monotonic() + self.settings.gather_seconds
        while self._open and self._n_coming and len(self._looks) < self.settings.batch:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._wake.wait(left)
        batch: list[Look] = []
        while self._looks and len(batch) < self.settings.batch:
            look = self._looks.popleft()
            if not look[2].cancelled():
                batch.append(look)
        return batch

    def _look(self, batch: Sequence[Look]) -> None:
        self.batches.append(len(batch))
        start = time.monotonic()
        request = EncodeRequest(features=lambda _index: True, pictures=True)
        sources = [picture for picture, _, _ in batch]
        try:
            results = list(encode_stream(self.encoder, sources, request=request, batch_size=self.settings.batch))
        except Exception as error:
            for _, _, future in batch:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            return
        for (_, name, future), result in zip(batch, results, strict=True):
            named = Failure(name, result.error) if isinstance(result, Failure) else replace(result, name=name)
            _settle(future, lambda named=named: named)  # type: ignore[misc]
        if self._on_batch is not None:
            self._on_batch(len(batch), time.monotonic() - start)


def _settle(future: Future[T], job: Callable[[], T]) -> None:
    """Run a job and set its result or error, unless its future was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:
        if not isinstance(error, Exception):
            _logger.error("the app's thread was stopped by %r", error)
        future.set_exception(error)


MOST_BYTES = 2**31
"""Maximum bytes that a process may allocate after its start."""
_COSTLY = "takes more time or memory to decode than is allowed here; shrink it, or save it again"


class Decoder:
    """Decodes pictures in a few processes; a process that takes too long is replaced."""

    def __init__(self, seconds: int, n_waiting: int) -> None:
        self.seconds = seconds
        self.n_waiting = n_waiting
        self._n = 0
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._running: set[Popen[bytes]] = set()
        self._pool = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 2)), thread_name_prefix="seewhy-decoder")

    def read(self, source: bytes | str, name: str, transform: Transform) -> Future[Picture]:
        """Return the future result of :func:`seewhy.pictures.images.read_picture`."""
        with self._lock:
            if self._n >= self.n_waiting:
                raise BusyError(f"{self._n} pictures are already waiting. Try again in a few seconds.")
            self._n += 1
        future = self._pool.submit(self._read, source, name, transform)

        def done(_future: Future[Picture]) -> None:
            with self._lock:
                self._n -= 1

        future.add_done_callback(done)
        return future

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

    def _process(self) -> Popen[bytes]:
        """Return this thread's process, started if needed."""
        process = getattr(self._mine, "process", None)
        if process is None or process.poll() is not None:
            process = start_python(
                ["-m", "seewhy.pictures.decoder_process", str(self.seconds), str(MOST_BYTES)],
                {"SEEWHY_MAX_SECONDS": str(self.seconds), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
            )
            self._mine.process = process
            self._running.add(process)
        return process

    def stop(self) -> None:
        while self._running:
            _end(self._running.pop())


def _end(process: Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            cast("IO[bytes]", pipe).close()
    process.wait()


@cache
def decoder_with(seconds: int, n_waiting: int) -> Decoder:
    """Return the decoder with these limits, which all pages of this process share."""
    made = Decoder(seconds, n_waiting)
    atexit.register(made.stop)
    return made
