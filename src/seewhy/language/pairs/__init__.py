"""Rules that decide which pictures with texts are worth learning from; each can be chosen by name."""

from .checking import Checked, Cleaned, check, clean
from .filters import Rule, rules

__all__ = ["Checked", "Cleaned", "Rule", "check", "clean", "rules"]
