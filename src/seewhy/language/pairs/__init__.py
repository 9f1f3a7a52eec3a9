"""What of a set of pictures with texts is worth learning from, by rules that can be undone one by one."""

from .checking import Checked, Cleaned, check, clean, restore
from .filters import Rule, rules

__all__ = ["Checked", "Cleaned", "Rule", "check", "clean", "restore", "rules"]
