"""Descriptions of classes and their vectors."""

from .base import Descriptions, WordBank

__all__ = ["Descriptions", "WordBank"]
