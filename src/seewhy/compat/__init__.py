"""For those who come from elsewhere: pytorch-grad-cam's calls, and Captum's and Quantus' explanations in our metrics.

``GradCAM(model=m, target_layers=[m.layer4[-1]])(input_tensor=x, targets=[ClassifierOutputTarget(281)])`` gives what
pytorch-grad-cam gives, ``(b, h, w)`` between 0 and 1. ``from_captum`` and ``from_quantus`` make an attribution of any
explanation function, for ``where=``, metrics and cards.
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
