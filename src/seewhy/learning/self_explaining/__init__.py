"""Classifiers with a built-in explanation."""
