"""The state of the service: models, decoder and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse
from torch import Tensor

from ...classifiers.base import Classifier
from ...classifiers.saving import CARD
from ...encoders.stream import Encoded, file_digest
from ...errors import ImageError, SeeWhyError, UnknownNameError
from ...evidence.explain import ExplainOptions, explain_seen
from ...explanation.base import Explanation
from ...explanation.prediction import Prediction
from ...threads import beside
from ...types import Failure
from ..app.settings import Settings
from ..app.worker import Worker
from .entrance import AccessLog, Metrics
from .settings import ServiceSettings

_logger = logging.getLogger(__name__)
Load = Callable[[Path], Classifier]
RETRY_SECONDS = 60.0
"""Seconds until a model that failed to load is tried again."""


class Model:
    """A loaded classifier; after a newer version replaces it, running requests still use it."""

    def __init__(self, name: str, classifier: Classifier, digest: str, settings: Settings, metrics: Metrics) -> None:
        self.name = name
        self.classifier = classifier
        self.digest = digest
        sizes, seconds = metrics.batch.labels(name), metrics.batch_seconds.labels(name)

        def batch(n: int, took: float) -> None:
            sizes.observe(n)
            seconds.observe(took)

        _ = classifier.measured_trust
        self.worker = Worker(classifier.encoder, settings, batch)
        self._n_users = 0
        self._free = threading.Condition()

    def enter(self) -> None:
        with self._free:
            self._n_users += 1

    def leave(self) -> None:
        with self._free:
            self._n_users -= 1
            self._free.notify_all()

    def retire(self, within: float) -> None:
        with self._free:
            self._free.wait_for(lambda: self._n_users == 0, timeout=within)
        self.worker.close()


class Models:
    """The models by name, which are reloaded when their folders change or on a signal."""

    def __init__(
        self, sources: Mapping[str, Classifier | Path], settings: Settings, load: Load, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.load = load
        self.metrics = metrics
        self.folders = {name: source for name, source in sources.items() if isinstance(source, Path)}
        self.warm: Callable[[Model], None] = lambda _model: None
        self.problems: dict[str, str] = {}
        """Reason why the current model in a folder could not be loaded, by name."""
        self._refused: dict[str, tuple[object, float]] = {}
        """Files that failed to load, and the time, by name."""
        self._lock = threading.Lock()
        self._now = {name: self._made(name, source) for name, source in sources.items()}

    def _made(self, name: str, source: Classifier | Path) -> Model:
        """Load a model, with the digest of its folder before loading."""
        if not isinstance(source, Path):
            return Model(name, source, source.digest, self.settings, self.metrics)
        digest = file_digest(source / CARD) or ""
        return Model(name, self.load(source), digest, self.settings, self.metrics)

    def all(self) -> list[Model]:
        with self._lock:
            return list(self._now.values())

    @contextmanager
    def use(self, name: str | None) -> Iterator[Model]:
        """Yield a model by name, or the first model, for the time of a request."""
        with self._lock:
            model = self._now.get(next(iter(self._now)) if name is None else name)
            if model is not None:
                model.enter()
        if model is None:
            raise UnknownNameError("model", str(name)[:100], list(self._now))
        try:
            yield model
        finally:
            model.leave()

    def reload(self, *, force: bool = False) -> None:
        """Reload changed models; a model that cannot be loaded does not replace the old one.

        A failed model is tried again when a file changes, or after a minute.
        """
        for name, folder in self.folders.items():
            digest, files, now = file_digest(folder / CARD), files_of(folder), time.monotonic()
            before, then = self._refused.get(name, (None, 0.0))
            is_refused = files == before and now < then + RETRY_SECONDS
            if not force and (digest is None or digest == self._now[name].digest or is_refused):
                continue
            try:
                new = self._made(name, folder)
                self.warm(new)
            except Exception as error:
                reason = str(error) if isinstance(error, SeeWhyError) else type(error).__name__
                self._refused[name] = files, time.monotonic()
                self.metrics.reloads.labels(name, "refused").inc()
                if self.problems.get(name) != reason:
                    _logger.warning("model %r could not be reloaded, so the old one is still used: %s", name, reason)
                self.problems[name] = reason
            else:
                self._take(new)

    def _take(self, new: Model) -> None:
        with self._lock:
            old, self._now[new.name] = self._now[new.name], new
        self.problems.pop(new.name, None)
        self._refused.pop(new.name, None)
        self.metrics.reloads.labels(new.name, "taken").inc()
        _logger.warning("model %r was reloaded: %s", new.name, new.digest[:12])
        old.retire(self.settings.request_seconds)

    def close(self) -> None:
        for model in self.all():
            model.worker.close()


def files_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return the name, size and time of each file."""
    try:
        found = [(path.name, path.stat()) for path in folder.iterdir()]
    except OSError:  # a file vanished in between; the next listing differs
        return []
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in found)


