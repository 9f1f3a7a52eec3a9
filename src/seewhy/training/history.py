"""What every step of a training said: only added to, in memory and on the disk."""

from __future__ import annotations

import hashlib
import math
import time
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError, ForeignFileError, InputError
from ..progress import Progress
from ..storage.journal import Journal
from ..storage.marks import Lines, Record

LINES = Lines((Record(("training",)), Record(("step",), None)))
"""Of a history: which training it is of, then one line a step."""


class History:
    """Every step's terms, read from the device only now and then."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers = array("d")
        self.waiting: list[list[Tensor]] = []

    def add(self, terms: Mapping[str, Tensor]) -> bool:
        """Whether the numbers are to be read now."""
        self.names = self.names or list(terms)
        if not set(self.names) <= set(terms):
            raise DataError(
                f"The checkpoint has numbers of {', '.join(self.names):.200}. Those of {', '.join(terms)} were "
                "expected. It is damaged, or of another version: delete it and begin again."
            )
        self.waiting.append([terms[name].detach() for name in self.names])
        if not any(term.is_cuda for term in self.waiting[-1]):
            return True
        self.waiting[-1] = [term.clone() for term in self.waiting[-1]]  # a task may go on changing what it gave
        return len(self.waiting) == 32

    @staticmethod
    def fits(names: object, numbers: Tensor) -> bool:
        """Whether a checkpoint's names of terms and numbers are whole steps."""
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            return False
        if numbers.ndim != 1:
            return False
        return len(numbers) % len(names) == 0 if names else len(numbers) == 0

    def read(self, players: Sequence[str], lr: float, kept: str) -> None:
        """Wait for the numbers, and see that those that go down are finite; ``kept`` says what is safe."""
        for terms in self.waiting:
            self.numbers.extend(round(float(term), 6) for term in terms)
            if not all(math.isfinite(terms[self.names.index(name)]) for name in players):
                raise InputError(
                    f"The loss is not finite at step {len(self)}{kept}. A smaller learning rate was expected: lr is "
                    f"{lr:g}. Give a tenth of it."
                )
        self.waiting.clear()

    @property
    def last(self) -> dict[str, float]:
        """Of the last step that was read."""
        n = len(self.names)
        return dict(zip(self.names, self.numbers[-n:], strict=True)) if n and self.numbers else {}

    def __len__(self) -> int:
        return len(self.numbers) // max(1, len(self.names))

    def steps(self) -> tuple[dict[str, float], ...]:
        rows = torch.tensor(self.numbers, dtype=torch.float64).view(len(self), -1).tolist() if self.numbers else []
        return tuple(dict(zip(self.names, row, strict=True)) for row in rows)


class HistoryFile:
    """The same as JSON lines, for whoever watches; a line that is there is never written again.

    A training that goes on from a checkpoint says the same of steps that a killed run had written behind it, so they
    are passed over.
    """

    def __init__(self, path: Path, training: str) -> None:
        self.journal, self.path, self.told = Journal(path, LINES, force=None), path, time.monotonic()
        name = hashlib.sha256(training.encode()).hexdigest()[:16]
        rows = self.journal.rows
        steps = [row["step"] for row in rows if "step" in row]
        if rows and (rows[0].get("training") != name or not all(type(step) is int for step in steps)):
            raise ForeignFileError(
                f"{path} is the history of another training. A new name, or what this very training left, was "
                "expected. Choose another name, or move it away."
            )
        if not rows:
            self._add({"training": name})
        self.written = max(steps, default=0)

    def begin(self, step: int, progress: Progress) -> None:
        """See that nothing is missing before the step that the training goes on from."""
        if self.written < step:
            progress.note(f"{self.path} lacks steps {self.written + 1} to {step}, which an earlier run made")
            self.written = step

    def follow(self, history: History, *, now: bool) -> None:
        """Add what has been read; at once, or where a second has gone by."""
        if not now and time.monotonic() - self.told < 1.0:
            return
        self.told, n = time.monotonic(), len(history.names)
        for step in range(self.written, len(history)):
            row = history.numbers[step * n : (step + 1) * n]
            self._add({"step": step + 1, **dict(zip(history.names, row, strict=True))})
        self.written = max(self.written, len(history))

    def _add(self, row: dict[str, object]) -> None:
        try:
            self.journal.add(row)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataError(
                f"{self.path} could not be written: {reason}. A disk with space was expected. Free some, and start "
                "again: the training goes on from its checkpoint."
            ) from error

    def close(self) -> None:
        self.journal.close()
