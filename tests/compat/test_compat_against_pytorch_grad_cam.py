"""Every method of pytorch-grad-cam on one small network, theirs and ours: batches, pictures that are not square, two
layers, smoothing, targets. Where a decomposition leaves the sign open, theirs is given the sign that ours has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import pytorch_grad_cam as peers
import torch
from pytorch_grad_cam.utils import model_targets
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor, nn

from seewhy import compat

GRADIENT = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise", "ShapleyCAM")
WEIGHED = (*GRADIENT, "ScoreCAM", "AblationCAM", "RandomCAM")
ALL = (*WEIGHED, "EigenCAM", "EigenGradCAM", "KPCA_CAM", "SegEigenCAM", "FEM", "FullGrad", "FinerCAM")
CLOSE = 2e-5


class Small(nn.Module):
    """Two stages with biases, the second of another size, and a head that bends, all logits above 0."""

    def __init__(self, n_colours: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(n_colours, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 6))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.second(self.first(pixels)).mean((2, 3))) + 4


@pytest.fixture
def network() -> nn.Module:
    return small()


def small(n_colours: int = 3) -> nn.Module:
    torch.manual_seed(0)
    model = Small(n_colours)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for numbers in (part.running_mean, part.weight.data, part.bias.data):
                numbers.normal_(0.3, 0.5)
            part.running_var.uniform_(0.2, 0.6)
    for parameter in model.head.parameters():
        parameter.data.mul_(3)
    return model.eval()


def pixels(n: int = 3, height: int = 24, width: int = 40, n_colours: int = 3) -> Tensor:
    return torch.randn(n, n_colours, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def our_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their decompositions, turned over where they correlate negatively with what ours are held to."""

    def turning(project: Callable, strength: Callable[[np.ndarray], np.ndarray]) -> Callable:
        def turned(activations: np.ndarray, *options: object) -> np.ndarray:
            found, like = project(activations, *options), strength(activations)
            return np.stack([-m if (m * s).sum() < 0 else m for m, s in zip(found, like, strict=True)])

        return turned

    for name in ("base_cam", "eigen_grad_cam", "layer_cam", "hirescam", "grad_cam_elementwise", "fullgrad_cam"):
        module = getattr(peers, name)
        monkeypatch.setattr(module, "get_2d_projection", turning(module.get_2d_projection, lambda a: a.sum(1)))
    for name, function in (("eigen_cam", "get_2d_projection"), ("kpca_cam", "get_2d_projection_kernel")):
        module = getattr(peers, name)
        monkeypatch.setattr(module, function, turning(getattr(module, function), lambda a: np.abs(a).mean(1)))


def both(
    name: str,
    model: nn.Module,
    layers: Callable[[nn.Module], list[nn.Module]],
    batch: Tensor,
    targets: list | None = None,
    **options: object,
) -> tuple[np.ndarray, np.ndarray]:
    twin = copy.deepcopy(model)
    np.random.seed(0)
    if name == "ShapleyCAM":  # theirs stops at the second layer, whose graph it has freed
        ones = []
        for layer in layers(twin):
            cam = peers.ShapleyCAM(twin, [layer])
            cam.aggregate_multi_layers = lambda maps: maps[0][:, 0]
            ones.append(cam(batch.clone(), targets, **options))
        expected = scale_cam_image(np.mean(ones, 0))
    else:
        expected = getattr(peers, name)(twin, layers(twin))(batch.clone(), targets, **options)
    np.random.seed(0)
    ours = getattr(compat, name)(model, layers(model))
    return ours(batch, targets, **options), expected


def two(model: nn.Module) -> list[nn.Module]:
    return [model.first, model.second]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layers", [lambda m: [m.second], two], ids=["one", "two"])
def test_maps_are_theirs(name: str, layers: Callable, network: nn.Module) -> None:
    ours, theirs = both(name, network, layers, pixels())
    assert ours.shape == (3, 24, 40)
    assert (theirs.max((1, 2)) > 0.9).sum() >= 2
    np.testing.assert_allclose(ours, theirs, atol=CLOSE)


