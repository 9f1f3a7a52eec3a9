"""Like what: patches of the user's own pictures that a region of this picture resembles."""

from ..registry import Registry
from .base import Prototypes

prototypes: Registry[Prototypes] = Registry("prototype", __name__, ("nearest",))

__all__ = ["Prototypes", "prototypes"]
