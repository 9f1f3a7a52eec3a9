"""Search: the user's pictures found again by picture, by words, or by both; one folder, safe against crashes."""

from .adding import Entry
from .base import Index
from .query import Query
from .results import Hit, Results

__all__ = ["Entry", "Hit", "Index", "Query", "Results"]
