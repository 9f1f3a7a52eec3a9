"""Objectives: what is made small while an encoder or what stands behind it is trained."""

from ...registry import Registry
from .contrastive import Contrastive, Objective

objectives: Registry[Objective] = Registry("objective", __name__, ("pairs", "regional", "vectors"))

__all__ = ["Contrastive", "Objective", "objectives"]
