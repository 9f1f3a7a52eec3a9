"""A run on Ray: one machine, or a cluster; the same shards, files and bytes as without.

Actors that hold the model do a shard each, as the pool of Ray Data hands them out; one that dies, with its machine or
without, is started again elsewhere, and its shard with it. Decoding may be spread apart from the engines: then an actor
has the pictures of its shard decoded in tasks anywhere on the cluster, a few pieces ahead.

Ray reports its use to its makers, and on clusters that ``ray start`` made even where that is switched off. Here it is
switched off, and the address that it would report to is one at which nothing listens, before Ray is loaded. Even then a
process of its own asks the metadata services of three clouds where it is; what is started here has no way out to do so.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, MissingExtraError, ModelError, SeeWhyError
from ..threads import bound_threads, n_cores
from .inputs import Item, Shard, ShardError
from .job import Job, Written

if TYPE_CHECKING:
    from ..pictures.images import Picture
    from ..types import Transform
    from .work import Model, Work
    from .workers import Result

NOWHERE = "http://127.0.0.1:9/"
"""Where Ray's reports go: the discard port of this machine, where nothing listens."""
LIVES = 2
"""Actors that may die of a shard, after the first, before it is left out."""
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
PIECE = 64
"""Pictures that a task decodes at once."""


def ray() -> Any:
    """Ray, which sends nothing.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_USAGE_STATS_REPORT_URL"] = NOWHERE
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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
    """What is started meanwhile asks nothing outside this machine by HTTP; actors have the old settings back."""
    closed = dict.fromkeys(PROXIES, NOWHERE) | dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
    before = proxies()
    os.environ.update(closed)
    try:
        yield
    finally:
        put_back(before)


def proxies() -> dict[str, str | None]:
    """How this process reaches what is outside."""
    return {name: os.environ.get(name) for name in (*PROXIES, "no_proxy", "NO_PROXY")}


def put_back(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@dataclass(frozen=True)
class Cluster:
    """Where, and how the work is spread there.

    Attributes:
        address: ``"local"``, this machine; ``"ray://…"``, or ``"auto"``, the cluster that this machine belongs to.
        workers: actors, each with a model.
        threads: that each keeps busy.
        gpus: that each has; a part of one is one that several share.
        decoders: tasks that decode for them; 0 has each actor decode for itself.
    """

    address: str = "local"
    workers: int = 1
    threads: int = 1
    gpus: float = 0.0
    decoders: int = 0


class OnRay:
    """Actors that share the shards of a run, as :class:`seewhy.scale.workers.Workers` do.

    Args:
        work: what is done with each picture.
        cluster: where.

    Raises:
        MissingExtraError: Ray is not installed.
        ModelError: the cluster does not answer.
    """

    def __init__(self, work: Work, cluster: Cluster) -> None:
        self._work, self._cluster = work, cluster
        self._ray = ray()
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if cluster.address == "local":
            here = max(n_cores(), cluster.workers * cluster.threads)
            quiet |= {"num_cpus": here, "include_dashboard": False}
        try:
            with no_way_out() if cluster.address == "local" else nullcontext():
                self._ray.init(cluster.address, **quiet)
        except Exception as error:  # its errors are of many kinds, and some of the network's
            raise ModelError(
                f"The cluster {cluster.address} does not answer ({type(error).__name__}: {error}). One that runs was "
                "expected. Start it, or give --cluster local."
            ) from error
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        context.execution_options.preserve_order = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    def __enter__(self) -> OnRay:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def model(self) -> Model:
        """What the rows hang on, as an actor of the cluster opens it."""
        opening = self._ray.remote(num_cpus=1, num_gpus=self._cluster.gpus, max_retries=1)(_model)
        try:
            return self._ray.get(opening.remote(self._work, self._cluster.threads))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, SeeWhyError) else ModelError(str(error)) from error

    def results(self, job: Job, shards: Callable[[], Iterator[Shard]]) -> Iterator[Result]:
        """Every shard, as it is done or given up."""
        waiting = {shard.index: shard for shard in shards()}
        if not waiting:
            return
        how = self._cluster
        pool = self._ray.data.ActorPoolStrategy(size=min(how.workers, len(waiting)), max_tasks_in_flight_per_actor=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that change from one version to the next
            told = self._done(list(waiting.values()), job, pool)
        for row in self._rows(told):
            shard = waiting.pop(int(row["index"]), None)
            if shard is None:  # an actor died when its shard was whole, and another found it so
                continue
            if row["error"]:
                yield shard, ShardError(row["error"])
            else:
                first = tuple((image, error) for image, error in row["first"])
                yield shard, Written(shard.index, int(row["n"]), int(row["n_failed"]), first)
        for shard in waiting.values():
            yield (
                shard,
                ShardError(
                    f"The actors that did {shard.name} died, or their model could not be opened. Actors that live were "
                    "expected. Look at Ray's logs for memory, and run the same command again."
                ),
            )

    def _rows(self, told: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from told.iter_rows()
        except self._ray.exceptions.RayError as error:
            said = next((line for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
            raise ModelError(
                f"The cluster cannot go on ({said.strip()}). Machines that open the same model were expected. Look at "
                "Ray's logs, and run the same command again."
            ) from error

    def _done(self, shards: list[Shard], job: Job, pool: Any) -> Any:
        """A data set of what was done, which is done as it is read."""
        begun = self._ray.remote(num_cpus=0, max_restarts=-1)(Begun).remote()
        return self._ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        ).map_batches(
            _Actor,
            fn_constructor_args=(self._work, job, self._cluster, proxies(), begun),
            batch_size=1,
            compute=pool,
            num_cpus=self._cluster.threads,
            num_gpus=self._cluster.gpus,
            ray_remote_args_fn=_lives,
        )


def _lives() -> dict[str, Any]:
    # Without end: how often a shard is begun is counted here, as Ray's own count does not end with every death.
    return {"max_restarts": -1, "max_task_retries": -1}


class Begun:
    """An actor of the cluster that counts how often each shard was begun."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}

    def begin(self, index: int) -> int:
        self._times[index] = self._times.get(index, 0) + 1
        return self._times[index]


