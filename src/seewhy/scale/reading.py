"""Read the output of a run: its status, its integrity, and its vectors for an index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import TypedDict

from ..errors import DataError, ModelError, SeeWhyError
from ..explanation.outputs import Run
from ..explanation.result import EXACT, Result
from ..results import Count, Doc
from ..retrieval.outputs import VerifyOutput
from ..storage.cache import address_of
from ..storage.parquet_seal import Checked, Verification, checked_parquet
from ..storage.reading import reason
from ..types import Failure
from .job import MANIFEST, Job, read_job
from .places import Where
from .work import arrow

if TYPE_CHECKING:
    from ..encoders.stream import Encoded
    from ..progress import Progress
    from ..retrieval import Index
    from ..retrieval.writing import Change


class Input(TypedDict):
    kind: Annotated[str, Doc("folder, table, tars, parquet")]
    digest: Annotated[str, Doc("digest of the names of all pictures, or of all shards")]
    place: Annotated[str, Doc("path or address, as given")]
    n_pictures: Annotated[Count | None, Doc("number of pictures; `null` if it is not known without opening shards")]
    per_shard: Annotated[int | None, Doc("pictures per shard; `null` if the input has shards")]


@dataclass(frozen=True)
class Status(Result):
    """The JSON of ``seewhy index --parquet --status --json``."""

    output: Annotated[str, Doc("output folder of the run")]
    n_shards: Annotated[Count, Doc("number of shards")]
    n_missing: Annotated[Count, Doc("number of missing shards")]
    missing: Annotated[list[str], Doc("indices of the missing shards, from 0, in ranges such as `3-7`")]
    rows: Annotated[Count, Doc("rows of the written shards")]
    failed: Annotated[Count, Doc("pictures in these shards that could not be read")]
    verb: Annotated[str, Doc("the command")]
    seewhy: Annotated[str, Doc("version of SeeWhy that started the run")]
    model: Annotated[dict[str, str | float | bool | None], Doc("the model"), EXACT]
    columns: Annotated[list[str], Doc("columns of the Parquet files")]
    input: Annotated[Input, Doc("the input")]

    def lines(self) -> Iterator[str]:
        there = self.n_shards - self.n_missing
        yield f"{self.output}: {there:,} of {self.n_shards:,} shards, {self.rows:,} rows, {self.failed:,} not readable"
        if self.missing:
            yield f"  missing: {', '.join(self.missing)}"


def spans(numbers: Sequence[int]) -> list[str]:
    """Return ranges of consecutive numbers as texts.

    >>> spans([0, 1, 2, 7, 9, 10])
    ['0-2', '7', '9-10']
    """
    found = []
    for _, pairs in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in pairs]
        found.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return found


def status(output: Where) -> Status:
    arrow()
    job = read_job(output)
    shards = list(job.all_written(range(job.n_shards)))
    missing = [index for index, shard in enumerate(shards) if shard is None]
    there = [shard for shard in shards if shard is not None]
    rows, failed = sum(shard.n for shard in there), sum(shard.n_failed for shard in there)
    facts = {key: job.facts[key] for key in ("verb", "seewhy", "model", "columns", "input")}
    return Status(str(job.place), job.n_shards, len(missing), spans(missing), rows, failed, **facts)


def verify(output: Where) -> Verification:
    arrow()
    job = read_job(output)
    checked, there = [Checked(MANIFEST)], job.place.names()
    for name in map(job.name, range(job.n_shards)):
        if name in there:
            with job.place.copy(name) as path:
                checked.append(checked_parquet(path))
    return Verification(str(job.place), tuple(checked))


AT_ONCE = 1024
"""Rows that are added in one step; an interruption loses at most these."""


def is_run(place: Path) -> bool:
    if address_of(place) is not None:
        return bool(read_job(place))
    return (place / MANIFEST).is_file()


def add_run(index: Index, run: Where, progress: Progress) -> Change:
    """Add the rows of a run to an index; it can be repeated while the run continues."""
    job = _fitting(index, run)
    missing = sum(written is None for written in job.all_written(range(job.n_shards)))
    if missing:
        of = f"{missing} of {job.n_shards} shards of {job.place}"
        progress.note(f"{of} are missing. Add the run again when they exist.")
    return index.add_seen(
        progress.track(_rows(job, progress, index.describe()["columns"]["look"]), "Indexing pictures")
    )


def _fitting(index: Index, run: Where) -> Job:
    job = read_job(run)
    place, made = job.place, job.facts["model"]
    if made.get("space") != "features":
        raise DataError(f"{place} has no vectors of whole pictures. Give the output folder of seewhy index --parquet.")
    if made.get("fingerprint") != index.encoder.fingerprint:
        raise ModelError(
            f"{place} and the index must have the same encoder, got {made.get('encoder')} and {index.encoder.name} "
            f"with different weights. For a separate index, give the encoder of the run with --encoder."
        )
    if index.settings.parts != "none":
        raise DataError(
            f"The index stores patches of pictures, but {place} has only vectors of whole pictures. "
            "Add the pictures instead."
        )
    return job


def _rows(job: Job, progress: Progress, width: int) -> Iterator[Encoded]:
    arrow()
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    place = str(job.facts["input"]["place"])
    root = os.path.abspath(place) if job.facts["input"]["kind"] == "folder" else os.path.abspath(os.path.dirname(place))
    named = job.facts["input"]["kind"] in ("folder", "table")
    there = job.place.names()
    for number in range(job.n_shards):
        if job.name(number) not in there:
            continue
        try:
            with job.place.copy(job.name(number)) as path:
                if damage := checked_parquet(path).error:
                    raise ValueError(damage)
                if job.written(number) is None:
                    continue
                with ParquetFile(path) as file:
                    for batch in file.iter_batches(AT_ONCE):
                        for row in batch.to_pylist():
                            seen = _seen(row, root if named else "", width)
                            if isinstance(seen, Failure):
                                progress.failed(seen)
                            else:
                                yield seen
        except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, SeeWhyError):
                raise
            why = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
            raise DataError(
                f"The shard {job.place.at(job.name(number))} is damaged ({why}). Delete it, then run the "
                "same command again."
            ) from error


def _seen(row: dict[str, Any], root: str, width: int) -> Encoded | Failure:
    import torch

    from ..encoders.stream import Encoded

    image, digest, error = row["image"], row["digest"], row["error"]
    if not isinstance(image, str) or not isinstance(error, str | None):
        raise ValueError("a picture's name or error is not a text")
    name = os.path.join(root, image)
    if error is not None:
        return Failure(name, error)
    pooled = torch.tensor([row["embedding"]], dtype=torch.float32)
    if not isinstance(digest, str) or pooled.shape != (1, width) or not bool(pooled.isfinite().all()):
        raise ValueError(f"{image!r:.80} has no digest, or does not have {width} numbers")
    return Encoded(name, digest, pooled)


EmbedStatusOutput = Status
EmbedOutput = Status | VerifyOutput | Run
"""The JSON of ``seewhy index --parquet --json``."""
