"""A long run: the shards that are meant and not there yet, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..progress import Progress
from ..threads import bound_threads, n_cores
from .inputs import Input, Shard, ShardError
from .job import Job, Survey, Written, claim
from .on_ray import Cluster, OnRay
from .places import Where, find_place
from .work import Model, Work
from .workers import Result, Workers

SHOWN = 20
"""Pictures that failed, of a run, that are named on the way."""


@dataclass(frozen=True)
class Part:
    """Which shards are meant: those of one of several runs that share an input.

    Attributes:
        number: from 1.
        of: how many runs share it.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Part:
        """``"3/16"``.

        Raises:
            InputError: it is something else.

        Example:
            >>> Part.read("3/16")
            Part(number=3, of=16)
        """
        number, _, of = text.partition("/")
        with suppress(ValueError):
            if 1 <= int(number) <= int(of):
                return cls(int(number), int(of))
        raise InputError(
            f"The shard is {text!r}. A part and how many there are was expected, from 1/16 to 16/16. Write it so; in a "
            "Slurm array of 1-16 it is $SLURM_ARRAY_TASK_ID/16."
        )

    def has(self, index: int) -> bool:
        """Whether a shard is meant; by its place alone, so whoever asks gets the same answer."""
        return index % self.of == self.number - 1


WHOLE = Part()


@dataclass
class Report:
    """What a run did.

    Attributes:
        output: its folder.
        done: shards done now.
        there: shards that were there already.
        changed: shards that were there, of pictures that have been replaced since; they are done again.
        n_shards: of the whole input.
        n_part: of the part that was meant.
        rows: written now.
        failed: pictures among them that could not be read.
        unread: shards that could not be read, with why.
    """

    output: str
    n_shards: int = 0
    n_part: int = 0
    done: int = 0
    there: int = 0
    changed: int = 0
    rows: int = 0
    failed: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)

    def add(self, written: Written) -> None:
        self.done += 1
        self.rows += written.n
        self.failed += written.n_failed

    def to_json(self) -> dict[str, Any]:
        unread = [{"shard": name, "error": error} for name, error in self.unread]
        return {**vars(self), "unread": unread}


def run(
    work: Work,
    given: Input,
    output: Where,
    *,
    part: Part = WHOLE,
    workers: int = 1,
    threads: int | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Report:
    """Do what is missing of a part of the input; whatever stopped an earlier run, each picture has one row at the end.

    Args:
        work: what is done with each picture.
        given: the pictures.
        output: a folder, or an address in object storage.
        part: which shards are meant.
        workers: processes on this machine.
        threads: kept busy by engine, decoders and torch together, in all processes; left out, one per core.
        cluster: on Ray instead, spread as it says.
        progress: hears of shards and of pictures that failed.

    Raises:
        DataError: there are no pictures, or the folder is another run's, or cannot be written.
        SeeWhyError: the model cannot be loaded.
    """
    progress = progress or Progress()
    place = find_place(output)
    place.check()
    survey = Survey.of(given)
    report = Report(str(place), len(survey.digests), sum(map(part.has, range(len(survey.digests)))))

    def left(job: Job) -> Iterator[Shard]:
        return missing(given, survey, job, part, report)

    named = 0
    with _doing(work, cluster, workers, threads, progress) as doing:
        job = claim(place, work.verb, survey, doing.model())
        for shard, result in progress.track(doing.results(job, lambda: left(job)), "Shards", report.n_part):
            if isinstance(result, ShardError):
                unread(shard, result, report, progress)
            else:
                report.add(result)
                named += name_failed(result, SHOWN - named, progress)
    job.finish()
    return report


def _doing(
    work: Work, cluster: Cluster | None, workers: int, threads: int | None, progress: Progress
) -> Alone | Workers | OnRay:
    """Who does the work."""
    if cluster is not None:
        return OnRay(work, cluster)
    n = _fitting(workers, threads or n_cores(), progress)
    return Alone(work, threads) if n == 1 else Workers(work, n, (threads or n_cores()) // n)


def _fitting(workers: int, threads: int, progress: Progress) -> int:
    """As many processes as there are threads for them."""
    if workers < 1:
        raise InputError(f"{workers} workers were asked for. A whole number above 0 was expected. Give at least 1.")
    if workers > threads:
        progress.note(f"{workers} workers were asked for, and there are {threads} threads for them: {threads} work.")
    return min(workers, threads)


class Alone:
    """This process, as :class:`Workers` are."""

    def __init__(self, work: Work, threads: int | None) -> None:
        if threads is not None:
            bound_threads(threads)
        self._opened = work.open()

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None: ...

    def model(self) -> Model:
        return self._opened.model()

    def results(self, job: Job, shards: Callable[[], Iterator[Shard]]) -> Iterator[Result]:
        for shard in shards():
            try:
                yield shard, job.write(shard, self._opened)
            except ShardError as error:
                yield shard, error


def missing(given: Input, survey: Survey, job: Job, part: Part, report: Report) -> Iterator[Shard]:
    """The shards that are meant and not there yet.

    Raises:
        InputError: the input is no longer what it was when the run began.
    """
    n = -1
    before = job.all_written(filter(part.has, range(len(survey.digests))))
    for n, shard in enumerate(given.shards()):
        if n >= len(survey.digests) or shard.digest != survey.digests[n]:
            raise _changed(given)
        if not part.has(n):
            continue
        now = shard.stamped()
        there = next(before) or job.written(n)  # another run may have done it meanwhile
        if there is not None and job.is_of(now, there):
            report.there += 1
        else:
            report.changed += there is not None
            yield now
    if n + 1 != len(survey.digests):
        raise _changed(given)


def _changed(given: Input) -> InputError:
    return InputError(
        f"The files of {given.place} have changed while they were read. The same ones were expected, so that none is "
        "missed. What is written is whole; run again when nothing is copied there any more, into another folder."
    )


def name_failed(written: Written, most: int, progress: Progress) -> int:
    """Name the first pictures of a shard that failed; how many were."""
    from ..types import Failure

    shown = written.first[:most]
    for image, error in shown:
        progress.failed(Failure(image, error))
    return len(shown)


def unread(shard: Shard, error: Exception, report: Report, progress: Progress) -> None:
    """Count a shard that cannot be read; the others go on."""
    report.unread.append((shard.name, str(error)))
    progress.note(f"The shard {shard.name} was left out: {error}")