@pytest.mark.parametrize("name", WEIGHED)
def test_eigen_smoothing_is_theirs(name: str, network: nn.Module) -> None:
    ours, theirs = both(name, network, two, pixels(), eigen_smooth=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_eigen_smoothing_of_every_bias_is_theirs(network: nn.Module) -> None:
    ours, theirs = both("FullGrad", network, two, pixels(2, 64, 96), eigen_smooth=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM", "EigenCAM", "ScoreCAM"])
@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_views_are_averaged_as_theirs(name: str, eigen_smooth: bool, network: nn.Module) -> None:
    ours, theirs = both(name, network, two, pixels(), aug_smooth=True, eigen_smooth=eigen_smooth)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_other_views_are_taken(network: nn.Module) -> None:
    import ttach

    views = ttach.Compose([ttach.VerticalFlip()])
    ours = compat.GradCAM(network, [network.second], tta_transforms=views)(pixels(), aug_smooth=True)
    with peers.base_cam.BaseCAM(network, [network.second], tta_transforms=views) as base:
        base.get_cam_weights = lambda *arguments: arguments[-1].mean((2, 3))
        theirs = base(pixels(), None, aug_smooth=True)
    np.testing.assert_allclose(ours, theirs, atol=CLOSE)


@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "AblationCAM", "FullGrad", "ShapleyCAM", "XGradCAM"])
@pytest.mark.parametrize("kind", ["ClassifierOutputSoftmaxTarget", "ClassifierOutputReST", "ClassifierOutputTarget"])
def test_targets_are_theirs(name: str, kind: str, network: nn.Module) -> None:
    ours, theirs = both(name, network, two, pixels(), [getattr(model_targets, kind)(c) for c in (0, 4, 2)])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    mine = getattr(compat, name)(network, two(network))(pixels(), [getattr(compat, kind)(c) for c in (0, 4, 2)])
    np.testing.assert_allclose(mine, ours, atol=1e-6)


def test_each_target_gives_their_number() -> None:
    row = torch.randn(6, generator=torch.Generator().manual_seed(0))
    batch, one = torch.stack([row, row.flip(0)]), row[:1]
    grids = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    mask = np.float32(grids[0] > 0)
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [50, 50, 60, 60]])
    found = {
        "boxes": torch.tensor([[1.0, 0, 10, 9], [20, 20, 40, 31], [50, 50, 60, 60]]),
        "labels": torch.tensor([1, 2, 9]),
        "scores": torch.tensor([0.9, 0.5, 0.8]),
    }
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    for name, arguments, outputs in (
        ("ClassifierOutputTarget", (2,), (row, batch)),
        ("ClassifierOutputSoftmaxTarget", (2,), (row, batch)),
        ("ClassifierOutputReST", (2,), (row, batch)),
        ("BinaryClassifierOutputTarget", (0,), (one,)),
        ("BinaryClassifierOutputTarget", (1,), (one,)),
        ("SoftmaxOutputTarget", (), (row,)),
        ("RawScoresOutputTarget", (), (row,)),
        ("SemanticSegmentationTarget", (2, mask), (grids,)),
        ("FasterRCNNBoxScoreTarget", ([1, 2, 3], boxes), (found, empty)),
        ("FinerWeightedTarget", (2, [0, 5], 0.7), (row, batch)),
    ):
        for output in outputs:
            ours, theirs = getattr(compat, name)(*arguments), getattr(model_targets, name)(*arguments)
            torch.testing.assert_close(ours(output), theirs(output), msg=name)


def test_finer_cam_takes_their_arguments(network: nn.Module) -> None:
    for options in (
        {"alpha": 0.5, "comparison_categories": [1, 3]},
        {"target_idx": 2, "eigen_smooth": True},
        {"targets": [model_targets.ClassifierOutputTarget(c) for c in (1, 1, 3)]},
    ):
        twin = copy.deepcopy(network)
        theirs = peers.FinerCAM(twin, [twin.second], base_method=peers.XGradCAM)
        ours = compat.FinerCAM(network, [network.second], base_method=compat.XGradCAM)
        np.testing.assert_allclose(ours(pixels(), **options), theirs(pixels(), **options), atol=1e-4)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid", "cosine"])
