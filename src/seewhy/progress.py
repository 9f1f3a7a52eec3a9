"""How long work tells what it is doing: a bar on a terminal and in a notebook, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TextIO, TypeVar

from .printable import printable
from .types import Failure

S = TypeVar("S")
T = TypeVar("T")


class Progress:
    """Receives progress, notes and failures, and keeps the last two; :class:`Bars` also draws bars."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.terms: Mapping[str, float] = {}

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tell(self, text: str) -> None:
        """What is of use now and belongs in no result, such as how long it will take; only a terminal shows it."""

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        """What a step of a training said: its loss, and whatever is watched beside it."""
        self.terms = terms

    def tail(self) -> str:
        """What stands behind a bar: the loss, where one is known."""
        return f"loss {self.terms['loss']:.3g}" if "loss" in self.terms else ""

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Pass items on, one by one, as they are done."""
        yield from items

    def results(self, items: Sequence[S], results: Iterable[T | Failure], what: str) -> Iterator[tuple[S, T]]:
        """Each item with its result, as it is done; of one that failed nothing but the failure is heard.

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
    """Shows progress as bars or, in a file, as lines: ``seewhy.fit("photos", progress=seewhy.Bars())``."""

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        self.terms = {}  # of another training
        yield from draw(items, what, total, stderr=False, tail=self.tail)


def draw(
    items: Iterable[T], what: str, total: int | None, *, stderr: bool, tail: Callable[[], str] = str
) -> Iterator[T]:
    """Items as they are done, with a bar that goes when all are; behind it stands what ``tail`` says.

    Where neither terminal nor notebook is, a line is written now and then, so that a log tells how long it will take.
    """
    if _is_notebook():
        yield from _in_notebook(items, what, total, tail)
        return
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty():
        yield from _in_lines(items, what, total, stream, tail)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    said = TextColumn("{task.fields[said]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), said)
    with RichProgress(*columns, console=Console(stderr=stderr), transient=True) as bar:
        task = bar.add_task(what, total=total, said="")
        for item in items:
            yield item
            bar.update(task, advance=1, said=tail())


def _is_notebook() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def _in_notebook(items: Iterable[T], what: str, total: int | None, tail: Callable[[], str]) -> Iterator[T]:
    """One line, written anew: rich draws nothing there without ipywidgets, and leaves gaps with it."""
    from IPython.display import display

    line = display({"text/plain": f"{what} …"}, raw=True, display_id=True)
    shown = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - shown >= SECONDS:
            shown = time.monotonic()
            full = round(30 * min(done / total, 1)) if total else 0
            drawn = f"{'█' * full}{'░' * (30 - full)} {done}/{total}" if total else str(done)
            line.update({"text/plain": f"{what} {drawn} {tail()}".rstrip()}, raw=True)
    line.update({"text/plain": ""}, raw=True)


def _in_lines(items: Iterable[T], what: str, total: int | None, stream: TextIO, tail: Callable[[], str]) -> Iterator[T]:
    """A line in so many seconds at most; none where the work is done before. Nothing stops for a log that is gone."""
    start = written = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - written >= LINE_SECONDS and done != total:
            written = now
            line = printable(line_of(what, done, total, now - start, tail()))
            with contextlib.suppress(OSError, ValueError):
                print(line, file=stream, flush=True)


def line_of(what: str, done: int, total: int | None, seconds: float, tail: str = "") -> str:
    """What a log says of work under way.

    >>> line_of("Training", 3, 24, 60.0, "loss 1.2"), line_of("Reading", 300, None, 60.0)
    ('Training: 3 of 24, loss 1.2, about 7 minutes left', 'Reading: 300')
    """
    parts = [f"{what}: {done}" + (f" of {total}" if total else ""), tail]
    if total:
        parts.append(f"about {duration(seconds * max(total - done, 0) / done)} left")
    return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """In words.

    >>> duration(43), duration(620), duration(9000)
    ('43 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


SECONDS = 0.2
"""Between two states of a line in a notebook."""
LINE_SECONDS = 20.0
"""Between two lines of a log."""
