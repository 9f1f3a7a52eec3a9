"""Audits: a contract says what a classifier must keep, and an audit says whether it does, figure by figure."""

from .audit import Audit, audit

__all__ = ["Audit", "audit"]
