"""COMET: a classifier of masked pictures."""
