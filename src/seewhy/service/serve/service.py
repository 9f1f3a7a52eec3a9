"""What the service stands on: models, decoder, counts; every computation of a request is one method here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...encoders.stream import Encoded
from ...errors import ImageError, SeeWhyError
from ...evidence.explain import ExplainOptions, explain_seen
from ...explanation.base import Explanation
from ...threads import beside
from ...types import Failure
from ..app.decoder import decoder_with
from .access_log import AccessLog
from .metrics import Metrics
from .models import Model, Models, Reloader
from .settings import ServiceSettings

T = TypeVar("T")


class Service:
    """All that is behind the addresses.

    Args:
        settings: limits.
        models: what is asked.
        metrics: what is counted.
        log: where a line per request goes.
    """

    def __init__(self, settings: ServiceSettings, models: Models, metrics: Metrics, log: AccessLog) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics
        self.log = log
        self.draining = False
        self.n_running = 0
        self.reloader = Reloader(models, settings.reload_seconds)
        self.decoder = decoder_with(settings.web.decode_seconds, settings.web.n_waiting)
        self._heads = ThreadPoolExecutor(2, thread_name_prefix="seewhy-head")
        metrics.watch(self._readings)

    def _readings(self) -> list[tuple[str, str, float]]:
        waiting = [("seewhy_waiting", model.name, float(model.worker.n_waiting)) for model in self.models.all()]
        stale = [("seewhy_stale", name, float(name in self.models.problems)) for name in self.models.folders]
        return waiting + stale

    @property
    def is_alive(self) -> bool:
        """Whether every model still computes."""
        return all(model.worker.is_alive for model in self.models.all())

    @property
    def is_ready(self) -> bool:
        """Whether new requests are taken."""
        return self.is_alive and not self.draining

    def wake(self) -> None:
        """Make one card, so that no client waits until all that draws one is loaded."""
        for model in self.models.all():
            shape = (*model.classifier.encoder.transform.input_size, 3)
            with contextlib.suppress(SeeWhyError):  # what cannot be explained may still decide
                model.classifier.explain(np.zeros(shape, np.uint8), measure=False).to_html()

    def close(self) -> None:
        self.reloader.close()
        self.models.close()
        self._heads.shutdown(wait=False, cancel_futures=True)
        self.log.close()

    async def look(self, model: Model, pictures: Sequence[tuple[bytes, str]]) -> list[Encoded | Failure]:
        """Decode and look at pictures; a broken one is a failure of its own, and the others go on.

        Raises:
            BusyError: more waits than is kept.
        """
        looks = [asyncio.ensure_future(self._look(model, data, name)) for data, name in pictures]
        try:
            found = await asyncio.gather(*looks)
        finally:
            for look in looks:  # one that is turned away takes the rest of its request with it
                look.cancel()
        failed = sum(isinstance(one, Failure) for one in found)
        self.metrics.pictures.labels(model.name, "failed").inc(failed)
        self.metrics.pictures.labels(model.name, "answered").inc(len(found) - failed)
        return found

    async def _look(self, model: Model, data: bytes, name: str) -> Encoded | Failure:
        try:
            transform = model.classifier.encoder.transform
            with model.worker.coming():
                picture = await asyncio.wrap_future(self.decoder.read(data, name, transform))
                look = model.worker.look(picture, name)
            return await asyncio.wrap_future(look)
        except ImageError as error:
            return Failure(name, error.reason)

    async def aside(self, job: Callable[[], T]) -> T:
        """Run what is short, but too long for the loop that serves everybody: a head, a large JSON."""
        return await asyncio.get_running_loop().run_in_executor(self._heads, job)

    async def probabilities(self, model: Model, pooled: Tensor) -> Tensor:
        """Of all classes, a row per picture."""

        def make() -> Tensor:
            with beside(model.classifier.encoder.engine.name), torch.no_grad():
                return model.classifier.head.probabilities(pooled)

        return await self.aside(make)

    async def explain(self, model: Model, seen: Sequence[Encoded], options: ExplainOptions) -> list[Explanation]:
        """Each picture's evidence; a job each, so that others have their turn between them."""

        def job(one: Encoded) -> Callable[[], Explanation]:
            return lambda: next(explain_seen(model.classifier, [one], options)).without_folders()

        return list(await asyncio.gather(*(asyncio.wrap_future(model.worker.do(job(one))) for one in seen)))

    async def encode(self, model: Model, pixels: Tensor) -> Tensor:
        """Features of pixels that a client made ready itself."""
        encoder, most = model.classifier.encoder, self.settings.web.batch

        def make() -> Tensor:
            return torch.cat([encoder.pooled(part) for part in pixels.split(most)])

        return await asyncio.wrap_future(model.worker.do(make))
