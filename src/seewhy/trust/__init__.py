"""Reliability of decisions: calibrated probabilities, conformal sets and detection of unknown classes."""
