"""Every error SeeWhy raises on purpose: one sentence what was given, one what was expected, one what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .spelling import nearest

LONGEST_WORD = 1000
LONGEST = 1900
MOST_NAMES = 40


class SeeWhyError(Exception):
    """The base of every error that SeeWhy raises on purpose; the command line prints it and exits with 2.

    Text from a file may have any length. A message shortens very long words. Of a very long text it keeps the
    beginning, and the end with the cure.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(_bounded(one) if isinstance(one, str) else one for one in said))


def _bounded(text: str) -> str:
    short = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: word[0][:100] + "…", text)
    return short if len(short) <= LONGEST else f"{short[: LONGEST // 2]} … {short[-LONGEST // 3 :]}"


class InputError(SeeWhyError, ValueError):
    """Something the user gave cannot be used."""


class ImageError(InputError):
    """A picture cannot be read: ``path`` is as the user wrote it, or the name of a picture in memory; and
    ``reason``.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")


class DataError(InputError):
    """A folder, table or set of labels cannot be used."""


class EmptyFolderError(DataError):
    """A folder can be listed but holds no picture."""


class ForeignFileError(DataError):
    """A file would be overwritten that SeeWhy did not write, or that it reads; the file is left as it is."""


class ModelError(SeeWhyError):
    """A model cannot be loaded or used."""


class WeightsError(ModelError):
    """A weights file is missing or damaged, or it is another file than its name says."""


class EngineError(ModelError):
    """An inference engine is missing or cannot run this trunk."""


class UnknownNameError(SeeWhyError, KeyError):
    """A name is not registered; the message lists the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known, self.name = sorted(known), name
        near = nearest(name, known, n=3, cutoff=0.5)
        few = ", ".join(known[:MOST_NAMES]) + (
            f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
        )
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {few}."
        self.message = _bounded(f"There is no {kind} called {name!r}. {hint}")
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class MissingExtraError(SeeWhyError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        run = f"Run: pip install 'seewhy[{extra}]'"
        super().__init__(f"{what} needs the extra {extra!r}, which is not installed. {run}")


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Inside this context, the error for a missing import names the extra that installs it."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(extra, what) from error
