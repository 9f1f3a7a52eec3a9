"""Audits: a contract sets limits for a classifier, and an audit says whether it stays within them."""

from .audit import Audit, audit

__all__ = ["Audit", "audit"]
