"""Classifier heads and explanation targets."""
