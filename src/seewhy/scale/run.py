"""A long run: the shards that are meant and not there yet, in this process or in several."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import InputError, ModelError, SeeWhyError
from ..progress import Progress
from ..threads import bound_threads, n_cores
from ..types import Failure
from .inputs import Input, Shard, ShardError
from .job import Job, Survey, Written, claim
from .on_ray import Cluster, OnRay
from .places import Where, find_place
from .work import Model, Work

LIVES = 2
"""Processes that may die of a shard before it is left out."""
Result = tuple[Shard, Written | ShardError]


def serve(pipe: Connection, work: Work, threads: int) -> None:
    """A process: it opens the model, is told the job, and does shards until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    with suppress(EOFError, BrokenPipeError):  # the first process is gone
        try:
            bound_threads(threads)
            opened = work.open()
            pipe.send(("ready", opened.model()))
            job: Job = pipe.recv()
            while (shard := pipe.recv()) is not None:
                try:
                    pipe.send(("done", job.write(shard, opened)))
                except ShardError as error:
                    pipe.send(("unread", str(error)))
        except SeeWhyError as error:
            pipe.send(("stopped", str(error)))


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    shard: Shard | None = None
    ready: bool = False


class Workers:
    """Processes that share the shards of a run."""

    def __init__(self, work: Work, n: int, threads: int) -> None:
        self._work, self._n, self._threads = work, n, threads
        self._context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._workers: list[_Worker] = []
        self._model: Model | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    def model(self) -> Model:
        """What the rows hang on; loaded in one process before there are others, which find what it converted."""
        self._start()
        self._hear(self._workers[0])
        assert self._model is not None
        return self._model

    def results(self, job: Job, shards: Callable[[], Iterator[Shard]]) -> Iterator[Result]:
        """Every shard, as it is done or given up."""
        waiting, lost, deaths = shards(), deque[Shard](), Counter[int]()
        self._workers[0].pipe.send(job)
        while len(self._workers) < self._n:
            self._start()
        while True:
            for worker in self._workers:
                if worker.ready and worker.shard is None:
                    worker.shard = lost.popleft() if lost else next(waiting, None)
                    if worker.shard is not None:
                        with suppress(BrokenPipeError):  # it died; heard of below
                            worker.pipe.send(worker.shard)
            is_idle = not any(worker.shard for worker in self._workers)
            if is_idle and (all(worker.ready for worker in self._workers) or not self._left(waiting, lost)):
                return
            for worker in self._heard():
                shard = worker.shard
                result = self._hear(worker, job)
                if result is not None and shard is not None:
                    worker.shard = None
                    yield shard, result
                elif worker not in self._workers and shard is not None:
                    deaths[shard.index] += 1
                    if deaths[shard.index] < LIVES:
                        lost.append(shard)
                    else:
                        yield shard, ShardError(_died(worker, "did this shard"))

    def _left(self, waiting: Iterator[Shard], lost: deque[Shard]) -> bool:
        """Whether a shard is left for those that are not ready yet."""
        if not lost and (shard := next(waiting, None)) is not None:
            lost.append(shard)
        return bool(lost)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._work, self._threads)
        process = self._context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _heard(self) -> list[_Worker]:
        """Those that said something, or died."""
        heard = set(wait([worker.pipe for worker in self._workers]))
        return [worker for worker in self._workers if worker.pipe in heard]

    def _hear(self, worker: _Worker, job: Job | None = None) -> Written | ShardError | None:
        """What a process says; one that died gives way to another."""
        try:
            kind, said = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            self._workers.remove(worker)
            if not worker.ready:
                raise ModelError(_died(worker, "loaded the model")) from None
            self._start()
            return None
        if kind == "stopped":
            raise SeeWhyError(said)
        if kind == "unread":
            return ShardError(said)
        if kind == "done":
            return said
        self._check(said)
        worker.ready = True
        if job is not None:
            worker.pipe.send(job)
        return None

    def _check(self, model: Model) -> None:
        if self._model is not None and model != self._model:
            raise ModelError(
                f"Two processes opened different models, {dict(self._model.identity)} and {dict(model.identity)}. One "
                "model was expected. Leave its files as they are while it runs, and run the same command again."
            )
        self._model = model


def _died(worker: _Worker, doing: str) -> str:
    code = worker.process.exitcode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return (
        f"A process {how} while it {doing}. Processes that live were expected. Look at what the system says of memory, "
        "and run the same command again with fewer --workers."
    )


SHOWN = 20
"""Pictures that failed, of a run, that are named on the way."""


@dataclass(frozen=True)
class Part:
    """Which shards are meant: those of one of several runs that share an input."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Part:
        """``"3/16"``.

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
    """What a run did."""

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
    """Do what is missing of a part of the input; whatever stopped an earlier run, each picture has one row."""
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
                report.unread.append((shard.name, str(result)))
                progress.note(f"The shard {shard.name} was left out: {result}")
            else:
                report.add(result)
                shown = result.first[: SHOWN - named]
                named += len(shown)
                for image, error in shown:
                    progress.failed(Failure(image, error))
    job.finish()
    return report


def _doing(
    work: Work, cluster: Cluster | None, workers: int, threads: int | None, progress: Progress
) -> Alone | Workers | OnRay:
    """Who does the work."""
    if cluster is not None:
        return OnRay(work, cluster)
    if workers < 1:
        raise InputError(f"{workers} workers were asked for. A whole number above 0 was expected. Give at least 1.")
    most = threads or n_cores()
    if workers > most:
        progress.note(f"{workers} workers were asked for, and there are {most} threads for them: {most} work.")
    n = min(workers, most)
    return Alone(work, threads) if n == 1 else Workers(work, n, most // n)


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
    """The shards that are meant and not there yet."""
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
