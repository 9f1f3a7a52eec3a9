"""A detector: pictures in, boxes with names out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Unpack

from ..arguments import Count, checked
from ..descriptions.base import Words
from ..errors import ImageError
from ..explanation.base import Explanation
from ..keywords import ExplainKeywords
from ..pictures.sources import One
from ..storage.features import FeatureStore
from ..types import Failure
from .detections import Detections


class Detector(ABC):
    """Finds what it was told to look for.

    Attributes:
        classes: what it looks for.
    """

    classes: tuple[str, ...]

    @checked
    def detect(self, picture: One) -> Detections:
        """What is in a picture, and where.

        Args:
            picture: a file name, pixels, or whatever else a picture may be given as (:mod:`seewhy.pictures.sources`).

        Raises:
            ImageError: it cannot be read.
        """
        found = next(iter(self.detect_all([picture])))
        if isinstance(found, Failure):
            raise ImageError(found.image, found.error)
        return found

    @checked
    def explain(
        self,
        picture: One,
        *,
        most: Count = 20,
        descriptions: Words | None = None,
        known: str | Path | None = None,
        store: FeatureStore | None = None,
        **options: Unpack[ExplainKeywords],
    ) -> list[Explanation]:
        """The boxes of a picture explained: where, like what, in words, and what comes from outside; each measured.

        Args:
            picture: a file name, pixels, or whatever else a picture may be given as (:mod:`seewhy.pictures.sources`).
            most: how many are explained: the surest.
            descriptions: sentences about the classes.
            known: pictures with boxes, masks or folders of one class each, to liken to.
            store: where sentences are kept between runs.
            **options: of :class:`seewhy.evidence.explain.ExplainOptions`.

        Returns:
            An explanation each, with its ``box``, which display themselves in a notebook.

        Raises:
            ImageError: the picture cannot be read.
            InputError: the detector does not score a box by the cells under it, or an option is not for boxes.
        """
        from .part_examples import explain_parts

        return explain_parts(self, picture, most, descriptions, known, store, **options)

    @abstractmethod
    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        """The same of many, in order; one that cannot be read never stops the others."""
