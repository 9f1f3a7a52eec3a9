"""pytorch-grad-cam's tutorials with the import line changed, on networks with random weights and small pictures."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN, AblationLayerVit
from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirstAverage
from pytorch_grad_cam.refine_cam import RefineCAM
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform
from torch import Tensor, nn

from seewhy import compat
from seewhy.compat import (
    AblationCAM,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    EigenCAM,
    EigenGradCAM,
    FasterRCNNBoxScoreTarget,
    GradCAM,
    GradCAMPlusPlus,
    RandomCAM,
    SemanticSegmentationTarget,
)

IMAGE = np.float32(np.random.default_rng(0).random((64, 96, 3)))
INPUT = preprocess_image(IMAGE, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def shown(maps: np.ndarray) -> np.ndarray:
    assert maps.shape == (1, 64, 96)
    return show_cam_on_image(IMAGE, maps[0, :], use_rgb=True)


def pyramid(maps: dict[str, Tensor]) -> Tensor:
    """Their transform for Faster R-CNN, said for any number of levels."""
    size = maps["pool"].shape[-2:]
    return torch.cat([nn.functional.interpolate(m.abs(), size, mode="bilinear") for m in maps.values()], 1)


def test_object_detection() -> None:
    torch.manual_seed(0)
    build = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn
    model = build(weights=None, weights_backbone=None, num_classes=4, min_size=64, box_score_thresh=0.0).eval()
    outputs = model(INPUT)
    boxes, labels = np.int32(outputs[0]["boxes"][:3].detach().numpy()), outputs[0]["labels"][:3].numpy()
    targets = [FasterRCNNBoxScoreTarget(labels=labels, bounding_boxes=boxes)]
    shown(EigenCAM(model, [model.backbone], reshape_transform=pyramid)(INPUT, targets=targets))
    cam = AblationCAM(
        model,
        [model.backbone],
        reshape_transform=pyramid,
        ablation_layer=AblationLayerFasterRCNN(),
        ratio_channels_to_ablate=0.01,
    )
    shown(cam(INPUT, targets=targets))


def test_semantic_segmentation() -> None:
    class SegmentationModelOutputWrapper(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)["out"]

    torch.manual_seed(0)
    build = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    model = SegmentationModelOutputWrapper(build(weights=None, weights_backbone=None)).eval()
    mask = np.float32(model(INPUT)[0].argmax(0).numpy() == 12)
    targets = [SemanticSegmentationTarget(12, mask + 1)]
    with GradCAM(model=model, target_layers=[model.model.backbone["16"]]) as cam:
        shown(cam(input_tensor=INPUT, targets=targets))


@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM", "ScoreCAM", "EigenCAM", "FullGrad"])
def test_vision_transformers(name: str) -> None:
    """``usage_examples/vit_example.py``."""
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", depth=2, embed_dim=48, num_heads=3, num_classes=10).eval()
    options = {"ablation_layer": AblationLayerVit()} if name == "AblationCAM" else {}
    method = getattr(compat, name)
    cam = method(
        model=model, target_layers=[model.blocks[-1].norm1], reshape_transform=vit_reshape_transform, **options
    )
    cam.batch_size = 32
    batch = torch.randn(1, 3, 224, 224)
    maps = cam(input_tensor=batch, targets=None, eigen_smooth=name != "FullGrad", aug_smooth=False)
    assert maps.shape == (1, 224, 224)
    without = method(model=model, target_layers=[model.blocks[-1].norm1])
    np.testing.assert_allclose(without(batch, eigen_smooth=name != "FullGrad"), maps, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # their ROAD gives NumPy a tensor
def test_metrics_and_tuning() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    layers = [model.layer3[-1], model.layer4[-1]]
    for method in (GradCAM, GradCAMPlusPlus, EigenGradCAM, RandomCAM):
        with method(model=model, target_layers=layers) as cam:
            attributions = cam(input_tensor=INPUT, targets=[ClassifierOutputTarget(5)], eigen_smooth=True)
            assert cam.outputs.shape == (1, 10)
        shown(attributions)
        targets = [ClassifierOutputSoftmaxTarget(5)]
        scores, seen = CamMultImageConfidenceChange()(INPUT, attributions, targets, model, return_visualization=True)
        assert np.isfinite(scores).all()
        assert seen[0].shape == (3, 64, 96)
        road = ROADMostRelevantFirstAverage(percentiles=[40, 80])
        assert np.isfinite(road(INPUT, attributions, targets, model)).all()
    shown(RefineCAM(model=model, target_layers=layers, base_method=GradCAM)(INPUT, [ClassifierOutputTarget(5)]))


def test_embeddings() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torchvision.models.resnet18(weights=None)
            self.body = nn.Sequential(*list(self.model.children())[:-1])

        def __call__(self, x: Tensor) -> Tensor:
            return self.body(x)[:, :, 0, 0]

    class SimilarityToConceptTarget:
        def __init__(self, features: Tensor) -> None:
            self.features = features

        def __call__(self, model_output: Tensor) -> Tensor:
            return nn.CosineSimilarity(dim=0)(model_output, self.features)

    torch.manual_seed(0)
    model = Embedding().eval()
    concept = model(torch.randn(1, 3, 64, 96))[0].detach()
    with GradCAM(model=model, target_layers=[model.model.layer4[-1]]) as cam:
        shown(cam(input_tensor=INPUT, targets=[SimilarityToConceptTarget(concept)]))
