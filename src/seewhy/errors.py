"""The errors that SeeWhy raises; a message says what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .spelling import nearest

LONGEST_WORD = 1000
LONGEST = 1900
MOST_NAMES = 40


class SeeWhyError(Exception):
    """The base class of SeeWhy's errors; the command line prints the message and exits with code 2.

    Very long words and messages are shortened in the middle.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(_bounded(one) if isinstance(one, str) else one for one in said))


def _bounded(text: str) -> str:
    text = re.sub(r"(?<=[\w)\"'])\.\.(?=\s|$)", ".", text)  # a quoted message had its own full stop
    short = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: word[0][:100] + "…", text)
    return short if len(short) <= LONGEST else f"{short[: LONGEST // 2]} … {short[-LONGEST // 3 :]}"


class InputError(SeeWhyError, ValueError):
    """Raised when an input cannot be used."""


class ImageError(InputError):
    """Raised when a picture cannot be read; ``path`` is its file or name, and ``reason`` says why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")


class DataError(InputError):
    """Raised when a folder, table or set of labels cannot be used."""


class EmptyFolderError(DataError):
    """Raised when a folder has no pictures."""


class ForeignFileError(DataError):
    """Raised instead of overwriting a file that SeeWhy did not write, or that is an input."""


class ModelError(SeeWhyError):
    """Raised when a model cannot be loaded or used."""


class WeightsError(ModelError):
    """Raised when a weights file is missing, damaged, or not the expected file."""


class EngineError(ModelError):
    """Raised when an inference engine is missing or cannot run the trunk."""


class UnknownNameError(SeeWhyError, KeyError):
    """Raised when a name is not registered; the message lists the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known, self.name = sorted(known), name
        near = nearest(name, known, n=3, cutoff=0.5)
        few = ", ".join(known[:MOST_NAMES]) + (
            f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
        )
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {few}."
        self.message = _bounded(f"There is no {kind} called {name!r}. {hint}")
        super().__init__(self.message)

    @classmethod
    def check(cls, kind: str, name: str, known: Collection[str]) -> None:
        """Raise this error if the name is not among the known ones."""
        if name not in known:
            raise cls(kind, name, known)

    def __str__(self) -> str:
        return self.message


class MissingExtraError(SeeWhyError, ImportError):
    """Raised when an optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        run = f"Run: pip install 'seewhy[{extra}]'"
        super().__init__(f"{what} needs the extra {extra!r}, which is not installed. {run}")


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Raise :class:`MissingExtraError` if an import fails inside this context."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(extra, what) from error
