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
        "seewhy.adaptation.gist.recipe",
        "seewhy.adaptation.gpt4image.recipe",
        "seewhy.adaptation.prompt_learning.cocoop",
        "seewhy.adaptation.prompt_learning.coop",
        "seewhy.adaptation.prompt_learning.maple",
        "seewhy.adaptation.prompt_learning.promptsrc",
        "seewhy.adaptation.prompt_learning.promptsrc_towers",
        "seewhy.adaptation.ogen.recipe",
        "neighbours",
        "sparse_concepts",
        "seewhy.classifiers.small_cnn.recipe",
        "seewhy.self_explaining.comet.recipe",
        "seewhy.self_explaining.prompt_cam.recipe",
        "seewhy.self_explaining.protopnet.recipe",
        "seewhy.self_explaining.perceptual.recipe",
    ),
)

__all__ = ["Recipe", "classifiers"]
