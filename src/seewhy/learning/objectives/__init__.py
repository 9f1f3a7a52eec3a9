"""Objectives: what is made small while an encoder or what stands behind it is trained."""

from ...registry import Registry
from .base import Objective
from .contrastive import Contrastive

objectives: Registry[Objective] = Registry(
    "objective",
    __name__,
    (
        "align",
        "clip",
        "convirt",
        "cross_entropy",
        "dito",
        "dreamlip",
        "focal_contrastive",
        "focallens",
        "gist",
        "gloria",
        "gpt4image",
        "iis",
        "look",
        "medclip",
        "pixpro",
        "prefix",
        "siglip",
        "simclr",
        "supcon",
    ),
)

__all__ = ["Contrastive", "Objective", "objectives"]