def _model(work: Work, threads: int) -> Model:
    bound_threads(threads)
    return work.open().model()


class _Actor:
    """A process of the cluster that holds the model and does whole shards."""

    def __init__(self, work: Work, job: Job, cluster: Cluster, reached: dict[str, str | None], begun: Any) -> None:
        self._begun = begun
        if cluster.address == "local":
            put_back(reached)
        bound_threads(cluster.threads)
        self._opened, self._job = work.open(), job
        if dict(self._opened.identity) != dict(job.facts["model"]):
            raise ModelError(
                f"A machine of the cluster opened {dict(self._opened.identity)}, and the run is of "
                f"{dict(job.facts['model'])}. The same on all was expected. Bring the same model and version to all."
            )
        transform = self._opened.transform
        self._ahead = 0 if transform is None else -(-cluster.decoders // cluster.workers)
        self._transform = transform

    def _times(self, shard: Shard) -> int:
        import ray

        return int(ray.get(self._begun.begin.remote(shard.index)))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (shard,) = batch["shard"]
        found: dict[str, Any] = {"n": 0, "n_failed": 0, "first": [], "error": ""}
        if self._times(shard) > 1 + LIVES:
            found["error"] = (
                f"Every one of {1 + LIVES} actors that did {shard.name} died. One that lives was expected. Look at "
                "Ray's logs for memory, and run the same command again."
            )
            return {"index": [shard.index], **{key: [value] for key, value in found.items()}}
        if self._ahead and self._transform is not None:
            spread = self._transform, self._ahead
            doing: Shard = Decoded(shard.index, shard.name, shard, *spread, stamp=shard.stamp)
        else:
            doing = shard
        try:
            written = self._job.write(doing, self._opened)
            found |= {"n": written.n, "n_failed": written.n_failed, "first": [list(pair) for pair in written.first]}
        except SeeWhyError as error:
            found["error"] = str(error)
        return {"index": [shard.index], **{key: [value] for key, value in found.items()}}


@dataclass(frozen=True)
class Decoded(Shard):
    """A shard whose pictures are decoded elsewhere.

    Attributes:
        shard: the same.
        transform: the model's.
        ahead: pieces that are decoded at the same time.
    """

    shard: Shard
    transform: Transform
    ahead: int

    @property
    def digest(self) -> str:
        return self.shard.digest

    def _items(self) -> Iterator[Item]:
        import ray

        task = ray.remote(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")(decoded)
        items, doing = self.shard.items(), deque[tuple[list[str], Any]]()

        def submit() -> None:
            if piece := list(islice(items, PIECE)):
                doing.append(([item.name for item in piece], task.remote([i.source for i in piece], self.transform)))

        for _ in range(self.ahead):
            submit()
        while doing:
            names, reference = doing.popleft()
            pictures = ray.get(reference)
            submit()
            yield from (Item(name, _source(one)) for name, one in zip(names, pictures, strict=True))


def decoded(sources: list[Any], transform: Transform) -> list[Picture | tuple[str, str]]:
    """Pictures as the engine takes them, or the name of one that cannot be read, and why."""
    from ..pictures.images import read_picture

    found: list[Picture | tuple[str, str]] = []
    for source in sources:
        try:
            found.append(read_picture(source, transform))
        except ImageError as error:
            found.append((error.path, error.reason))
    return found


def _source(one: Any) -> Any:
    """A picture, or a source that fails as it did."""
    from ..pictures.sources import InMemory

    return InMemory(one[0], partial(_fail, *one)) if isinstance(one, tuple) else one


def _fail(path: str, reason: str) -> bytes:
    raise ImageError(path, reason)
