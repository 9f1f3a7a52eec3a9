"""A detector: pictures in, boxes with names out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from ..arguments import checked
from ..errors import ImageError
from ..pictures.sources import One
from ..types import Failure
from .detections import Detections
from .explained import ExplainsParts


class Detector(ExplainsParts, ABC):
    """Finds what it was told to look for.

    Attributes:
        classes: what it looks for.
    """

    classes: tuple[str, ...]

    @checked
    def detect(self, picture: One) -> Detections:
        """What is in a picture, and where."""
        found = next(iter(self.detect_all([picture])))
        if isinstance(found, Failure):
            raise ImageError(found.image, found.error)
        return found

    @abstractmethod
    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        """The same of many, in order; one that cannot be read never stops the others."""
