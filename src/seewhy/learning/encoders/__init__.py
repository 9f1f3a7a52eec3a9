"""Encoders that SeeWhy trained on top of others."""