def test_kernels_are_theirs(kernel: str, network: nn.Module) -> None:
    twin = copy.deepcopy(network)
    theirs = peers.KPCA_CAM(twin, [twin.second], kernel=kernel, gamma=0.02)(pixels(), None)
    ours = compat.KPCA_CAM(network, [network.second], kernel=kernel, gamma=0.02)(pixels())
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_one_colour_and_one_cell(name: str) -> None:
    """One cell has no contrast: the map is 0, as theirs is, and the log says so."""
    model = small(1)
    ours, theirs = both(name, model, lambda m: [m.second], pixels(2, 4, 4, 1))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_outputs_are_kept(network: nn.Module) -> None:
    for name in ALL:
        cam = getattr(compat, name)(network, [network.second])
        cam(pixels())
        torch.testing.assert_close(cam.outputs, network(pixels()).detach())


# Networks whose output is not (b, k)


class Segmenting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small().first
        self.scores = nn.Conv2d(8, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.interpolate(self.scores(self.body(pixels)), size=pixels.shape[2:], mode="bilinear")


@pytest.mark.parametrize("name", [*WEIGHED, "SegEigenCAM", "FullGrad", "EigenGradCAM"])
def test_segmentations_are_explained_as_theirs(name: str) -> None:
    torch.manual_seed(0)
    model = Segmenting().eval()
    model.scores.bias.data += 3
    masks = [np.float32(np.arange(24 * 40).reshape(24, 40) % (2 + i) == 0) for i in range(2)]
    targets = [model_targets.SemanticSegmentationTarget(i + 1, mask) for i, mask in enumerate(masks)]
    ours, theirs = both(name, model, lambda m: [m.body], pixels(2), targets)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


class Detecting(nn.Module):
    """A pyramid of two maps in a dict, and a list of dicts, as detectors give them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Pyramid()

    def forward(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        maps = self.backbone(pixels)
        found = []
        for fine, coarse in zip(maps["fine"], maps["coarse"], strict=True):
            score = fine.mean().sigmoid() + coarse[:3].mean().sigmoid()
            found.append(
                {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1]), "scores": score[None]}
            )
        return found


class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = small().first, small().second

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        fine = self.first(pixels)
        return {"fine": fine, "coarse": self.second(fine)}


def joined(maps: dict[str, Tensor]) -> Tensor:
    size = maps["coarse"].shape[2:]
    return torch.cat([nn.functional.interpolate(m.abs(), size=size, mode="bilinear") for m in maps.values()], 1)


@pytest.mark.parametrize("name", ["EigenCAM", "ScoreCAM", "KPCA_CAM", "FEM"])
def test_detections_are_explained_as_theirs(name: str) -> None:
    model = Detecting().eval()
    targets = [compat.FasterRCNNBoxScoreTarget([1], np.array([[0, 0, 10, 9]]))] * 2
    ours = getattr(compat, name)(model, [model.backbone], joined)(pixels(2), targets)
    theirs = getattr(peers, name)(model, [model.backbone], joined)(pixels(2), targets)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_channels_of_a_pyramid_are_ablated_as_theirs(share: float) -> None:
    """Their layer for it, told that the levels are these and that 0 is put where ours puts it."""

    class TheirPyramid(peers.AblationLayerFasterRCNN):
        def __call__(self, _: Tensor) -> dict[str, Tensor]:
            for row, channel in enumerate(self.indices[: len(self.activations["fine"])]):
                level, k = ("fine", channel) if channel < 8 else ("coarse", channel - 8)
                self.activations[level][row, k] = 0
            return self.activations

    model = Detecting().eval()
    for stage in (model.backbone.first, model.backbone.second):
        stage[1].bias.data += 1  # a channel that is 0 all over has no order with theirs
    targets = [compat.FasterRCNNBoxScoreTarget([1], np.array([[0, 0, 10, 9]]))] * 2
    options = {"ratio_channels_to_ablate": share, "batch_size": 8}
    ours = compat.AblationCAM(model, [model.backbone], joined, **options)(pixels(2), targets)
    theirs = peers.AblationCAM(model, [model.backbone], joined, TheirPyramid(), **options)(pixels(2), targets)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No progress bars."""
    for module in (peers.score_cam, peers.ablation_cam):
        monkeypatch.setattr(module.tqdm, "tqdm", lambda items: items)
