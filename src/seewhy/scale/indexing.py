"""From a run of ``seewhy embed`` to an index: its vectors are taken as they are, no picture is looked at again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, ModelError, SeeWhyError
from ..storage.addresses import address_of
from ..storage.parquet_seal import checked_parquet
from ..storage.reading import reason
from ..types import Failure
from .job import MANIFEST, Job, read_job
from .places import Where
from .work import arrow

if TYPE_CHECKING:
    from ..encoders.stream import Encoded
    from ..progress import Progress
    from ..retrieval import Index
    from ..retrieval.adding import Change

AT_ONCE = 1024
"""Rows that are added in one step: what a kill can cost."""


def is_run(place: Path) -> bool:
    """Whether a folder is that of a run."""
    if address_of(place) is not None:
        return bool(read_job(place))
    return (place / MANIFEST).is_file()


def add_run(index: Index, run: Where, progress: Progress) -> Change:
    """Add what a run has; what is there already stays, so that it may be added again when more is done."""
    job = _fitting(index, run)
    missing = sum(written is None for written in job.all_written(range(job.n_shards)))
    if missing:
        of = f"{missing} of {job.n_shards} shards of {job.place}"
        progress.note(f"{of} are missing; add it again when they are there.")
    return index.add_seen(progress.track(_rows(job, progress, index.describe()["columns"]["look"]), "Indexing"))


def _fitting(index: Index, run: Where) -> Job:
    job = read_job(run)
    place, made = job.place, job.facts["model"]
    if made.get("space") != "features":
        raise DataError(
            f"{place} has no pooled vectors. A run of seewhy embed --space features was expected. Make one from the "
            "pictures."
        )
    if made.get("fingerprint") != index.encoder.fingerprint:
        raise ModelError(
            f"{place} was made with {made.get('encoder')}, and the index with {index.encoder.name}, whose weights "
            "differ. The same were expected. Name the encoder of the run with --encoder, for an index of its own."
        )
    if index.settings.parts != "none":
        raise DataError(
            f"The index keeps parts of pictures, and {place} has whole ones. An index without parts was expected. Add "
            "the pictures themselves."
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
                f"{job.place.at(job.name(number))} is damaged ({why}). A shard as the run wrote it was expected. "
                "Delete it, and run the same command again."
            ) from error


def _seen(row: dict[str, Any], root: str, width: int) -> Encoded | Failure:
    import torch

    from ..encoders.stream import Encoded

    image, digest, error = row["image"], row["digest"], row["error"]
    if not isinstance(image, str) or not isinstance(error, str | None):
        raise ValueError("a picture's name or error is no text")
    name = os.path.join(root, image)
    if error is not None:
        return Failure(name, error)
    pooled = torch.tensor([row["embedding"]], dtype=torch.float32)
    if not isinstance(digest, str) or pooled.shape != (1, width) or not bool(pooled.isfinite().all()):
        raise ValueError(f"{image!r:.80} has no digest, or not {width} numbers")
    return Encoded(name, digest, pooled)
