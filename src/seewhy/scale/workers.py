"""Several processes on one machine, each with a model of its own; a shard goes to whichever is free.

A process that dies costs the shard that it had, which another does; a shard that two processes died of is left out.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, SeeWhyError
from ..threads import bound_threads
from .inputs import Shard, ShardError

if TYPE_CHECKING:
    from .job import Job, Model, Written
    from .work import Work

LIVES = 2
"""Processes that may die of a shard before it is left out."""
Result = tuple[Shard, "Written | ShardError"]


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
    """Processes that share the shards of a run.

    Args:
        work: what is done with each picture.
        n: how many.
        threads: that each keeps busy.
    """

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
