"""Objectives: what is made small while an encoder or what stands behind it is trained."""

from ...registry import Registry
from .base import Objective
from .contrastive import Contrastive

objectives: Registry[Objective] = Registry("objective", __name__, ("pairs", "regional", "vectors", "look", "pixpro"))

__all__ = ["Contrastive", "Objective", "objectives"]
