"""What of a set of pictures with texts is worth learning from, by rules that can be undone one by one."""

from ...registry import Registry
from .base import Rule

rules: Registry[Rule] = Registry("rule", __name__, ("filters",))

from .checking import Checked, Cleaned, check, clean  # noqa: E402
from .files import restore  # noqa: E402

__all__ = ["Checked", "Cleaned", "Rule", "check", "clean", "restore", "rules"]
