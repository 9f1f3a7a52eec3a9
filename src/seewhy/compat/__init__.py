"""For those who come from elsewhere: pytorch-grad-cam's calls, and Captum's and Quantus' explanations in our metrics.

``GradCAM(model=m, target_layers=[m.layer4[-1]])(input_tensor=x, targets=[ClassifierOutputTarget(281)])`` gives what
pytorch-grad-cam gives, ``(b, h, w)`` between 0 and 1. ``from_captum`` and ``from_quantus`` make an attribution of any
explanation function, for ``where=``, metrics and cards. torch-cam's extractors are in :mod:`seewhy.compat.torch_cam`.
"""

from .ablation_cam import AblationCAM
from .activation_cam import FEM, KPCA_CAM, EigenCAM, RandomCAM, ScoreCAM
from .base import PeerCAM
from .captum import ClassifierModule, from_captum, from_quantus
from .grad_cam import (
    EigenGradCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from .targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    FinerWeightedTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
    SoftmaxOutputTarget,
)

__all__ = [
    "FEM",
    "KPCA_CAM",
    "AblationCAM",
    "BinaryClassifierOutputTarget",
    "ClassifierModule",
    "ClassifierOutputReST",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputTarget",
    "EigenCAM",
    "EigenGradCAM",
    "FasterRCNNBoxScoreTarget",
    "FinerCAM",
    "FinerWeightedTarget",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "PeerCAM",
    "RandomCAM",
    "RawScoresOutputTarget",
    "ScoreCAM",
    "SegEigenCAM",
    "SemanticSegmentationTarget",
    "ShapleyCAM",
    "SoftmaxOutputTarget",
    "XGradCAM",
    "from_captum",
    "from_quantus",
]
