"""Search in the user's pictures by picture, by words, or by both; one folder, safe against crashes."""

from .index import Index
from .search import Hit, Query, Results
from .writing import Entry

__all__ = ["Entry", "Hit", "Index", "Query", "Results"]
