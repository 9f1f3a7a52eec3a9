"""Encoders: a picture becomes a feature map once; everything after is small."""

from .base import Encoder, GlobalAverage, Layout, Look, TextTower, TrainableText

__all__ = ["Encoder", "GlobalAverage", "Layout", "Look", "TextTower", "TrainableText"]
