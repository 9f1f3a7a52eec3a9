"""Encoders: a picture becomes a feature map once; everything after is small."""

from .base import Encoder, EncoderOutput, GlobalAverage, Layout, TextTower, TrainableText

__all__ = ["Encoder", "EncoderOutput", "GlobalAverage", "Layout", "TextTower", "TrainableText"]
