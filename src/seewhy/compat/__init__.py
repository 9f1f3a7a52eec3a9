"""pytorch-grad-cam's classes, and attribution functions of Captum and Quantus.

``GradCAM(model=m, target_layers=[m.layer4[-1]])(input_tensor=x, targets=[ClassifierOutputTarget(281)])`` returns the
maps of pytorch-grad-cam, ``(b, h, w)`` between 0 and 1. ``from_captum`` and ``from_quantus`` turn an explanation
function into an attribution method for ``where=``, metrics and cards.
"""

from .base import (
    BinaryClassifierOutputTarget,
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    FinerWeightedTarget,
    PeerCAM,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
    SoftmaxOutputTarget,
)
from .captum import ClassifierModule, from_captum, from_quantus
from .methods import (
    FEM,
    KPCA_CAM,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RandomCAM,
    ScoreCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
