"""Attribution methods, which show the part of a picture that supports a class."""

from ..registry import Registry
from .base import Attribution

attributions: Registry[Attribution] = Registry(
    "attribution",
    __name__,
    (
        "ablation_cam",
        "attention_rollout",
        "chefer",
        "eigen_cam",
        "eigen_grad_cam",
        "finer_cam",
        "full_grad",
        "grad_cam",
        "grad_cam_elementwise",
        "grad_cam_plus_plus",
        "gradient_shap",
        "guided_grad_cam",
        "hires_cam",
        "input_x_gradient",
        "integrated_gradients",
        "kpca_cam",
        "layer_cam",
        "occlusion",
        "rise",
        "score_cam",
        "shapley_cam",
        "smooth_grad",
        "t_tame",
        "xgrad_cam",
    ),
)

__all__ = ["Attribution", "attributions"]
