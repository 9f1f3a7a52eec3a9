"""Numbers that say which explanations to believe."""

from ..registry import Registry
from .base import Metric

metrics: Registry[Metric] = Registry(
    "metric",
    __name__,
    (
        "average_drop",
        "average_gain",
        "average_increase",
        "complexity",
        "deletion",
        "efficient_model_randomisation",
        "energy_pointing_game",
        "faithfulness_correlation",
        "infidelity",
        "insertion",
        "iou_localisation",
        "irof",
        "max_box_acc",
        "max_sensitivity",
        "model_randomisation",
        "mosaic_focus",
        "pixel_ap",
        "pixel_flipping",
        "pointing_game",
        "random_logit",
        "road",
        "sensitivity_n",
        "smooth_model_randomisation",
        "sparsity",
    ),
)

__all__ = ["Metric", "metrics"]
