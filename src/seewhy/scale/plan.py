"""What a long run will take: measured on a sample of the very pictures, with the very model, on this machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from ..errors import DataError
from ..results import Count, Doc, Share
from ..storage.output import working_folder
from ..threads import bound_threads
from .inputs import Input, Item, Shard, ShardError
from .job import Job, Survey
from .places import LocalFolder
from .work import Opened, Work

SAMPLE = 512
"""Pictures that are measured, taken from several places of the input."""
PLACES = 8
SECONDS = 60.0
"""After which measuring ends, however few pictures were done."""
WARM = 32
"""Pictures before the clock starts, in which engines and files grow warm."""


@dataclass(frozen=True)
class Plan:
    """The object of seewhy index --parquet --plan --json: what a run will take."""

    n_pictures: Annotated[Count, Doc("of the input; for shards that are not opened, as those that were let expect")]
    counted: Annotated[bool, Doc("whether they were counted")]
    n_sample: Annotated[Count, Doc("pictures that were measured")]
    per_second: Annotated[float, Doc("of them, by one process with its threads, as busy as the machine was meanwhile")]
    load_seconds: Annotated[float, Doc("to load the model, once per process")]
    machines: Annotated[Count, Doc("that share the work")]
    hours: Annotated[float, Doc("until the last is done")]
    machine_hours: Annotated[float, Doc("of all machines")]
    price: Annotated[float | None, Doc("of a machine's hour, as given")]
    money: Annotated[float | None, Doc("at that price; `null` without one")]
    bytes_read: Annotated[Count | None, Doc("by all pictures; `null` where none of the sample could be read")]
    bytes_written: Annotated[Count, Doc("by their rows")]
    failed: Annotated[Share, Doc("part of the sample that could not be read")]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        about = "" if self.counted else "about "
        yield f"{about}{self.n_pictures:,} pictures, {self.per_second:.1f} a second (measured on {self.n_sample:,})"
        each = f" on each of {self.machines:,} machines" if self.machines > 1 else ""
        yield f"  time     {_duration(self.hours)}{each}, {self.machine_hours:,.2f} machine hours"
        if self.money is not None:
            yield f"  money    {self.money:,.2f} at {self.price:g} per machine and hour"
        read = "" if self.bytes_read is None else f"{_size(self.bytes_read)} read, "
        yield f"  bytes    {read}{_size(self.bytes_written)} written"
        if self.failed:
            yield f"  failed   {self.failed:.1%} of the sample could not be read"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1000
    return f"{n:,.1f} TB"


def plan(
    work: Work, given: Input, *, machines: int = 1, price: float | None = None, threads: int | None = None
) -> Plan:
    """Measure a sample and reckon with it."""
    survey = Survey.of(given)
    if threads is not None:
        bound_threads(threads)
    start = time.perf_counter()
    opened = work.open()
    load = time.perf_counter() - start
    sample, n_pictures = _sampled(given, survey)
    if not sample:
        raise DataError(f"{given.place} names no pictures. At least one was expected. Look at what lies there.")
    seconds, done, failed, size = _measured(opened, sample)
    busiest = -(-len(survey.digests) // machines) / len(survey.digests)
    hours = (load + n_pictures * busiest * seconds / done) / 3600
    whole = (load * machines + n_pictures * seconds / done) / 3600
    read = [n for n in map(_bytes, sample) if n is not None]
    return Plan(
        n_pictures=n_pictures,
        counted=survey.n_pictures is not None,
        n_sample=done,
        per_second=round(done / seconds, 2),
        load_seconds=round(load, 2),
        machines=machines,
        hours=hours,
        machine_hours=whole,
        price=price,
        money=None if price is None else round(whole * price, 2),
        bytes_read=round(sum(read) / len(read) * n_pictures) if read else None,
        bytes_written=round(size / done * n_pictures),
        failed=failed / done,
    )


def _sampled(given: Input, survey: Survey) -> tuple[list[Item], int]:
    """A few pictures from each of several shards, and how many the input has; of unreadable shards none count."""
    n_shards = len(survey.digests)
    places = {round(i * (n_shards - 1) / max(1, PLACES - 1)) for i in range(PLACES)}
    each = -(-(SAMPLE + WARM) // len(places))
    sample: list[Item] = []
    counts = []
    for shard in given.shards():
        if shard.index in places:
            with suppress(ShardError):
                items = shard.items()
                first = list(islice(items, each))
                counts.append(len(first) + (0 if survey.n_pictures is not None else sum(1 for _ in items)))
                sample += first
    return sample, survey.n_pictures or round(sum(counts) / max(1, len(counts)) * n_shards)


def _bytes(item: Item) -> int | None:
    try:
        return Path(item.source).stat().st_size if isinstance(item.source, str) else len(item.source.load())
    except Exception:  # it is counted among those that failed
        return None


@dataclass(frozen=True)
class _Sample(Shard):
    """The sample as a shard, so that it is written as all are."""

    sample: tuple[Item, ...]
    digest = ""

    def _items(self) -> Iterator[Item]:
        yield from self.sample


def _measured(opened: Opened, sample: list[Item]) -> tuple[float, int, int, int]:
    """Seconds, pictures, those that failed, bytes written; warm, and written to a disk as a run does."""
    deque(opened.results(item.source for item in sample[:WARM]), maxlen=0)
    rest = sample[WARM:] or sample
    seconds, done, failed, size = 0.0, 0, 0, 0
    with working_folder(None) as folder:
        for number, first in enumerate(range(0, len(rest), SAMPLE // 2)):
            part = rest[first : first + SAMPLE // 2]
            job = Job(LocalFolder(folder), {"digest": "", "n_shards": len(rest)})
            start = time.perf_counter()
            written = job.write(_Sample(number, "the sample", tuple(part)), opened)
            seconds += time.perf_counter() - start
            done, failed = done + written.n, failed + written.n_failed
            size += (folder / job.name(number)).stat().st_size
            if seconds > SECONDS:
                break
    return seconds, done, failed, size
