"""Numbers that say which explanations to believe."""

from ..registry import Registry
from .base import Metric

metrics: Registry[Metric] = Registry(
    "metric",
    __name__,
    ("complexity", "irof", "localisation", "masked_confidence", "pixel_curve", "random_sets", "randomised", "road"),
)

__all__ = ["Metric", "metrics"]
