"""Where: methods that show which part of the picture speaks for a class."""

from ..registry import Registry
from .base import Attribution

attributions: Registry[Attribution] = Registry(
    "attribution",
    __name__,
    (
        "ablation_cam",
        "attention_rollout",
        "chefer",
        "seewhy.learning.self_explaining.comet.attribution",
        "eigen_cam",
        "eigen_grad_cam",
        "finer_cam",
        "full_grad",
        "gloria_attention",
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
        "seewhy.learning.self_explaining.prompt_cam.attribution",
        "seewhy.learning.self_explaining.protopnet.attribution",
        "rise",
        "score_cam",
        "shapley_cam",
        "smooth_grad",
        "t_tame",
        "xgrad_cam",
    ),
)

__all__ = ["Attribution", "attributions"]
