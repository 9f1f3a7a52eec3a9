"""Detailed descriptions of pictures, written by people in rounds (ImageInWords, arXiv 2405.02793)."""

from .records import ATTRIBUTES, BoxedObject, Picture, Version
from .rounds import StopRule
from .store import AnnotationStore

__all__ = ["ATTRIBUTES", "AnnotationStore", "BoxedObject", "Picture", "StopRule", "Version"]
