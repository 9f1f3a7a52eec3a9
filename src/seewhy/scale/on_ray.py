"""A run on Ray: one machine, or a cluster; the same shards, files and bytes as without.

The shards are a data set of Ray Data's, and each goes through its stages: tasks that read and decode, where that is
apart from the engines; actors that hold the model; tasks that write. What dies, a process or a machine with all that is
on it, Ray does again, and a file takes its name when it is whole: so each row is there once.

Ray reports its use to its makers, and on clusters that ``ray start`` made even where that is switched off. Here it is
switched off, and the address that it would report to is one at which nothing listens, before Ray is loaded. Even then a
process of its own asks the metadata services of three clouds where it is; what is started here has no way out to do so.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, fields
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, InputError, MissingExtraError, ModelError, SeeWhyError
from ..threads import bound_threads, n_cores
from .inputs import Item, Shard, ShardError
from .work import Opened

if TYPE_CHECKING:
    from ..types import Failure, Transform
    from .job import Job
    from .run import Result
    from .work import Model, Row, Work

NOWHERE = "http://127.0.0.1:9/"
"""Where Ray's reports go: the discard port of this machine, where nothing listens."""
LIVES = 2
"""Times that a stage is tried again with a shard of which its process died, before the shard is left out."""
PAUSE = 20.0
"""Seconds before a data set that brought nothing is followed by another: what died with a machine Ray tries again at
once, on the same machine, of which it knows after 15 that it is dead."""
PATIENCE = 300.0
"""Seconds without a shard, since a machine died, after which Ray is taken to wait for what was there."""
Proxies = Mapping[str, "str | None"]
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_ADDRESS = re.compile(r"local|auto|[^/\s]+:\d+")


def ray() -> Any:
    """Ray, which sends nothing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_USAGE_STATS_REPORT_URL"] = NOWHERE
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else what it still does when it is left starts it anew
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else its processes give way to all others
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "Running on Ray") from error
    return ray


@contextmanager
def no_way_out() -> Iterator[None]:
    """What is started meanwhile asks nothing outside this machine by HTTP; stages have the old settings back."""
    closed = dict.fromkeys(PROXIES, NOWHERE) | dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
    before = proxies()
    os.environ.update(closed)
    try:
        yield
    finally:
        put_back(before)


def proxies() -> Proxies:
    """How this process reaches what is outside."""
    return {name: os.environ.get(name) for name in (*PROXIES, "no_proxy", "NO_PROXY")}


def put_back(before: Proxies) -> None:
    for name in before:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in before.items() if value is not None})


@dataclass(frozen=True)
class Cluster:
    """Where, and how the work is spread there.

    Attributes:
        address: ``"local"``, this machine; ``"auto"`` or ``"HOST:PORT"``, the cluster that this machine belongs to.
        workers: actors, each with a model.
        threads: that each keeps busy.
        gpus: that each has; a part of one is one that several share.
        decoders: tasks that read and decode for them, a shard each; 0 has each actor do so for itself.
    """

    address: str = "local"
    workers: int = 1
    threads: int = 1
    gpus: float = 0.0
    decoders: int = 0

    def reached(self) -> str:
        """The address, as Ray's own settings have it where it is ``"auto"``."""
        address = os.environ.get("RAY_ADDRESS") or "auto" if self.address == "auto" else self.address
        if not _ADDRESS.fullmatch(address):
            raise InputError(
                f"The cluster is {address}. local, auto, or HOST:PORT of a cluster that this machine belongs to was "
                "expected, as Ray Data does not work from outside, by ray://. Run the command on a machine of the "
                "cluster with --cluster auto: ray job submit --address http://HOST:8265 -- seewhy … --cluster auto."
            )
        return address


