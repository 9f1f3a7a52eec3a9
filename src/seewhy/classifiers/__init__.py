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
        "seewhy.learning.adaptation.gist.recipe",
        "seewhy.learning.adaptation.gpt4image.recipe",
        "seewhy.learning.adaptation.prompt_learning.cocoop",
        "seewhy.learning.adaptation.prompt_learning.coop",
        "seewhy.learning.adaptation.prompt_learning.maple",
        "seewhy.learning.adaptation.prompt_learning.promptsrc",
        "seewhy.learning.adaptation.prompt_learning.promptsrc_towers",
        "seewhy.learning.adaptation.ogen.recipe",
        "neighbours",
        "sparse_concepts",
        "seewhy.learning.self_explaining.comet.recipe",
        "seewhy.learning.self_explaining.prompt_cam.recipe",
        "seewhy.learning.self_explaining.protopnet.recipe",
        "seewhy.learning.self_explaining.perceptual.recipe",
    ),
)

__all__ = ["Recipe", "classifiers"]
