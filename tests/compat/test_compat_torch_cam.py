"""torch-cam's calls; its own numbers on one small network, kept in ``tests/golden/torch_cam.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor
from waves import sines, waves_network

from seewhy.compat import torch_cam
from seewhy.errors import InputError, UnknownNameError

GOLDEN: Any = json.loads((Path(__file__).parents[1] / "golden" / "torch_cam.json").read_text("utf-8"))
PIXELS = sines(2, 3, 16, 24, shift=0.5)
BOTH = ["0", "1"]
ALL = (
    torch_cam.GradCAM,
    torch_cam.GradCAMpp,
    torch_cam.LayerCAM,
    torch_cam.XGradCAM,
    torch_cam.FinerCAM,
    torch_cam.CAM,
    torch_cam.ScoreCAM,
)


SIZES = {192: (8, 12), 48: (4, 6)}
"""Of the two layers' maps, by how many numbers two pictures have there."""


def known(case: str) -> list[Tensor]:
    return [torch.tensor(row).reshape(2, *SIZES[len(row)]) for row in GOLDEN["maps"][case]]


@pytest.mark.parametrize("case", [c for c in GOLDEN["maps"] if c not in ("ScoreCAM", "GradCAMpp", "LayerCAM fused")])
@pytest.mark.parametrize("frozen", [False, True])
def test_maps_are_theirs(case: str, frozen: bool) -> None:
    network = waves_network().requires_grad_(not frozen)
    name = case.split()[0]
    layers = BOTH if len(known(case)) == 2 else "1"
    with getattr(torch_cam, name)(network, layers) as extractor:
        scores = network(PIXELS)
        plain = "not" in case
        maps = extractor(2 if plain else [1, 3], scores, normalized=not plain)
    for mine, theirs in zip(maps, known(case), strict=True):
        torch.testing.assert_close(mine, theirs, atol=GOLDEN["tolerance"], rtol=1e-4)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_grad_cam_plus_plus_is_the_paper_s_and_theirs_lacks_the_denominator() -> None:
    network = waves_network()
    with torch_cam.GradCAMpp(network, "1") as extractor:
        (maps,) = extractor([1, 3], network(PIXELS), normalized=False)
    activations = network[:2](PIXELS).detach()
    slope = network[4].weight.detach()[[1, 3]][:, :, None, None] / 24
    square, cube = slope**2, slope**3
    share = square / (2 * square + activations.sum((2, 3), keepdim=True) * cube)
    paper = (24 * share * slope.relu() * activations).sum(1).relu()
    torch.testing.assert_close(maps, paper, atol=1e-5, rtol=1e-4)
    theirs = (square * slope.relu() * activations).sum(1).relu()
    theirs = theirs - theirs.amin((1, 2), keepdim=True)
    torch.testing.assert_close(theirs / theirs.amax((1, 2), keepdim=True), known("GradCAMpp")[0], atol=1e-4, rtol=1e-3)


def test_masks_differ_in_enlarging_alone() -> None:
    network = waves_network()
    with torch_cam.ScoreCAM(network, "1") as extractor, torch.no_grad():
        network(PIXELS)
        (maps,) = extractor([1, 3])
    torch.testing.assert_close(maps, known("ScoreCAM")[0], atol=0.02, rtol=0)


def test_fused_maps_are_theirs() -> None:
    network = waves_network()
    with torch_cam.LayerCAM(network, [network[0], network[1]]) as extractor:
        fused = extractor.fuse_cams(extractor([1, 3], network(PIXELS)))
    torch.testing.assert_close(fused, known("LayerCAM fused")[0], atol=2e-5, rtol=1e-4)
    assert torch_cam.GradCAM.fuse_cams([fused, fused[:, :2, :2]], (5, 7)).shape == (2, 5, 7)


def test_the_layer_is_found() -> None:
    assert torch_cam.GradCAM(waves_network(), input_shape=(3, 16, 24)).target_names == GOLDEN["found"]
    resnet = torchvision.models.resnet18(weights=None)
    assert torch_cam.GradCAM(resnet, input_shape=(3, 96, 96)).target_names == ["layer4"]
    vit = timm.create_model("vit_tiny_patch16_224", img_size=96, depth=2, num_classes=10).eval()
    with torch_cam.GradCAM(vit, "blocks.1.norm1") as extractor:
        (maps,) = extractor(3, vit(torch.randn(2, 3, 96, 96)))
    assert maps.shape == (2, 6, 6)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_hooks_listen_and_stop(kind: type[torch_cam.Extractor]) -> None:
    network = waves_network().train()
    extractor = kind(network, "1", enable_hooks=False)
    network(PIXELS)
    with pytest.raises(InputError) as caught:
        extractor(0, network(PIXELS))
    assert str(caught.value) == "No picture went through the network yet. Run scores = model(pixels) first."
    extractor.enable_hooks()
    scores = network(PIXELS)
    extractor.disable_hooks()
    network(PIXELS[:1])
    (maps,) = extractor(0, scores, retain_graph=True)
    assert maps.shape == (2, 4, 6)
    assert 0 <= maps.min() <= maps.max() <= 1
    torch.testing.assert_close(extractor(0, scores)[0], maps)
    assert all(p.grad is None for p in network.parameters())
    assert all(part.training for part in network.modules())
    extractor.reset_hooks()
    extractor.remove_hooks()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_any_function_of_an_output_is_a_target() -> None:
    network = waves_network()
    for kind in (torch_cam.GradCAM, torch_cam.ScoreCAM):
        with kind(network, BOTH) as extractor:
            by_class = extractor([1, 3], network(PIXELS))
            by_function = extractor(targets=[lambda o: o[1], lambda o: o[3]], scores=network(PIXELS))
            both = extractor(targets=lambda o: o[1], scores=network(PIXELS))
        for one, other, shared in zip(by_class, by_function, both, strict=True):
            torch.testing.assert_close(one, other)
            torch.testing.assert_close(one[0], shared[0])


def test_wrong_calls_are_refused() -> None:
    network = waves_network()
    extractor = torch_cam.GradCAM(network, "1")
    scores = network(PIXELS)
    for arguments, message in (
        ((), "Either class_idx or targets was expected, and not both. Say what is to be explained."),
        ((-1, scores), "The class -1 was given. The index of a class, from 0, was expected."),
        ((5, scores), "The class 5 was given, and there are 5. Count from 0."),
        (([0], scores), "1 targets were given for 2 pictures. Give a list with one a picture."),
        ((0,), "The scores are missing. What the network gave was expected: extractor(class_idx, scores)."),
        (
            (0, scores.detach()),
            "The scores were computed without gradients. Run the network outside torch.no_grad().",
        ),
    ):
        with pytest.raises(InputError) as caught:
            extractor(*arguments)
        assert str(caught.value) == message
    with pytest.raises(UnknownNameError):
        torch_cam.GradCAM(network, "layer5")
    with pytest.raises(InputError, match="The target layer ReLU is not inside Sequential"):
        torch_cam.GradCAM(network, torch.nn.ReLU())
    with pytest.raises(InputError, match="CAM reads one layer, and several were given"):
        torch_cam.CAM(network, BOTH)
