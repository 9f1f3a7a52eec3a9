"""Long lists, a page at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import Query

T = TypeVar("T")
PageNumber = Annotated[int, Query(ge=1, le=10**6, description="From 1; one that is not there is the last.")]


def paged(items: Sequence[T], page: int, size: int) -> tuple[int, int, Sequence[T]]:
    """The page's number, how many there are, and what is on it.

    >>> paged("abcde", 9, 2)
    (3, 3, 'e')
    """
    pages = max(1, math.ceil(len(items) / size))
    page = min(max(page, 1), pages)
    return page, pages, items[(page - 1) * size : page * size]
