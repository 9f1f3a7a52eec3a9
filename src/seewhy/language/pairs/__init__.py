"""What of a set of pictures with texts is worth learning from, by rules that are each chosen by name."""

from .checking import Checked, Cleaned, check, clean
from .filters import Rule, rules

__all__ = ["Checked", "Cleaned", "Rule", "check", "clean", "rules"]
