"""Evaluation of a classifier and of its explanations."""

from .figures import FURTHER
from .report import Report, evaluate

__all__ = ["FURTHER", "Report", "evaluate"]
