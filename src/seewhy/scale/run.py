"""Run a job: process the missing shards in this process, in several processes, or on Ray."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError, ModelError, SeeWhyError
from ..explanation.outputs import Run
from ..processes import start_python
from ..progress import Progress
from ..threads import bound_threads, n_cores
from ..types import Failure
from .inputs import Input, Shard, ShardError
from .job import Job, Survey, Written, claim
from .places import Where, find_place
from .work import Model, Work

if TYPE_CHECKING:
    from .on_ray import Cluster

LIVES = 2
"""Number of processes that a shard may crash before it is skipped."""
SHOWN = 20
"""Maximum number of failed pictures that are reported during a run."""
Result = tuple[Shard, Written | ShardError]


class Alone:
    """A worker that runs the model in this process."""

    def __init__(self, work: Work, threads: int | None = None) -> None:
        if threads is not None:
            bound_threads(threads)
        self._opened = work.open()

    def model(self) -> Model:
        return self._opened.model

    def do(self, job: Job, shard: Shard) -> Written | ShardError:
        try:
            return job.write(shard, self._opened)
        except ShardError as error:
            return error

    def results(self, job: Job, shards: Callable[[], Iterator[Shard]]) -> Iterator[Result]:
        for shard in shards():
            yield shard, self.do(job, shard)


class Died(ModelError):
    """Raised when a process ends during its work."""


class Worker(Protocol):
    """A separate process with the model; both methods raise :class:`Died` if it ends."""

    def model(self) -> Model: ...
    def do(self, job: Job, shard: Shard) -> Written | ShardError: ...
    def end(self) -> None: ...


class LocalProcess:
    """A process on this machine."""

    def __init__(self, work: Work, threads: int) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = start_python(["-c", _SERVE], stdin=theirs.fileno())
        with suppress(OSError):  # the process died; ``_answer`` reports it
            self._pipe.send((work, threads))

    def model(self) -> Model:
        return self._answer("loaded the model")

    def do(self, job: Job, shard: Shard) -> Written | ShardError:
        with suppress(OSError):  # the process died; ``_answer`` reports it
            self._pipe.send((job, shard))
        return self._answer("did this shard")

    def _answer(self, doing: str) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise Died(
                f"A process {how} while it {doing}, often because memory ran out. Run the same command "
                "again with fewer --workers."
            ) from None
        if isinstance(answer, SeeWhyError) and not isinstance(answer, ShardError):
            raise answer
        return answer

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


# Ctrl-C reaches all processes; the main process ends the others.
_SERVE = (
    f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from {__name__} import serve, standard_pipe; "
    "serve(standard_pipe())"
)


def standard_pipe() -> Connection:
    return Connection(os.dup(sys.stdin.fileno()))


def serve(pipe: Connection) -> None:
    """Open the model, and process shards, as the pipe requests until it is closed."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the main process ended
        try:
            alone = Alone(*pipe.recv())
            pipe.send(alone.model())
            while True:
                pipe.send(alone.do(*pipe.recv()))
        except SeeWhyError as error:
            pipe.send(SeeWhyError(str(error)))  # subclasses may not be picklable


