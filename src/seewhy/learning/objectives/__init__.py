"""Training objectives."""

from ...registry import Registry
from .contrastive import Contrastive, Objective

objectives: Registry[Objective] = Registry("objective", __name__, ("pairs", "regional", "vectors"))

__all__ = ["Contrastive", "Objective", "objectives"]
