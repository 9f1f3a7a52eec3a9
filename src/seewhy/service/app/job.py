"""A background job with its progress, its result and its error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from fastapi import FastAPI

from ...errors import SeeWhyError
from ...progress import Progress
from .base import add_data

T = TypeVar("T")
U = TypeVar("U")

_logger = logging.getLogger(__name__)


class LastStep(Progress):
    """A progress reporter that stores the current step, for the page."""

    def __init__(self) -> None:
        super().__init__()
        self.step: dict[str, Any] = {"what": "Starting", "done": 0, "of": 1}

    def track(self, items: Iterable[U], what: str, total: int | None = None) -> Iterator[U]:
        for done, item in enumerate(items):
            self.step = {"what": what, "done": done, "of": total or 1}
            yield item

    def doing(self, what: str) -> AbstractContextManager[None]:
        self.step = {"what": what, "done": 0, "of": 1}
        return nullcontext()


class Job(Generic[T]):
    """A job that runs in its own thread, and stores its last result.

    Args:
        work: function to run; it gets a progress reporter.
        ready: function that is called before the start, and raises an error if the job cannot start.
    """

    def __init__(self, work: Callable[[Progress], T], ready: Callable[[], object]) -> None:
        self._work, self._ready = work, ready
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._progress = LastStep()
        self.result: T | None = None
        self.problem = ""

    def mount(self, app: FastAPI, path: str, description: str) -> None:
        """Add the routes that start the job and show its progress."""
        add_data(app, f"{path}/start", self.start, methods=["POST"], description=description)
        add_data(app, f"{path}/state", self.state)

    def start(self) -> dict[str, Any]:
        """Start the job unless it is running, and return its state."""
        with self._lock:
            if not self._running:
                self._ready()
                self._progress, self.problem = LastStep(), ""
                self._thread = threading.Thread(target=self._run, name="seewhy-job", daemon=True)
                self._thread.start()
        return self.state()

    @property
    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def state(self) -> dict[str, Any]:
        """The current step and its progress."""
        step = self._progress.step if self._running else None
        return {"running": step, "done": self.result is not None, "problem": self.problem or None}

    def _run(self) -> None:
        """Run the work, and store its result or its error."""
        try:
            with torch.random.fork_rng(devices=[]):
                self.result = self._work(self._progress)
        except SeeWhyError as error:
            self.problem = str(error)
        except Exception:
            _logger.exception("work in the background stopped")
            self.problem = "SeeWhy stopped. The server's log says why. Fix the cause and try again."
