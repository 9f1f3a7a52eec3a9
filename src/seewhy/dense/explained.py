"""What finds parts of pictures explains them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from ..arguments import Count, checked
from ..descriptions.base import Words
from ..explanation.base import Explanation
from ..keywords import ExplainKeywords
from ..pictures.sources import One
from ..storage.features import FeatureStore


class ExplainsParts:
    """Explains the parts of a picture that it finds: a detector its boxes, a segmenter its segments."""

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
        """Boxes or segments explained: where, like what, in words, and what comes from outside; each measured."""
        from .part_examples import explain_parts

        finder: Any = self
        return explain_parts(finder, picture, most, descriptions, known, store, **options)
