"""Audits: compare a classifier with the limits of a contract."""

from .audit import Audit, audit

__all__ = ["Audit", "audit"]
