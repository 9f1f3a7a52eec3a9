"""Search in pictures by picture, by words, or by both."""

from .index import Index
from .search import Hit, Query, Results
from .writing import Entry

__all__ = ["Entry", "Hit", "Index", "Query", "Results"]
