"""Run on Ray, with actors instead of processes and the same output; Ray's usage reports are switched off."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import InputError, ModelError, SeeWhyError, needs
from ..processes import safe_environment
from ..threads import Together, n_cores
from .inputs import Shard, ShardError
from .job import Job, Written
from .run import Alone, Died, Workers
from .work import Model, Work

NOWHERE = "http://127.0.0.1:9/"
"""Address for Ray's usage reports: the discard port of this machine, which is closed."""
PATIENCE = 1800.0
"""Maximum seconds for an actor to start and to load its model."""
Proxies = Mapping[str, "str | None"]
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_ADDRESS = re.compile(r"local|auto|[^/\s]+:\d+")


def ray() -> Any:
    """Import Ray with its usage reports switched off."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_USAGE_STATS_REPORT_URL"] = NOWHERE
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else Ray reconnects when its objects are deleted
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else its processes run at low priority
    with needs("ray", "Running on Ray"):
        import ray
    return ray


def _close() -> Callable[[], None]:
    closed = dict.fromkeys(PROXIES, NOWHERE) | dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
    closed |= safe_environment()
    before = {name: os.environ.get(name) for name in closed}
    os.environ.update(closed)
    return partial(put_back, before)


def proxies() -> Proxies:
    """Return the proxy settings of this process."""
    return {name: os.environ.get(name) for name in (*PROXIES, "no_proxy", "NO_PROXY")}


def put_back(before: Proxies) -> None:
    for name in before:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in before.items() if value is not None})


no_way_out = Together(_close)
"""Blocks HTTP requests to other machines, and imports from the current folder, in processes started here."""


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster, with the number of actors and their resources.

    Attributes:
        address: ``"local"`` for this machine; ``"auto"`` or ``"HOST:PORT"`` for the cluster that this machine belongs
            to.
        workers: number of actors, each with a model.
        threads: threads per actor.
        gpus: GPUs per actor; actors share a GPU if it is a fraction.
    """

    address: str = "local"
    workers: int = 1
    threads: int = 1
    gpus: float = 0.0

    def reached(self) -> str:
        """Return the address; ``"auto"`` is replaced by ``RAY_ADDRESS`` if it is set."""
        address = os.environ.get("RAY_ADDRESS") or "auto" if self.address == "auto" else self.address
        if not _ADDRESS.fullmatch(address):
            raise InputError(
                "--cluster must be local, auto, or HOST:PORT of a cluster that this machine belongs to, "
                f"got {address}. For a remote cluster, use: ray job submit --address http://HOST:8265 -- "
                "seewhy … --cluster auto."
            )
        return address


@contextmanager
def on_ray(work: Work, cluster: Cluster) -> Iterator[Workers]:
    """Start actors that share the shards of a run."""
    address, ours = cluster.reached(), ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "job_config": _job_config(ours)}
    if address == "local":
        cores = max(n_cores(), cluster.workers * cluster.threads)
        quiet |= {"num_cpus": cores, "include_dashboard": False}
    try:
        with no_way_out if address == "local" else nullcontext():
            ours.init(address, **quiet)
    except Exception as error:  # its errors are of many kinds, and some of the network's
        raise ModelError(
            f"The cluster {address} does not answer ({type(error).__name__}: {error}). Start it, or "
            "use --cluster local."
        ) from error
    with redirect_stdout(sys.stderr):  # where Ray says what died, which is no part of --json
        try:
            with Workers(lambda: RemoteActor(ours, work, cluster), cluster.workers) as workers:
                yield workers
        finally:
            ours.shutdown()


def _job_config(ours: Any) -> Any:
    """Return the settings of a job whose processes do not import from the current folder, as Ray's others do."""

    class JobConfig(ours.job_config.JobConfig):
        @property
        def _py_driver_sys_path(self) -> list[str]:
            return []

        @_py_driver_sys_path.setter
        def _py_driver_sys_path(self, path: list[str]) -> None: ...

    return JobConfig()


class RemoteActor:
    """An actor with the interface of :class:`seewhy.scale.run.LocalProcess`."""

    def __init__(self, ours: Any, work: Work, cluster: Cluster) -> None:
        self._ray = ours
        outside = proxies() if cluster.address == "local" else {}
        actor = ours.remote(num_cpus=cluster.threads, num_gpus=cluster.gpus, max_restarts=0)(Actor)
        self._actor = actor.remote(work, cluster.threads, outside)

    def model(self) -> Model:
        return self._answer("loaded the model", self._actor.model.remote(), PATIENCE)

    def do(self, job: Job, shard: Shard) -> Written | ShardError:
        return self._answer("did this shard", self._actor.do.remote(job, shard))

    def _answer(self, doing: str, reference: Any, timeout: float | None = None) -> Any:
        try:
            return self._ray.get(reference, timeout=timeout)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SeeWhyError):
                raise cause from error
            last = next((line for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
            raise Died(
                f"A Ray actor died while it {doing} ({last.strip()}). Look for memory errors in Ray's "
                "logs, then run the same command again."
            ) from error

    def end(self) -> None:
        with suppress(Exception):  # the connection may be gone
            self._ray.kill(self._actor)


class Actor:
    """A model in a process of the cluster."""

    def __init__(self, work: Work, threads: int, outside: Proxies) -> None:
        put_back(outside)
        self._how = work, threads

    def model(self) -> Model:
        """Open the model; Ray would not report errors of a constructor."""
        self._alone = Alone(*self._how)
        return self._alone.model()

    def do(self, job: Job, shard: Shard) -> Written | ShardError:
        return self._alone.do(job, shard)
