"""Encoders that were trained here on top of others."""
