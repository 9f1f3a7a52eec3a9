"""Agreement with the authors' code and with other libraries, where the definitions are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.metrics import metrics
from seewhy.metrics.base import Case, ranks
from seewhy.metrics.removal import blurred, filled, impute

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("mode", "metric"),
    [("del", metrics["deletion"]()), ("ins", metrics["insertion"](fill="mean")), ("ins_blur", metrics["insertion"]())],
)
def test_curves_of_the_rise_authors(mode: str, metric: Any) -> None:
    expected = golden("rise")
    rng = np.random.RandomState(expected["seed"])
    pictures = torch.tensor(rng.randn(6, 3, 32, 32), dtype=torch.float32)
    weights = torch.tensor(rng.randn(5, 3072) * 0.05, dtype=torch.float32)
    maps = [torch.tensor(rng.permutation(1024).reshape(1, 32, 32), dtype=torch.float32) for _ in range(6)]

    def model(x: Tensor) -> Tensor:
        return (x.flatten(1) @ weights.T).softmax(1)

    found = [metric(model, p, m, int(model(p[None]).argmax()))[0] for p, m in zip(pictures, maps, strict=True)]
    values = expected["values"][mode]
    assert [c.value for c in found] == pytest.approx(values["areas"], abs=expected["tolerance"])
    assert found[0].parts["values"] == pytest.approx(values["first_curve"], abs=expected["tolerance"])


def test_blur_of_the_rise_authors() -> None:
    """Their kernel is no plain Gaussian, and beyond their border lie zeros; ours with reflected borders is another."""
    expected = golden("rise")
    point = torch.zeros(3, 21, 21)
    point[:, 10, 10] = 1
    kernel = blurred(point)[0, 5:16, 5:16]
    assert kernel[0].tolist() == pytest.approx(expected["kernel_row"], abs=1e-7)
    assert kernel[5].tolist() == pytest.approx(expected["kernel_middle"], abs=1e-7)
    rng = np.random.RandomState(expected["seed"])
    picture = torch.tensor(rng.randn(6, 3, 32, 32), dtype=torch.float32)[0]
    theirs = torch.tensor(expected["blurred_first"])
    torch.testing.assert_close(filled(picture, "blur")[0, [0, 5, 16], :8], theirs, atol=1e-6, rtol=0)
    assert (filled(picture, "blur_reflected")[0, [0, 5, 16], :8] - theirs).abs().max() > 0.05


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("sparsity", "Sparseness"),
        ("complexity", "Complexity"),
        ("energy_pointing_game", "RelevanceMassAccuracy"),
        ("energy_pointing_game", "AttributionLocalisation"),
        ("pointing_game", "PointingGame"),
    ],
)
def test_quantus(name: str, theirs: str) -> None:
    expected = golden("quantus")
    rng = np.random.RandomState(expected["seed"])
    maps = torch.tensor(rng.rand(12, 1, 16, 16)[:, 0], dtype=torch.float32)
    rng.rand(12, 3, 16, 16)
    found = []
    for one in maps:
        row, column = rng.randint(0, 10, 2)
        mask = torch.zeros(16, 16, dtype=torch.bool)
        mask[row : row + 6, column : column + 5] = True
        found.append(metrics[name]()(lambda x: x, torch.zeros(3, 16, 16), one[None], 0, mask=mask)[0].value)
    assert found == pytest.approx(expected["values"][theirs], abs=expected["tolerance"])


@pytest.fixture
def peer() -> Any:
    return pytest.importorskip("pytorch_grad_cam")


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4))
        network = nn.Sequential(*layers).eval().requires_grad_(False)
        network[-1].weight *= 20
        return network


def distinct(n: int, side: int, seed: int = 0) -> Tensor:
    """Maps in 0…1 without ties, smooth enough to leave real holes."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 1, 5, 5, generator=rng)
    maps = torch.nn.functional.interpolate(small, (side, side), mode="bicubic")[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_imputation_is_pytorch_grad_cams(peer: Any, fraction: float) -> None:
    """Their direct solver and our conjugate gradients fill the same holes alike, noise left out."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    pixels = torch.randn(3, 40, 36, generator=torch.Generator().manual_seed(1))
    places = ranks(distinct(1, 40)[:, :, :36].contiguous(), (40, 36), 0)
    missing = places < fraction * 40 * 36
    theirs = NoisyLinearImputer(noise=0)(pixels, (~missing[0]).float())
    torch.testing.assert_close(impute(pixels, missing, tolerance=1e-6)[0], theirs, atol=1e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_road_is_pytorch_grad_cams(peer: Any, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Combined over the same percentiles; their noise, which cannot be seeded apart, is switched off."""
    from pytorch_grad_cam.metrics import road
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    monkeypatch.setattr(road.NoisyLinearImputer, "__init__", lambda self: setattr(self, "noise", 0.0))
    pictures = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    maps = distinct(5, 32)
    targets = [ClassifierOutputSoftmaxTarget(1)] * 5
    theirs = road.ROADCombined(percentiles=[20, 50, 80])(pictures, maps.numpy(), targets, network)
    metric = metrics["road"](fractions=(0.2, 0.5, 0.8), noise=0.0)
    ours = [
        metric(lambda x: network(x).softmax(1), p, m[None], 1)[0].value for p, m in zip(pictures, maps, strict=True)
    ]
    assert ours == pytest.approx(theirs.tolist(), abs=2e-3)


def test_drop_and_increase_are_pytorch_grad_cams(peer: Any, network: nn.Module) -> None:
    """Theirs is the absolute drop; divided by the confidence and in per cent it is the average drop."""
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    pictures = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    maps = distinct(8, 32)
    targets = [ClassifierOutputSoftmaxTarget(1)] * 8
    drop = DropInConfidence()(pictures, maps[:, None].numpy(), targets, network)
    rise = IncreaseInConfidence()(pictures, maps[:, None].numpy(), targets, network)

    def probability(x: Tensor) -> Tensor:
        return network(x).softmax(1)

    p = probability(pictures)[:, 1]
    for i in range(8):
        case = Case(probability, pictures[i], 1)
        (ours,) = metrics["average_drop"]().measure(case, maps[i : i + 1])
        assert ours.value == pytest.approx(100 * float(drop[i] / p[i]), abs=1e-3)
        (ours,) = metrics["average_increase"]().measure(case, maps[i : i + 1])
        assert ours.value == 100 * float(rise[i])
