"""What Prometheus reads: requests, pictures, batches, models, this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
Readings = Callable[[], Iterable[tuple[str, str, float]]]
"""→ metric, model, value: what is looked up when somebody asks."""


class Metrics:
    """Counts of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter(
            "seewhy_requests", "Requests answered.", ("path", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "seewhy_request_seconds",
            "From head to answer.",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self.pictures = Counter("seewhy_pictures", "Pictures, by outcome.", ("model", "outcome"), registry=registry)
        self.batch = Histogram(
            "seewhy_batch_pictures", "Pictures looked at together.", ("model",), buckets=SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "seewhy_batch_seconds", "Time in the engine.", ("model",), buckets=SECONDS, registry=registry
        )
        self.reloads = Counter("seewhy_reloads", "Models loaded again.", ("model", "outcome"), registry=registry)
        self.running = Gauge("seewhy_running", "Requests that are being answered.", registry=registry)
        self.lines_dropped = Counter(
            "seewhy_log_lines_dropped", "Lines of the access log that could not be written.", registry=registry
        )

    def watch(self, readings: Readings) -> None:
        """Look these up whenever somebody asks."""
        self.registry.register(_Readings(readings))

    def text(self) -> bytes:
        """Prometheus' own text format."""
        return generate_latest(self.registry)


class _Readings(Collector):
    def __init__(self, readings: Readings) -> None:
        self.readings = readings

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, model, value in self.readings():
            families.setdefault(name, GaugeMetricFamily(name, "Of each model, now.", labels=("model",)))
            families[name].add_metric((model,), value)
        return families.values()
