"""Classifiers: what turns a look into a decision for the user's own classes."""

from ..registry import Registry
from .recipe import Recipe

classifiers: Registry[Recipe] = Registry(
    "classifier",
    __name__,
    (
        "pretrained",
        "zero_shot",
        "described",
        "discriminative",
        "follow_up",
        "seewhy.classifiers.linear.recipe",
        "neighbours",
        "sparse_concepts",
    ),
)

__all__ = ["Recipe", "classifiers"]
