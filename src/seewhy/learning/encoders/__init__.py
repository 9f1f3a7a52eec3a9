"""Encoders trained on top of others."""
