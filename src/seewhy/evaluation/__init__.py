"""How good a classifier is, and how far its explanations and figures can be trusted."""

from .figures import FURTHER
from .report import Report, evaluate

__all__ = ["FURTHER", "Report", "evaluate"]
