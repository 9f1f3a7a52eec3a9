"""How good a classifier is, and how far its explanations and figures can be trusted."""

from .report import FURTHER, Report, evaluate

__all__ = ["FURTHER", "Report", "evaluate"]
