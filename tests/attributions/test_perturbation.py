"""RISE and occlusion: on a linear model the map is a formula; the authors' masks and numbers; Captum's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from seewhy.attributions.occlusion import Occlusion
from seewhy.attributions.rise import RISE
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Layout
from seewhy.errors import InputError
from seewhy.heads.head import Target
from tiny import SIDE, build, noise, tiny_cnn
from tiny_transformer import tiny_vit, waves

KNOWN: Any = json.loads((Path(__file__).parents[1] / "golden" / "rise_map.json").read_text("utf-8"))


class Weigh(nn.Module):
    """Pixels times weights, one sum a class."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", pixels, self.weights)


def linear_model(weights: Tensor | None = None) -> tuple[Classifier, Tensor]:
    """Logits are linear in the pixels; beside it, the weights ``(4, 3, h, w)``."""
    if weights is None:
        weights = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) / 30
    last = nn.Linear(4, 4, bias=False)
    last.weight.data = torch.eye(4)
    return Pretrained().build(build(nn.Identity(), Weigh(weights), Layout(), 4, classifier=last)), weights


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def plan() -> tuple[Tensor, Tensor]:
    """The grids and shifts that the authors' code drew."""
    grids = torch.tensor([[float(cell) for cell in grid] for grid in KNOWN["grids"]]).reshape(-1, 7, 7)
    return grids, torch.tensor(KNOWN["shifts"])


def test_rise_masks_and_map_are_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RISE, "plan", lambda self, size: plan())
    method = RISE(n_masks=40, batch_size=7)
    masks = torch.cat(list(method.draw((SIDE, SIDE), 7)))
    expected = torch.tensor(KNOWN["masks_first_two_every_third_row"])
    torch.testing.assert_close(masks[:2, ::3], expected, atol=KNOWN["tolerance"], rtol=0)
    model = Pretrained().build(tiny_vit())
    found = method(model, model.encoder.encode(waves(1)), Target(torch.tensor([2])))
    expected = torch.tensor(KNOWN["map_of_class_2"])
    torch.testing.assert_close(found[0], expected, atol=KNOWN["tolerance"], rtol=KNOWN["tolerance"])


@pytest.mark.parametrize("centred", [False, True])
def test_rise_on_a_linear_model_is_the_masks_own_moment(centred: bool) -> None:
    model, weights = linear_model()
    pixels = noise(2)
    target = Target(torch.tensor([0, 2]), torch.tensor([1, 1]))
    method = RISE(n_masks=60, of="logit", centred=centred, p=0.3, seed=4)
    masks = torch.cat(list(method.draw((SIDE, SIDE), 60))).flatten(1)
    evidence = (pixels * (weights[[0, 2]] - weights[1])).sum(1).flatten(1)
    scores = evidence @ masks.T
    expected = (scores - scores.mean(1, keepdim=True) if centred else scores) @ masks / (60 * 0.3)
    found = method(model, model.encoder.encode(pixels), target)
    torch.testing.assert_close(found.flatten(1), expected, atol=1e-4, rtol=1e-4)


def test_rise_tends_to_the_evidence_seen_through_its_masks() -> None:
    weights = torch.zeros(4, 3, SIDE, SIDE)
    weights[0, :, 6:12, 20:26] = 1 / 108
    weights[0, :, 22:28, 4:10] = -1 / 108
    model, _ = linear_model(weights)
    look = model.encoder.encode(torch.ones(1, 3, SIDE, SIDE))
    (heat,) = RISE(n_masks=4000, of="logit", centred=True)(model, look, Target(torch.tensor([0])))
    assert 6 <= heat.argmax() // SIDE < 12
    assert 20 <= heat.argmax() % SIDE < 26
    assert 22 <= heat.argmin() // SIDE < 28
    assert 4 <= heat.argmin() % SIDE < 10
    (raw,) = RISE(n_masks=4000, of="logit")(model, look, Target(torch.tensor([0])))
    assert correlation(heat, raw) > 0.99


def test_the_papers_map_of_a_model_that_ignores_the_picture_is_its_probability() -> None:
    model, _ = linear_model(torch.zeros(4, 3, SIDE, SIDE))
    look = model.encoder.encode(noise(1))
    (heat,) = RISE(n_masks=4000)(model, look, Target(torch.tensor([0])))
    torch.testing.assert_close(heat, torch.full_like(heat, 0.25), atol=0.015, rtol=0)
    (centred,) = RISE.quick()(model, look, Target(torch.tensor([0])))
    torch.testing.assert_close(centred, torch.zeros_like(centred), atol=1e-5, rtol=0)