class Workers(AbstractContextManager["Workers"]):
    """Processes that share the shards of a run; a process that dies is replaced."""

    def __init__(self, start: Callable[[], Worker], n: int) -> None:
        self._start, self._n = start, n
        self._model: Model | None = None
        self._workers: list[Worker] = []
        self._results: SimpleQueue[Result | BaseException | None] = SimpleQueue()
        self._changed = Condition()  # guards the attributes below
        self._left: Iterator[Shard] = iter(())
        self._lost, self._deaths = deque[Shard](), Counter[int]()
        self._n_out, self._n_alive, self._ended = 0, n, False

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            for worker in self._workers:
                worker.end()

    def model(self) -> Model:
        self._first, model = self._started()
        return model

    def results(self, job: Job, shards: Callable[[], Iterator[Shard]]) -> Iterator[Result]:
        self._left = shards()
        for first in (self._first, *[None] * (self._n - 1)):
            Thread(target=self._ask, args=(job, first), daemon=True).start()
        while (result := self._results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result

    def _ask(self, job: Job, worker: Worker | None) -> None:
        """Process shards until all are done; if no worker can start, the run stops."""
        try:
            worker = worker or self._started()[0]
            while (shard := self._next()) is not None:
                try:
                    self._tell(shard, worker.do(job, shard))
                except Died as error:
                    self._bury(shard, error)
                    worker, _ = self._started()
            self._results.put(None)
        except Died as error:
            with self._changed:
                self._n_alive -= 1
                if not self._n_alive:
                    self._results.put(error)
        except BaseException as error:
            self._results.put(error)

    def _started(self) -> tuple[Worker, Model]:
        with self._changed:
            if self._ended:
                raise Died
            worker = self._start()
            self._workers.append(worker)
        model = worker.model()
        if self._model is not None and model != self._model:
            raise ModelError(
                f"All processes must open the same model, got {dict(self._model.identity)} and {dict(model.identity)}. "
                "Do not change its files during the run, and run the same command again."
            )
        self._model = model
        return worker, model

    def _next(self) -> Shard | None:
        """Return the next shard; wait if other workers may still return one."""
        with self._changed:
            while not self._lost:
                if (shard := next(self._left, None)) is not None:
                    self._n_out += 1
                    return shard
                if not self._n_out:
                    return None
                self._changed.wait()
            return self._lost.popleft()

    def _tell(self, shard: Shard, result: Written | ShardError) -> None:
        with self._changed:
            self._results.put((shard, result))
            self._n_out -= 1
            self._changed.notify_all()

    def _bury(self, shard: Shard, error: Died) -> None:
        """Retry a shard whose process died, or skip it after ``LIVES`` deaths."""
        with self._changed:
            self._deaths[shard.index] += 1
            if self._deaths[shard.index] < LIVES:
                self._lost.append(shard)
                self._changed.notify_all()
                return
        self._tell(shard, ShardError(str(error)))


@dataclass(frozen=True)
class Part:
    """The part of the shards that this run processes, if several runs process the same input."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Part:
        """Parse a part such as ``"3/16"``.

        Example:
            >>> Part.read("3/16")
            Part(number=3, of=16)
        """
        number, _, of = text.partition("/")
        with suppress(ValueError):
            if 1 <= int(number) <= int(of):
                return cls(int(number), int(of))
        raise InputError(
            f"--shard must be a part such as 3/16, from 1/16 to 16/16, got {text!r}. In a Slurm array "
            "of 1-16, write $SLURM_ARRAY_TASK_ID/16."
        )

    def has(self, index: int) -> bool:
        """Return whether a shard belongs to this part."""
        return index % self.of == self.number - 1


WHOLE = Part()


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
) -> Run:
    """Process the missing shards of a part of the input; each picture gets one row, even if the run was interrupted."""
    progress = progress or Progress()
    place = find_place(output)
    place.check()
    survey = Survey.of(given)
    report = Run(str(place), len(survey.digests), sum(map(part.has, range(len(survey.digests)))))
    named = 0
    with _doing(work, cluster, workers, threads, progress) as doing:
        job = claim(place, work.verb, survey, doing.model())
        results = doing.results(job, lambda: missing(given, survey, job, part, report))
        for shard, result in progress.track(results, "Working through shards", report.n_part):
            if isinstance(result, ShardError):
                report.unread.append({"shard": shard.name, "error": str(result)})
                progress.note(f"The shard {shard.name} was skipped: {result}")
                continue
            report.done += 1
            report.rows += result.n
            report.failed += result.n_failed
            shown = result.first[: SHOWN - named]
            named += len(shown)
            for image, error in shown:
                progress.failed(Failure(image, error))
    job.finish()
    return report


def _doing(
    work: Work, cluster: Cluster | None, workers: int, threads: int | None, progress: Progress
) -> AbstractContextManager[Alone | Workers]:
    if cluster is not None:
        from .on_ray import on_ray

        return on_ray(work, cluster)
    if workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}.")
    most = threads or n_cores()
    if workers > most:
        progress.note(
            f"{workers} workers were requested, but there are threads for {most}, so {most} workers are used."
        )
    n = min(workers, most)
    return nullcontext(Alone(work, threads)) if n == 1 else Workers(partial(LocalProcess, work, most // n), n)


def missing(given: Input, survey: Survey, job: Job, part: Part, report: Run) -> Iterator[Shard]:
    """Yield the input shards of this part whose output is not written yet."""
    n = -1
    before = job.all_written(filter(part.has, range(len(survey.digests))))
    for n, shard in enumerate(given.shards()):
        if n >= len(survey.digests) or shard.digest != survey.digests[n]:
            raise _changed(given)
        if not part.has(n):
            continue
        now = shard.stamped()
        there = next(before) or job.written(n)  # another run may have written it in the meantime
        if there is not None and job.is_of(now, there):
            report.there += 1
        else:
            report.changed += there is not None
            yield now
    if n + 1 != len(survey.digests):
        raise _changed(given)


def _changed(given: Input) -> InputError:
    return InputError(
        f"The files of {given.place} changed while they were read. Wait until copying has ended, "
        "then run again with another output folder; files already written are complete."
    )
