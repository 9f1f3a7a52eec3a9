"""What the calls keep to beside their maps: other forms of layers and outputs, options, modes, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn
from waves import sines, waves_network

from seewhy import compat
from seewhy.classifiers.unfitted import Pretrained
from seewhy.compat.base import SIX_VIEWS, View, layout, scores
from seewhy.errors import InputError
from seewhy.heads.head import Target
from tiny import noise, tiny_cnn

PIXELS = sines(2, 3, 16, 24, shift=0.5)


class Pair(nn.Module):
    """A layer that gives two things, and what takes the first."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return self.part(x), "more"


class First(nn.Module):
    def forward(self, pair: tuple[Tensor, str]) -> Tensor:
        assert pair[1] == "more"
        return pair[0]


def explain(function: Callable[..., Any], wrap: Any = compat.from_captum, **options: Any) -> tuple[Tensor, Any]:
    model = Pretrained().build(tiny_cnn())
    look = model.encoder.encode(noise(2))
    before = look.pixels.clone()
    found = wrap(function, **options)(model, look, Target(torch.tensor([0, 1])))
    assert torch.equal(look.pixels, before), "the pictures are as they were"
    return found, look


def test_functions_of_others_may_change_what_they_are_given_and_return_in_several_forms() -> None:
    told: dict[str, Any] = {}

    def captum(inputs: Tensor, target: Tensor, **options: Any) -> tuple[Tensor]:
        told.update(options, target=target.tolist())
        with torch.no_grad():
            inputs.zero_()
        return (torch.ones(2, 3, 4, 5),)

    found, _ = explain(captum, n_steps=9)
    assert (found.tolist(), told) == ([[[3.0] * 5] * 4] * 2, {"n_steps": 9, "target": [0, 1]})

    def quantus(model: nn.Module, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        assert not model.training
        inputs[:] = 0
        return np.full((2, 4, 5), -1.0)

    assert explain(quantus, compat.from_quantus)[0].unique().tolist() == [-1.0]
    for shape in ((2, 4), (2, 3, 4, 5, 6), (3, 4, 5)):
        with pytest.raises(InputError, match=r"The captum function must return maps \(2, c, h, w\) or"):
            explain(lambda *_, shape=shape, **__: torch.zeros(shape))


def test_a_class_of_captum_is_made_with_a_network_at_rest() -> None:
    class Asking(InputXGradient):
        def __init__(self, network: nn.Module) -> None:
            assert not any(part.training for part in network.modules())
            super().__init__(network)

    found, look = explain(Asking)
    assert found.shape == (2, *look.pixels.shape[2:])


def test_a_target_gives_one_number_of_each_row() -> None:
    rows = torch.arange(12.0).reshape(4, 3)
    two = [lambda row: row[0], lambda row: row[2]]
    assert scores(two, rows).tolist() == [0, 5, 6, 11], "rows beyond the targets start again at the first"
    for output, says in (
        ({"out": rows}, r"^The network must return a tensor or list with one row per picture, got a dict\."),
        (rows[:3], r"^The network must return .*, got a Tensor\."),
    ):
        with pytest.raises(InputError, match=says):
            scores(two, output)
    with pytest.raises(InputError, match=r"^A target must return one number per picture, got the shape \(3,\)\."):
        scores([lambda row: row], rows)
    with pytest.raises(InputError, match=r"^The index of a target is outside the network's output: index 3"):
        scores([compat.ClassifierOutputTarget(3)], rows)
    for output, shape in ((torch.zeros(2, 3, 4), r"\(2, 3, 4\)"), ([rows], "a list")):
        with pytest.raises(InputError, match=rf"^Without targets, .* must have the shape \(b, k\), got {shape}\."):
            compat.base.highest(output)


def test_a_box_counts_where_it_overlaps_more_than_the_threshold() -> None:
    found = {"boxes": torch.tensor([[0.0, 0, 10, 8]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    for threshold, expected in ((0.3, 1.3), (0.79, 1.3), (0.81, 0.0), (0.9, 0.0)):
        target = compat.FasterRCNNBoxScoreTarget([1], np.array([[0, 0, 10, 10]]), threshold)
        assert float(target(found)) == pytest.approx(expected)
    assert float(compat.FasterRCNNBoxScoreTarget([2], np.array([[0, 0, 10, 10]]), 0.3)(found)) == 0


def test_the_six_views_are_mirrored_left_to_right_and_times_a_factor() -> None:
    row = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert View(True, 0.5).augment_image(row).tolist() == [[[[1.0, 0.5], [2.0, 1.5]]]]
    assert View(True, 0.5).deaugment_mask(row).tolist() == [[[[2.0, 1.0], [4.0, 3.0]]]]
    assert [(v.flip, v.factor) for v in SIX_VIEWS] == [(flip, f) for flip in (False, True) for f in (0.9, 1.0, 1.1)]


def test_what_is_no_picture_and_no_layer_is_refused() -> None:
    network = waves_network()
    with pytest.raises(
        InputError, match=r"^`input_tensor` must have the shape \(b, channels, h, w\), got \(3, 16, 24\)\."
    ):
        compat.GradCAM(network, [network[1]])(PIXELS[0])
    with pytest.raises(InputError, match=r"^`target_layers` must be a list"):
        compat.GradCAM(network, [])


@pytest.mark.parametrize(("shape", "found"), [((2, 5, 1, 1), "nchw"), ((2, 1, 1, 5), "nhwc")])
def test_one_cell_is_a_map_of_either_arrangement_and_noted(
    shape: tuple[int, ...], found: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "seewhy"):
        told = layout(torch.zeros(shape), PIXELS, "last")
    assert told.to_grid(torch.zeros(shape)).shape == (2, 5, 1, 1), found
    assert caplog.messages == [
        "The output of the layer 'last' is 1 x 1 for a picture of 16 x 24, so its map is 0. Name an earlier layer, or "
        "give larger pictures."
    ]
    with pytest.raises(InputError, match=r"^The layer 'last' must return a tensor, got a dict\."):
        layout({}, PIXELS, "last")


def grid_of(kind: Any, activations: Tensor, **how: Any) -> Tensor:
    """A method's own map of a layer that gives this."""
    network = waves_network()
    found: Tensor = kind(network, [network[1]], **how).map_of(activations, False)
    return found


def test_cells_that_stand_out_and_channels_that_do_not() -> None:
    """One cell of sixteen stands 3.87 deviations above its channel's mean; a channel without contrast has none."""
    activations = torch.zeros(1, 2, 4, 4)
    activations[0, 0, 1, 2], activations[0, 1] = 16.0, 5.0
    for k, share in ((2, 1 / 16), (3.8, 1 / 16), (3.9, 0.0)):
        torch.testing.assert_close(grid_of(compat.FEM, activations, k=k)[0], share * activations[0, 0])


def test_the_sign_of_a_first_component_is_that_of_the_size_of_activations() -> None:
    strength = torch.arange(16.0).reshape(4, 4)
    found = grid_of(compat.EigenCAM, -strength * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))[0]
    assert int(found.argmax()) == 15
    assert int(found.argmin()) == 0


def test_masks_and_copies_run_in_batches_of_the_size_that_was_given() -> None:
    network, sizes = waves_network(), []
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    cam = compat.ScoreCAM(network, [network[1]])
    cam.batch_size = 2
    small = cam(PIXELS[:1])
    assert max(sizes) == 2
    cam.batch_size = 100
    np.testing.assert_allclose(cam(PIXELS[:1]), small, atol=1e-6)
    assert max(sizes) == 8


def test_a_part_of_the_channels_is_above_zero_and_at_most_all() -> None:
    network = waves_network()
    for ratio in (1.01, -0.1):
        with pytest.raises(
            InputError, match=rf"^`ratio_channels_to_ablate` must be above 0 and at most 1, got {ratio}\."
        ):
            compat.AblationCAM(network, [network[1]], ratio_channels_to_ablate=ratio)
    with pytest.raises(InputError, match=r"^`reshape_transform` must return a view of the output of the layer '1'"):
        compat.AblationCAM(network, [network[1]], lambda out: out * 2)(PIXELS)


def test_channels_are_left_out_behind_a_layer_that_gives_a_tuple() -> None:
    network = waves_network()
    wrapped = nn.Sequential(network[0], Pair(network[1]), First(), *network[2:])
    cam = compat.AblationCAM(wrapped, [wrapped[1]])
    out = network[1](network[0](PIXELS)).detach()
    changed = out.clone()
    changed[:, 2] = 0
    torch.testing.assert_close(cam.rerun("1", changed, PIXELS, 1), network[2:](changed))
    assert not wrapped[1]._forward_hooks


def test_the_lead_over_all_others_of_few_classes() -> None:
    network = nn.Sequential(*waves_network(), nn.Linear(5, 3))
    network[-1].weight.data, network[-1].bias.data = sines(3, 5), sines(3)
    found = compat.FinerCAM(network, [network[1]])(PIXELS)
    order = network(PIXELS).detach().sub(network(PIXELS).amax(1, keepdim=True).detach()).abs().argsort(1).tolist()
    targets = [compat.FinerWeightedTarget(row[0], row[1:], 1) for row in order]
    np.testing.assert_allclose(found, compat.GradCAM(network, [network[1]])(PIXELS, targets), atol=1e-5)
    smooth = compat.FinerCAM(network, [network[1]])
    views = compat.GradCAM(network, [network[1]])
    given = [compat.ClassifierOutputTarget(1)] * 2
    np.testing.assert_allclose(smooth(PIXELS, given, aug_smooth=True), views(PIXELS, given, aug_smooth=True), atol=1e-6)
    assert np.abs(smooth(PIXELS, aug_smooth=True) - found).max() > 1e-3


def test_every_bias_is_seen_in_the_views_that_were_given() -> None:
    network = waves_network()
    upside = View(True)
    plain = compat.FullGrad(network)(PIXELS)
    turned = compat.FullGrad(network, tta_transforms=[upside])(PIXELS, aug_smooth=True)
    expected = compat.FullGrad(network)(PIXELS.flip(3))[:, :, ::-1]
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    assert np.abs(turned - plain).max() > 1e-3
