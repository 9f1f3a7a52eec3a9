"""Encoders, which map pictures to feature maps and vectors."""

from .base import Encoder, EncoderOutput, GlobalAverage, Layout, TextTower, TrainableText

__all__ = ["Encoder", "EncoderOutput", "GlobalAverage", "Layout", "TextTower", "TrainableText"]
