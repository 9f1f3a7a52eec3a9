"""In words: descriptions of classes, and how a picture scores on each."""

from .base import Descriptions, WordBank

__all__ = ["Descriptions", "WordBank"]
