"""Segments and boxes by words: what is where in a picture, with results of its own."""

from typing import Any

from ..registry import Registry

segmenters: Registry[Any] = Registry("segmenter", __name__, ("maskclip",))

from .segmentation import Segment, Segmentation  # noqa: E402
from .segmenter import Segmenter  # noqa: E402

__all__ = ["Segment", "Segmentation", "Segmenter", "segmenters"]
