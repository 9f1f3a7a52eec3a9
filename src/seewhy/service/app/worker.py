"""The one thread that computes: pictures that arrive together are looked at together."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from ...encoders.base import Encoder
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import SeeWhyError
from ...pictures.images import Picture
from ...types import Failure
from .settings import Settings

T = TypeVar("T")

SOON, LATER, IDLE = 0, 1, 2
"""A reader waits; a reader reads meanwhile; nobody waits."""
MOST_IN_ROW = 4
"""Batches of looks after which a job that somebody waits for has its turn."""

_logger = logging.getLogger(__name__)


class BusyError(SeeWhyError):
    """More is waiting than is kept; ask again later."""


class Worker:
    """Runs looks and jobs one after the other: looks first, in batches, then jobs by urgency, then by age."""

    def __init__(
        self, encoder: Encoder, settings: Settings, on_batch: Callable[[int, float], None] | None = None
    ) -> None:
        self.encoder = encoder
        self.settings = settings
        self._on_batch = on_batch
        self._in_row = 0
        self._n_coming = 0
        self.batches: deque[int] = deque(maxlen=1000)
        self._looks: deque[tuple[Picture, str, Future[Encoded | Failure]]] = deque()
        self._jobs: list[tuple[int, int, Callable[[], Any], Future[Any]]] = []
        self._number = itertools.count()
        self._wake = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="seewhy-app", daemon=True)
        self._thread.start()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While a picture is made ready to be looked at: a batch waits a little for it, and for nothing else."""
        with self._wake:
            self._n_coming += 1
        try:
            yield
        finally:
            with self._wake:
                self._n_coming -= 1
                self._wake.notify()

    def look(self, picture: Picture, name: str) -> Future[Encoded | Failure]:
        """Look at a picture, together with those that are :meth:`coming` within the next moments."""
        future: Future[Encoded | Failure] = Future()
        with self._wake:
            self._admit(len(self._looks))
            self._looks.append((picture, name, future))
            self._wake.notify()
        return future

    def do(self, job: Callable[[], T], urgency: int = SOON) -> Future[T]:
        """Run a job in the thread."""
        future: Future[T] = Future()
        with self._wake:
            self._admit(-1 if urgency == IDLE else len(self._jobs))
            heapq.heappush(self._jobs, (urgency, next(self._number), job, future))
            self._wake.notify()
        return future

    @property
    def n_waiting(self) -> int:
        """Looks and jobs that wait."""
        return len(self._looks) + len(self._jobs)

    @property
    def is_alive(self) -> bool:
        """Whether anything will still be computed."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what runs, drop what waits."""
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
            raise BusyError("The page is being closed. Start it again.")
        if n_waiting >= self.settings.n_waiting:
            raise BusyError(f"{n_waiting} requests are waiting already. Try again in a few seconds.")

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

    def _gather(self) -> list[tuple[Picture, str, Future[Encoded | Failure]]]:
        """The next batch; the first picture waits a little for those that are coming. Called with the lock held."""
        until = time.monotonic() + self.settings.gather_seconds
        while self._open and self._n_coming and len(self._looks) < self.settings.batch:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._wake.wait(left)
        batch: list[tuple[Picture, str, Future[Encoded | Failure]]] = []
        while self._looks and len(batch) < self.settings.batch:
            look = self._looks.popleft()
            if not look[2].cancelled():
                batch.append(look)
        return batch

    def _look(self, batch: Sequence[tuple[Picture, str, Future[Encoded | Failure]]]) -> None:
        self.batches.append(len(batch))
        start = time.monotonic()
        request = EncodeRequest(features=lambda _index: True, pictures=True)
        sources = [picture for picture, _, _ in batch]
        try:
            results = list(encode_stream(self.encoder, sources, request=request, batch_size=self.settings.batch))
        except Exception as error:
            for _, _, future in batch:
                _settle(future, _raiser(error))
            return
        for (_, name, future), result in zip(batch, results, strict=True):
            named = Failure(name, result.error) if isinstance(result, Failure) else replace(result, name=name)
            _settle(future, lambda named=named: named)  # type: ignore[misc]
        if self._on_batch is not None:
            self._on_batch(len(batch), time.monotonic() - start)


def _raiser(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def _settle(future: Future[T], job: Callable[[], T]) -> None:
    """Run a job and hand on what it gives or raises; one that nobody waits for any more is not run."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:
        if not isinstance(error, Exception):
            _logger.error("the app's thread met %r", error)
        future.set_exception(error)
