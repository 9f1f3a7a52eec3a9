"""Numbers that say which explanations to believe."""

from ..registry import Registry
from .base import Metric

metrics: Registry[Metric] = Registry("metric", __name__, ("deletion", "insertion"))

__all__ = ["Metric", "metrics"]
