"""Rules that filter image-text pairs."""

from .checking import Checked, Cleaned, check, clean
from .filters import Rule, rules

__all__ = ["Checked", "Cleaned", "Rule", "check", "clean", "rules"]
