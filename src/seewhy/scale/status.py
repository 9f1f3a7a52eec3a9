"""What is there of a long run, what is missing, and what is damaged; read off its folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..storage.parquet_seal import checked_parquet
from ..storage.verification import Checked, Verification
from .job import MANIFEST, Job, read_job
from .places import Where


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        output: its folder.
        facts: of its manifest: verb, version, model, input.
        n_shards: in all.
        missing: those that are not there, or are not whole, by their places from 0.
        rows: of those that are there.
        failed: pictures among these that could not be read.
    """

    output: str
    facts: dict[str, Any]
    n_shards: int
    missing: tuple[int, ...]
    rows: int
    failed: int

    def to_json(self) -> dict[str, Any]:
        facts = {key: self.facts[key] for key in ("verb", "seewhy", "model", "columns", "input")}
        numbers = {"n_shards": self.n_shards, "n_missing": len(self.missing), "missing": spans(self.missing)}
        return {"output": self.output, **numbers, "rows": self.rows, "failed": self.failed, **facts}

    def lines(self) -> Iterator[str]:
        """As a person would read it."""
        there = self.n_shards - len(self.missing)
        yield f"{self.output}: {there:,} of {self.n_shards:,} shards, {self.rows:,} rows, {self.failed:,} not readable"
        if self.missing:
            yield f"  missing: {', '.join(spans(self.missing))}"


def spans(numbers: Sequence[int]) -> list[str]:
    """Runs of numbers, as texts.

    Example:
        >>> spans([0, 1, 2, 7, 9, 10])
        ['0-2', '7', '9-10']
    """
    found = []
    for _, pairs in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in pairs]
        found.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return found


def status(output: Where) -> Status:
    """How far a run is.

    Raises:
        DataError: the folder is no run's.
        MissingExtraError: Parquet cannot be read.
    """
    from .work import arrow

    arrow()
    job = read_job(output)
    missing, rows, failed = [], 0, 0
    for index, written in enumerate(job.all_written(range(job.n_shards))):
        if written is None:
            missing.append(index)
        else:
            rows, failed = rows + written.n, failed + written.n_failed
    return Status(str(job.place), dict(job.facts), job.n_shards, tuple(missing), rows, failed)


def verify(output: Where) -> Verification:
    """Read every byte of a run.

    Raises:
        DataError: no run is there, or its manifest is damaged.
        MissingExtraError: Parquet cannot be read.
    """
    from .work import arrow

    arrow()
    job = read_job(output)
    return Verification.of(job.place, (Checked(MANIFEST), *_checked(job)))


def _checked(job: Job) -> Iterator[Checked]:
    there = job.place.names()
    for name in map(job.name, range(job.n_shards)):
        if name in there:
            with job.place.copy(name) as path:
                yield checked_parquet(path)