class OnRay:
    """Stages that share the shards of a run, as :class:`seewhy.scale.run.Workers` do."""

    def __init__(self, work: Work, cluster: Cluster) -> None:
        self._work, self._cluster, self._address = work, cluster, cluster.reached()
        self._ray = ray()
        self._connect()
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        context.max_consecutive_actor_init_deaths = LIVES
        context.execution_options.preserve_order = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    def _connect(self) -> None:
        address, cluster = self._address, self._cluster
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            here = max(n_cores(), cluster.workers * cluster.threads)
            quiet |= {"num_cpus": here, "include_dashboard": False}
        try:
            with no_way_out() if address == "local" else nullcontext():
                self._ray.init(address, **quiet)
        except Exception as error:  # its errors are of many kinds, and some of the network's
            raise ModelError(
                f"The cluster {address} does not answer ({type(error).__name__}: {error}). One that runs was "
                "expected. Start it, or give --cluster local."
            ) from error

    def __enter__(self) -> OnRay:
        self._aside = redirect_stdout(sys.stderr)  # where Ray says what died, which is no part of --json
        self._aside.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
        self._aside.__exit__(None, None, None)

    def model(self) -> Model:
        """What the rows hang on, as a machine of the cluster opens it."""
        opening = self._ray.remote(num_cpus=1, num_gpus=self._cluster.gpus, max_retries=LIVES)(_opened)
        try:
            self._model, self._transform = self._ray.get(opening.remote(self._work, self._cluster.threads))
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, SeeWhyError) else _stopped(error) from error
        return self._model

    def results(self, job: Job, shards: Callable[[], Iterator[Shard]]) -> Iterator[Result]:
        """Every shard, as it is done or given up."""
        waiting, barren = {shard.index: shard for shard in shards()}, 0
        most, failure = 1 if self._cluster.address == "local" else 1 + LIVES, None
        while waiting and barren < most:  # what Ray gave up, as machines died, is done by those that live
            time.sleep(PAUSE if barren else 0)
            before, failure = len(waiting), None
            try:
                for row in self._rows(list(waiting.values()), job):
                    if (shard := waiting.pop(int(row["index"]), None)) is not None:
                        yield shard, row["result"]
            except self._ray.exceptions.RayError as error:
                failure = error
            barren = 0 if len(waiting) < before else barren + 1
        if waiting and failure is not None:
            raise _stopped(failure) from failure
        for shard in waiting.values():
            why = f"The processes that did {shard.name} died, at every try, or could not open their model. Ones "
            why += "that live were expected. Look at Ray's logs for memory, and run the same command again."
            yield shard, ShardError(why)

    def _rows(self, shards: list[Shard], job: Job) -> Iterator[dict[str, Any]]:
        """What one data set says.

        Where a machine dies Ray may wait for ever for what lay there (ray-project/ray#64581); then all that the data
        set does is ended with the connection, and the next one does what is left.
        """
        machines, told = self._machines(), SimpleQueue[Any]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how many tries are said, from Ray 2.64 on
            stages = self._stages(shards, job)

        def read() -> None:
            try:
                for row in stages.iter_rows():
                    told.put(row)
                told.put(None)
            except BaseException as error:
                told.put(error)

        reader = Thread(target=read, daemon=True)
        reader.start()
        while True:
            try:
                row = told.get(timeout=PATIENCE)
            except Empty:
                if self._machines() >= machines:
                    continue  # shards may take long
                self._ray.shutdown()
                reader.join(PATIENCE)
                return self._connect()
            if row is None:
                return None
            if isinstance(row, BaseException):
                raise row
            yield row

    def _machines(self) -> set[str]:
        return {machine["NodeID"] for machine in self._ray.nodes() if machine["Alive"]}

    def _stages(self, shards: list[Shard], job: Job) -> Any:
        """A data set of what was done, which is done as it is read; a row of it is a shard, at every stage."""
        how, data, model = self._cluster, self._ray.data, self._model
        outside = proxies() if how.address == "local" else {}
        task = {"batch_size": 1, "num_cpus": 0, "max_retries": LIVES}  # no core, as actors may hold all there are
        stages = data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        if how.decoders and self._transform is not None:
            decoding = partial(decode, transform=self._transform, outside=outside)
            stages = stages.map_batches(decoding, compute=data.TaskPoolStrategy(size=how.decoders), **task)
        return stages.map_batches(
            _Engine,
            fn_constructor_args=(self._work, model, how.threads, outside),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(how.workers, len(shards)), max_tasks_in_flight_per_actor=1),
            num_cpus=how.threads,
            num_gpus=how.gpus,
            max_task_retries=LIVES,
        ).map_batches(partial(write, job=job, model=model, outside=outside), **task)


