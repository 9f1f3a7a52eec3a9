"""Segmentation and detection of objects by class names."""

from typing import Any

from ..registry import Registry

segmenters: Registry[Any] = Registry("segmenter", __name__, ("clipseg", "denseclip", "linear", "maskclip"))
detectors: Registry[Any] = Registry(
    "detector",
    __name__,
    ("detection.denseclip_boxes", "detection.dito", "detection.linear", "word_regions", "owlv2", "grounding_dino"),
)

from .finders import Detector, Segmenter  # noqa: E402
from .regions import Detections, Region, Segmentation  # noqa: E402

__all__ = ["Detections", "Detector", "Region", "Segmentation", "Segmenter", "detectors", "segmenters"]
