"""Where: methods that show which part of the picture speaks for a class."""

from ..registry import Registry
from .base import Attribution

attributions: Registry[Attribution] = Registry("attribution", __name__, ("grad_cam",))

__all__ = ["Attribution", "attributions"]
