"""Objectives: what is made small while an encoder or what stands behind it is trained."""

from ..registry import Registry
from .base import Alignment, Objective

objectives: Registry[Objective] = Registry("objective", __name__, ("gist", "gpt4image"))

__all__ = ["Alignment", "Objective", "objectives"]