def test_stratified_masks_show_every_cell_equally_often() -> None:
    grids, shifts = RISE(n_masks=50, masks="stratified").plan((SIDE, SIDE))
    assert torch.equal(grids[::2], 1 - grids[1::2])
    assert torch.equal(shifts[::2], shifts[1::2])
    grids, _ = RISE(n_masks=50, masks="stratified", p=0.3).plan((SIDE, SIDE))
    assert torch.equal(grids.sum(0), torch.full((7, 7), 15.0))
    random, _ = RISE(n_masks=50).plan((SIDE, SIDE))
    assert len(random.sum(0).unique()) > 3


def test_quick_is_nearer_to_the_limit_than_as_many_random_masks() -> None:
    model = Pretrained().build(tiny_vit())
    look, target = model.encoder.encode(waves(2)), Target(torch.tensor([1, 3]))
    limit = RISE(n_masks=6000, centred=True, seed=9)(model, look, target)
    errors = []
    for method in (RISE(n_masks=200), RISE.quick(200)):
        found = method(model, look, target)
        errors.append(1 - sum(map(correlation, found, limit)) / 2)
    assert errors[1] < 0.5 * errors[0]


def test_batch_size_bounds_what_the_engine_sees_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Pretrained().build(tiny_cnn())
    look, target = model.encoder.encode(noise(3)), Target(torch.tensor([0, 1, 2]))
    whole = {method: method(model, look, target) for method in (RISE(n_masks=30), Occlusion())}
    seen: list[int] = []
    before = type(model.encoder).forward_features
    monkeypatch.setattr(
        type(model.encoder),
        "forward_features",
        lambda self, pixels: (seen.append(len(pixels)), before(self, pixels))[1],
    )
    for method, expected in whole.items():
        small = type(method)(**{**vars(method), "batch_size": 5})(model, look, target)
        torch.testing.assert_close(small, expected, atol=1e-5, rtol=1e-5)
    assert max(seen) <= 5


def test_occlusion_on_a_linear_model_is_the_windows_sum() -> None:
    model, weights = linear_model()
    pixels = noise(2)
    method = Occlusion(window=4, stride=4, fill=0.5)
    found = method(model, model.encoder.encode(pixels), Target(torch.tensor([0, 3])))
    evidence = ((pixels - 0.5) * weights[[0, 3]]).sum(1)
    sums = evidence.unfold(1, 4, 4).unfold(2, 4, 4).sum((3, 4))
    expected = sums.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (8, 5), (5, 3), (40, 9)])
def test_occlusion_is_captums(window: int, stride: int) -> None:
    model = Pretrained().build(tiny_cnn())
    pixels = noise(2)
    target = Target(torch.tensor([2, 0]))

    def forward(changed: Tensor) -> Tensor:
        return target(model.head(model.encoder.encode(changed).pooled))

    peer = captum.attr.Occlusion(forward)
    side = min(window, SIDE)  # Captum takes no window larger than the picture
    expected = peer.attribute(pixels, (3, side, side), strides=(3, stride, stride), baselines=0.0)[:, 0]
    found = Occlusion(window=window, stride=stride)(model, model.encoder.encode(pixels), target)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_occlusion_of_the_probability_and_of_a_function() -> None:
    model = Pretrained().build(tiny_cnn())
    look = model.encoder.encode(noise(2))
    target = Target(torch.tensor([2, 0]))
    falls = Occlusion(window=SIDE, of="probability")(model, look, target)
    blank = model.probabilities(torch.zeros(1, 3, SIDE, SIDE))[0]
    expected = target(model.head.probabilities(look.pooled)) - blank[[2, 0]]
    torch.testing.assert_close(falls[:, 0, 0], expected)
    one = Occlusion()(model, look, target)
    same = Occlusion(of="probability")(model, look, lambda logits: logits[[0, 1], [2, 0]])
    torch.testing.assert_close(one, same)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        RISE(n_masks=0)
    assert str(caught.value) == (
        "`n_masks` of rise must be a whole number of at least 2, got 0. Leave it out to use 4000."
    )
    with pytest.raises(InputError) as caught:
        Occlusion(window=0)
    assert str(caught.value) == "`window` of occlusion must be a whole number of at least 1, got 0."