def _stopped(error: Exception) -> ModelError:
    last = next((line for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
    return ModelError(
        f"The cluster cannot go on ({last.strip()}). Machines that open the same model were expected. Look at Ray's "
        "logs, and run the same command again."
    )


def _opened(work: Work, threads: int) -> tuple[Model, Transform | None]:
    bound_threads(threads)
    opened = work.open()
    return opened.model(), opened.transform


@dataclass(frozen=True)
class Underway(Shard):
    """A shard between two stages."""

    shard: Shard
    held: tuple[Item, ...] = ()
    error: str = ""

    @property
    def digest(self) -> str:
        return self.shard.digest

    def _items(self) -> Iterator[Item]:
        yield from self.held
        if self.error:
            raise ShardError(self.error)


def _further(shard: Shard, items: Iterator[Item]) -> dict[str, Any]:
    """The same shard, with its pictures as a stage gives them."""
    whole = shard.shard if isinstance(shard, Underway) else shard
    alike = {field.name: getattr(whole, field.name) for field in fields(Shard)}
    try:
        return {"shard": [Underway(**alike, shard=whole, held=tuple(items))]}
    except SeeWhyError as error:
        return {"shard": [Underway(**alike, shard=whole, error=str(error))]}


def decode(batch: dict[str, Any], transform: Transform, outside: Proxies) -> dict[str, Any]:
    """Read a shard, and decode its pictures as the engine takes them."""
    put_back(outside)
    (shard,) = batch["shard"]
    return _further(shard, (Item(item.name, _decoded(item.source, transform)) for item in shard.items()))


def _decoded(source: Any, transform: Transform) -> Any:
    """A picture, or a source that fails as it did."""
    from ..pictures.images import read_picture
    from ..pictures.sources import InMemory

    try:
        return read_picture(source, transform)
    except ImageError as error:
        return InMemory(error.path, partial(_fail, error.path, error.reason))


def _fail(path: str, reason: str) -> bytes:
    raise ImageError(path, reason)


class _Engine:
    """A process of the cluster that holds the model."""

    def __init__(self, work: Work, model: Model, threads: int, outside: Proxies) -> None:
        put_back(outside)
        bound_threads(threads)
        self._opened = work.open()
        if dict(self._opened.identity) != dict(model.identity):
            raise ModelError(
                f"A machine of the cluster opened {dict(self._opened.identity)}, and the run is of "
                f"{dict(model.identity)}. The same on all was expected. Bring the same model and version to all."
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (shard,) = batch["shard"]
        names: list[str] = []

        def sources() -> Iterator[Any]:
            for item in shard.items():
                names.append(item.name)
                yield item.source

        return _further(shard, (Item(names.pop(0), result) for result in self._opened.results(sources())))


class _Answers(Opened):
    """A model whose answers are there already, in place of the pictures."""

    def __init__(self, model: Model) -> None:
        self.identity, self._columns = model.identity, list(model.columns)

    def columns(self) -> list[tuple[str, Any]]:
        return self._columns

    def results(self, sources: Iterator[Any]) -> Iterator[Row | Failure]:
        return sources


def write(batch: dict[str, Any], job: Job, model: Model, outside: Proxies) -> dict[str, Any]:
    """Write the file of a shard, as every run does."""
    put_back(outside)
    (shard,) = batch["shard"]
    try:
        return {"index": [shard.index], "result": [job.write(shard, _Answers(model))]}
    except SeeWhyError as error:
        return {"index": [shard.index], "result": [ShardError(str(error))]}
