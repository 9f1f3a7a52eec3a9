"""Metrics of explanations."""

from ..registry import Registry
from .base import Metric

metrics: Registry[Metric] = Registry(
    "metric", __name__, ("complexity", "localisation", "random_sets", "randomised", "removal")
)

__all__ = ["Metric", "metrics"]
