"""Progress bars on a terminal and in a notebook, and progress lines in a log."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TextIO, TypeVar

from .printable import printable
from .types import Failure

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")

SECONDS = 0.1
"""Seconds between updates on a terminal; a notebook is updated half as often."""
FLASH_SECONDS = 0.3
"""Seconds before a progress bar appears."""
QUIET_SECONDS = 10.0
"""Seconds before the first progress line in a log."""
LINE_SECONDS = 30.0
"""Seconds between progress lines in a log."""
BAR = 24


class Progress:
    """A silent progress reporter that collects notes and failed pictures; :class:`Bars` also draws progress bars."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.terms: Mapping[str, float] = {}

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def note_all(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.note(text)

    def tell(self, text: str) -> None:
        """Show a message that is not part of the result, such as the expected time."""

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        """Record the loss and the other terms of a training step."""
        self.terms = terms

    def tail(self) -> str:
        """Return the text after the count: the loss, if there is one."""
        return f"loss {self.terms['loss']:.3g}" if "loss" in self.terms else ""

    def doing(self, what: str) -> AbstractContextManager[None]:
        """Return a context manager that shows the name of a task whose number of steps is unknown."""
        return contextlib.nullcontext()

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, and show how many are done."""
        yield from items

    def results(self, items: Sequence[S], results: Iterable[T | Failure], what: str) -> Iterator[tuple[S, T]]:
        """Yield each item with its result; failed items are reported and left out.

        >>> progress = Progress()
        >>> list(progress.results(["a", "b"], [1, Failure("b", "is none")], "Reading"))
        [('a', 1)]
        >>> progress.failures
        [Failure(image='b', error='is none')]
        """
        for item, result in zip(items, self.track(results, what, len(items)), strict=True):
            if isinstance(result, Failure):
                self.failed(result)
            else:
                yield item, result


class Bars(Progress):
    """A progress reporter with progress bars: ``seewhy.fit("photos", progress=seewhy.Bars())``."""

    def doing(self, what: str) -> AbstractContextManager[None]:
        return LINE.during(Step(what))

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        self.terms = {}  # of another training run
        step = Step(what, total, self.tail, done=0)
        with LINE.during(step):
            for item in items:
                yield item
                step.count()
                LINE.tick()


def shown(what: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function to show ``what`` on its ``progress`` argument while it runs."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        named = inspect.signature(function)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            __tracebackhide__ = True
            progress = named.bind_partial(*args, **kwargs).arguments.get("progress")
            with contextlib.nullcontext() if progress is None else progress.doing(what):
                return function(*args, **kwargs)

        return run

    return decorate


@dataclass(eq=False)
class Step:
    """A task of the progress bar, with its start time and optionally a count."""

    what: str
    total: int | None = None
    tail: Callable[[], str] = str
    done: int | None = None
    start: float = field(default_factory=lambda: time.monotonic())
    shown: float = 0.0
    """Time of the last update, or of the start."""
    is_written: bool = False
    then: str = ""
    """Description of the task after its first part."""

    def __post_init__(self) -> None:
        self.shown = self.counted = self.start

    def count(self) -> None:
        self.done, self.counted = (self.done or 0) + 1, time.monotonic()

    @property
    def reached(self) -> str:
        """The task and its count, in words."""
        of = f" of {self.total}" if self.total else ""
        return self.what if self.done is None else f"{self.what}: {self.done}{of}"

    def text(self, now: float) -> str:
        """Return the progress line of a log.

        >>> Step("Reading", tail=lambda: "loss 1.2", done=300, start=0.0).text(60.0)
        'Reading: 300, loss 1.2, 60 seconds so far'
        """
        passed = f"{duration(now - self.start)} so far"
        if self.done is None:
            return f"{self.what}: {passed}"
        parts = [self.reached, self.tail()]
        if self.total and self.done:
            to_do = max(self.total - self.done, 0)
            left = (self.counted - self.start) * to_do / self.done - (now - self.counted)
            parts.append(f"about {duration(left)} left" if left >= 1 else "nearly done" if to_do <= 1 else "")
        elif now - self.start >= 2:
            parts.append(passed)
        return ", ".join(part for part in parts if part)

    def drawn(self, now: float, signs: str, outer: Step | None = None) -> str:
        """Return the progress bar of a terminal."""
        of = "" if outer is None else f"[{(outer.done or 0) + 1} of {outer.total}] "
        turning = signs[int(now / SECONDS) % (len(signs) - 2)]
        text = self.text(now)
        if self.done is not None and self.total:
            full = round(BAR * min(self.done / self.total, 1))
            text = f"{self.what} {signs[-2] * full}{signs[-1] * (BAR - full)}{text.removeprefix(self.what)[1:]}"
        elif now - self.start < 2:
            text = f"{self.what} …" if signs == SIGNS else f"{self.what} ..."
        return f"{turning} {of}{text}"


SIGNS, PLAIN_SIGNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏━┄", "|/-\\#-"
"""Characters of the spinner, then the full and the empty part of the bar."""


class Line:
    """The progress bar of this process, drawn by a thread so that it moves during a long step."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._lock = threading.RLock()
        self._screen: Screen | None = None
        self.stopped_at: tuple[Step, ...] = ()
        """The tasks that an exception ended, the innermost last."""
        self.n_done = 0
        """Number of items that all ended tasks have counted."""

    @contextlib.contextmanager
    def during(self, step: Step) -> Iterator[None]:
        with self._lock:
            self._steps.append(step)
            self.stopped_at = ()
            if self._screen is None:
                self._screen = screen()
                stop = self._ending = threading.Event()
                threading.Thread(target=self._draw, args=(stop, self._screen.every), daemon=True).start()
        try:
            yield
        except BaseException as error:
            self._stop(step, error)
            raise
        else:
            self._end(step, "finished")

    def _stop(self, step: Step, error: BaseException) -> None:
        """End the task and all tasks inside it, whose generators a traceback may hold."""
        with self._lock:
            whole = bool(step.total) and (step.done or 0) >= (step.total or 0) - 1
            if isinstance(error, GeneratorExit) and whole:  # nobody asked for more than its last item
                self._end(step, "finished")
            elif step in self._steps:
                inner = self._steps[self._steps.index(step) :]
                self.stopped_at = (*inner, *self.stopped_at)
                for one in reversed(inner):
                    self._end(one, "stopped")

    @property
    def reached(self) -> str:
        """How far the work came before an exception, in words."""
        steps = self.stopped_at
        return ", ".join(step.reached for step in steps if step.done is not None or step is steps[-1])

    def _end(self, step: Step, how: str) -> None:
        with self._lock:
            if step not in self._steps or self._screen is None:  # after a fork or a pause
                return
            self._steps.remove(step)
            self.n_done += step.done or 0
            self.stopped_at = self.stopped_at if how == "stopped" else ()
            self._screen.ended(step, how, is_last=not self._steps)
            if self._steps:
                last = self._steps[-1]
                last.shown, last.what = time.monotonic(), last.then or last.what
            else:
                self._ending.set()
                self._screen.clear()
                self._screen = None

    def _draw(self, stop: threading.Event, every: float) -> None:
        while not stop.wait(every):
            with self._lock:
                if not stop.is_set():
                    self.tick()

    def tick(self) -> None:
        with self._lock:
            if self._steps and self._screen is not None:
                outer = next((s for s in self._steps[-2::-1] if (s.total or 0) > 1), None)
                self._screen.show(self._steps[-1], outer, time.monotonic())

    def rest(self) -> None:
        """Remove the progress bar and all tasks."""
        with self._lock:
            if self._screen is not None:
                self._screen.clear()
                self._ending.set()
            self._steps, self._screen = [], None

    @contextlib.contextmanager
    def above(self) -> Iterator[None]:
        """Clear the progress bar to print text above it."""
        with self._lock:
            if self._screen is not None:
                self._screen.clear()
            yield

    def forget(self) -> None:
        """Reset the state in a forked process, so that it displays no progress bars."""
        self.__init__()  # type: ignore[misc]


class Screen:
    """A log file, which gets a progress line now and then."""

    every = 1.0

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.written, self.wait = stream, time.monotonic(), QUIET_SECONDS

    def show(self, step: Step, outer: Step | None, now: float) -> None:
        if now - self.written >= self.wait and (step.done is None or step.done != step.total):
            self.written, self.wait, step.is_written = now, LINE_SECONDS, True
            self.write(printable(step.text(now)) + "\n")

    def ended(self, step: Step, how: str, is_last: bool) -> None:
        if step.is_written or (is_last and self.wait == LINE_SECONDS):
            task = step.what if how == "finished" else step.reached
            self.write(printable(f"{task}: {how} after {duration(time.monotonic() - step.start)}") + "\n")

    def clear(self) -> None:
        pass

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a lost log file must not stop the work
            self.stream.write(text)
            self.stream.flush()


class RedrawnScreen(Screen, ABC):
    """One line that is redrawn while tasks run."""

    every = SECONDS
    signs = SIGNS
    is_drawn = False

    def show(self, step: Step, outer: Step | None, now: float) -> None:
        if now - self.written < self.wait or (self.is_drawn and now - step.shown < 0.9 * self.every):
            return
        step.shown, self.is_drawn = now, True
        self.draw(printable(step.drawn(now, self.signs, outer)))

    def ended(self, step: Step, how: str, is_last: bool) -> None:
        pass

    def clear(self) -> None:
        if self.is_drawn:
            self.draw("")
            self.is_drawn = False

    @abstractmethod
    def draw(self, text: str) -> None: ...


class TerminalScreen(RedrawnScreen):
    """A terminal."""

    was_shown = False

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.wait = 0.0 if self.was_shown else FLASH_SECONDS
        try:
            SIGNS.encode(stream.encoding or "ascii")
        except (LookupError, UnicodeEncodeError):
            self.signs = PLAIN_SIGNS

    def draw(self, text: str) -> None:
        from rich.cells import set_cell_size

        TerminalScreen.was_shown = True
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):
            columns = 80
        self.write("\r" + set_cell_size(text, columns - 1) + ("" if text else "\r"))


class NotebookScreen(RedrawnScreen):
    """A notebook, in which all tasks of a cell share one line of output."""

    every = 2 * SECONDS
    cell: tuple[Any, Any] = (None, None)

    def __init__(self, stream: TextIO) -> None:
        from IPython import get_ipython
        from IPython.display import display

        super().__init__(stream)
        self.wait = FLASH_SECONDS
        n = getattr(get_ipython(), "execution_count", None)
        if n is None or self.cell[0] != n:
            NotebookScreen.cell = (n, display({"text/plain": ""}, raw=True, display_id=True))

    def draw(self, text: str) -> None:
        self.cell[1].update({"text/plain": text}, raw=True)


def screen() -> Screen:
    if "ipykernel" in sys.modules:
        from rich.console import Console

        if Console().is_jupyter:
            return NotebookScreen(sys.stderr)
    return (TerminalScreen if sys.stderr.isatty() else Screen)(sys.stderr)


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(43), duration(1), duration(620), duration(9000)
    ('43 seconds', '1 second', '10 minutes', '2.5 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} second" + "s" * (round(seconds) != 1)
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


LINE = Line()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LINE.forget)
