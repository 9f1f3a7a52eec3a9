"""On linear heads the attribution is the formula, and the parts of cells add up to the logit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.shares import cell_evidence
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.heads.head import Feature, Head, Projected, Target
from seewhy.heads.normalise import Normalise
from tiny import CLASSES, HashedWords, noise, tiny_cnn, tiny_tokens

TARGET = Target(torch.tensor([0, 3, 1]))
CONTRAST = Target(torch.tensor([0, 3, 1]), torch.tensor([2, 2, 0]))


def classifier(feature: Feature, scale: float = 3.0) -> Classifier:
    seeded = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(4, 8, generator=seeded), torch.randn(4, generator=seeded)
    return Classifier("test", {}, tiny_cnn(), CLASSES, Head(feature, weight, bias, scale))


def test_grad_cam_behind_a_mean_is_cam() -> None:
    """CAM (Zhou et al. 2016, equation 2): M_c = Σ_k w_ck A_k; Grad-CAM divides by the number of cells."""
    model = Pretrained().build(tiny_cnn())
    look = model.encoder.encode(noise(3))
    cam = torch.einsum("bc,bchw->bhw", model.head.weight[TARGET.index], look.features)
    torch.testing.assert_close(GradCAM()(model, look, TARGET), cam / 64)
    rows = model.head.weight[CONTRAST.index] - model.head.weight[CONTRAST.against]
    cam = torch.einsum("bc,bchw->bhw", rows, look.features)
    torch.testing.assert_close(GradCAM()(model, look, CONTRAST), cam / 64)


def test_grad_cam_behind_any_head_is_the_definition() -> None:
    model = Pretrained().build(tiny_tokens())
    look = model.encoder.encode(noise(3))
    leaf = look.features.clone().requires_grad_()
    model.head(model.encoder.head(leaf))[range(3), TARGET.index].sum().backward()
    alpha = leaf.grad[:, 1:].mean(1)
    expected = (look.features[:, 1:] * alpha[:, None]).sum(2).unflatten(1, (4, 4))
    torch.testing.assert_close(GradCAM()(model, look, TARGET), expected)


def centred(model: Classifier, pooled: Tensor, target: Target) -> Tensor:
    """Target of the logits less their mean over classes."""
    logits = model.head(pooled)
    return target(logits - logits.mean(1, keepdim=True))


@pytest.mark.parametrize("target", [TARGET, CONTRAST], ids=["target", "contrast"])
@pytest.mark.parametrize("feature", [Normalise(), Normalise(0.5, True), Normalise(2.0, True), Normalise(0.5)], ids=repr)
def test_parts_add_up_to_the_logit_less_the_bias(feature: Normalise, target: Target) -> None:
    model = classifier(feature)
    look = model.encoder.encode(noise(3))
    parts = cell_evidence(model, look, target).sum((1, 2))
    constant = target((model.head.bias - model.head.bias.mean()).expand(3, -1))
    torch.testing.assert_close(parts + constant, centred(model, look.pooled, target), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("target", [TARGET, CONTRAST], ids=["target", "contrast"])
def test_parts_add_up_behind_a_projection(target: Target) -> None:
    """The constant is the projection's own offset, divided by the point's length, along the target's direction."""
    tower = HashedWords(8)
    model = classifier(Projected(tower))
    look = model.encoder.encode(noise(3))
    parts = cell_evidence(model, look, target).sum((1, 2))
    rows = 3.0 * target.of(model.head.weight - model.head.weight.mean(0))
    offset = (rows * tower.shift).sum(1) / tower.project(look.pooled).norm(dim=1)
    constant = offset + target((model.head.bias - model.head.bias.mean()).expand(3, -1))
    torch.testing.assert_close(parts + constant, centred(model, look.pooled, target), atol=1e-4, rtol=1e-4)


def test_shifting_all_logits_by_a_picture_s_own_number_changes_no_part() -> None:
    """Classes enter less their mean, so a row added to every class's weights is not seen."""
    plain = classifier(Normalise(0.5, True))
    moved = Classifier(
        "test", {}, plain.encoder, CLASSES, Head(plain.head.feature, plain.head.weight + 5, plain.head.bias, 3.0)
    )
    look = plain.encoder.encode(noise(3))
    torch.testing.assert_close(
        cell_evidence(moved, look, TARGET), cell_evidence(plain, look, TARGET), atol=1e-5, rtol=1e-4
    )


def test_a_feature_that_is_zero_has_a_finite_slope() -> None:
    rows = torch.ones(1, 4)
    for feature in (Normalise(0.5, True), Normalise(0.5), Normalise()):
        assert feature.slope(torch.zeros(1, 4), rows).isfinite().all()


def test_projected_is_the_unit_vector() -> None:
    tower, pooled = HashedWords(8), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Projected(tower)(pooled), normalize(2 * pooled + tower.shift, dim=1))
