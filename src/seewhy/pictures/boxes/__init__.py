"""Pictures with boxes around what is in them: COCO, YOLO, VOC and CSV, read and written."""

from typing import Any

from ...registry import Registry

box_formats: Registry[Any] = Registry("box format", __name__, ("coco", "csv", "voc", "yolo"))

from .base import BoxData, BoxedPicture, BoxRecord, LeftOut  # noqa: E402
from .files import load_boxes, save_boxes  # noqa: E402

__all__ = ["BoxData", "BoxRecord", "BoxedPicture", "LeftOut", "box_formats", "load_boxes", "save_boxes"]
