"""Prompt-CAM: a prompt for each class, whose attention is the evidence."""
