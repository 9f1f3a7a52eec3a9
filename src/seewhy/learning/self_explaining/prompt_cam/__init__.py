"""Prompt-CAM: a vision transformer with class prompts."""