class Reloader:
    """A thread that reloads changed models at intervals, and on a signal."""

    def __init__(self, models: Models, seconds: float) -> None:
        self.models = models
        self.seconds = seconds
        self._told = threading.Event()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="seewhy-reload", daemon=True)

    def start(self) -> None:
        if self.models.folders:
            self._thread.start()

    def tell(self) -> None:
        self._told.set()

    def close(self) -> None:
        self._open = False
        self._told.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while self._open:
            told = self._told.wait(self.seconds or None)
            self._told.clear()
            if self._open:
                self.models.reload(force=told)


T = TypeVar("T")


class ClientGone(Exception):
    """Raised when a client disconnects before its answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of the work; cancel it if the client disconnects."""

    async def left() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.1)

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


def state(what: str, yes: bool, **more: str) -> JSONResponse:
    return JSONResponse({**more, what: yes}, 200 if yes else 503)


class Service:
    def __init__(self, settings: ServiceSettings, models: Models, metrics: Metrics, log: AccessLog) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics
        self.log = log
        models.warm = self.warm
        self.draining = False
        self.n_running = 0
        self.reloader = Reloader(models, settings.reload_seconds)
        self._heads = ThreadPoolExecutor(2, thread_name_prefix="seewhy-head")

    def counts(self) -> bytes:
        for model in self.models.all():
            self.metrics.waiting.labels(model.name).set(model.worker.n_waiting)
        for name in self.models.folders:
            self.metrics.stale.labels(name).set(name in self.models.problems)
        self.metrics.running.set(self.n_running)
        return self.metrics.text()

    @property
    def is_alive(self) -> bool:
        """Return whether every model's worker thread is alive."""
        return all(model.worker.is_alive for model in self.models.all())

    @property
    def is_ready(self) -> bool:
        return self.is_alive and not self.draining

    def wake(self) -> None:
        for model in self.models.all():
            self.warm(model)

    def warm(self, model: Model) -> None:
        """Answer one request and a full batch as clients send them, so that no first request is slow."""
        asyncio.run(self._warm(model))

    async def _warm(self, model: Model) -> None:
        height, width = model.classifier.encoder.transform.input_size
        file, web = io.BytesIO(), self.settings.web
        Image.new("RGB", (width, height), "grey").save(file, "JPEG")
        for n in (1, min(web.batch, web.n_waiting)):
            with contextlib.suppress(SeeWhyError):  # a model that cannot explain may still predict
                looks = await asyncio.gather(*(self._look(model, file.getvalue(), "warm") for _ in range(n)))
                seen = [look for look in looks if isinstance(look, Encoded)]
                await self.decide(model, seen, 5)
                for card in await self.explain(model, seen[:1], ExplainOptions(measure=False)):
                    await self.aside(card.to_html)

    def close(self) -> None:
        self.reloader.close()
        self.models.close()
        self._heads.shutdown(wait=False, cancel_futures=True)
        self.log.close()

    async def look(self, model: Model, pictures: Sequence[tuple[bytes, str]]) -> list[Encoded | Failure]:
        """Decode and encode pictures; an unreadable picture becomes a failure."""
        looks = [asyncio.ensure_future(self._look(model, data, name)) for data, name in pictures]
        try:
            found = await asyncio.gather(*looks)
        finally:
            for look in looks:  # if one is refused, the rest of its request is cancelled
                look.cancel()
        failed = sum(isinstance(one, Failure) for one in found)
        self.metrics.pictures.labels(model.name, "failed").inc(failed)
        self.metrics.pictures.labels(model.name, "answered").inc(len(found) - failed)
        return found

    async def _look(self, model: Model, data: bytes, name: str) -> Encoded | Failure:
        try:
            return await model.worker.see(data, name)
        except ImageError as error:
            return Failure(name, error.reason)

    async def aside(self, job: Callable[[], T]) -> T:
        """Run a short job in another thread, so that it does not block the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._heads, job)

    async def probabilities(self, model: Model, pooled: Tensor) -> Tensor:
        """Return the probabilities of all classes, one row per picture."""

        def make() -> Tensor:
            with beside(model.classifier.encoder.engine.name), torch.no_grad():
                return model.classifier.head.probabilities(pooled)

        return await self.aside(make)

    async def decide(self, model: Model, seen: Sequence[Encoded], top: int) -> list[Prediction]:
        """Return each picture's prediction."""
        judge, rows = model.classifier.prediction, await self.probabilities(model, torch.cat([s.pooled for s in seen]))
        decided = zip(seen, rows, strict=True)
        return await self.aside(lambda: [judge(s.name, p, top, s.pooled[0]) for s, p in decided])

    async def explain(self, model: Model, seen: Sequence[Encoded], options: ExplainOptions) -> list[Explanation]:
        """Return each picture's explanation, computed as separate jobs so that other requests run in between."""

        def job(one: Encoded) -> Callable[[], Explanation]:
            return lambda: next(explain_seen(model.classifier, [one], options)).without_folders()

        return list(await asyncio.gather(*(asyncio.wrap_future(model.worker.do(job(one))) for one in seen)))
