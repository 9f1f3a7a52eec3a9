"""Folding changes no logit, whatever the head; and what cannot be folded is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained, ZeroShot
from seewhy.encoders.base import Layout
from seewhy.errors import InputError, ModelError
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise
from seewhy.heads.votes import Votes
from seewhy.prototypes.cells import cells_of
from seewhy.prototypes.epic.method import contributions
from seewhy.prototypes.epic.rotation import check_fold, folded_logits, polar, random_rotation
from tiny import CLASSES, build, noise, tiny_cnn, tiny_tokens


class PooledNorm(nn.Module):
    """ConvNeXt's head: mean, then a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = _norm()

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(features.mean((2, 3)))


class CellNorm(nn.Module):
    """Swin's head: a layer norm in every cell, channels last, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = _norm()

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(features).mean((1, 2))


class ChannelsLast(nn.Module):
    """The small network's map, as Swin arranges it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = tiny_cnn().trunk

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk(pixels).permute(0, 2, 3, 1)


def _norm() -> nn.LayerNorm:
    norm = nn.LayerNorm(8)
    norm.weight.data = torch.linspace(-1, 2, 8)
    norm.bias.data = torch.linspace(1, -1, 8)
    return norm


def heads() -> dict[str, Classifier]:
    plain = Pretrained().build(tiny_cnn())
    rooted = Head(Normalise(0.5, True), torch.randn(4, 8), torch.randn(4), 3.0)
    votes = Votes(torch.tensor([0, 0, 1, 2, 2, 3, 3]), 4, 3)
    voted = Head(Normalise(l2=True), torch.randn(7, 8), scale=2.0, votes=votes)
    return {
        "linear": plain,
        "rooted": replace(plain, head=rooted),
        "voted": replace(plain, head=voted),
        "words": ZeroShot().build(tiny_cnn(), CLASSES),
        "convnext": Pretrained().build(build(tiny_cnn().trunk, PooledNorm(), Layout())),
        "swin": Pretrained().build(build(ChannelsLast(), CellNorm(), Layout("nhwc"))),
    }


@pytest.fixture(params=["linear", "rooted", "voted", "words", "convnext", "swin"])
def model(request: pytest.FixtureRequest) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return heads()[request.param]


def test_folded_logits_are_the_models_own(model: Classifier) -> None:
    look = model.encoder.encode(noise(5))
    cells = cells_of(model, look.features).flatten(2).transpose(1, 2)
    raw = 0.3 * torch.randn(8, 8, generator=torch.Generator().manual_seed(2))
    rotation = torch.linalg.matrix_exp(raw - raw.T)
    assert not torch.allclose(rotation, torch.eye(8), atol=0.1)
    assert torch.allclose(folded_logits(model.head, rotation, look.pooled, cells), model.head(look.pooled), atol=1e-5)
    check = check_fold(model.head, rotation, look.pooled, cells)
    assert check.difference < 1e-5
    assert check.agreement == 1


def test_contributions_add_up_to_the_lead(model: Classifier) -> None:
    look, rotation = model.encoder.encode(noise(5)), random_rotation(8, 3)
    target = Target(torch.tensor([0, 1, 2, 3, 0]))
    parts = contributions(model, rotation, look, target)
    logits = model.head(look.pooled)
    lead = target(logits) - logits.mean(1)
    # What is left is the bias, or what the head adds to all cells alike: the same for every rotation.
    rest = lead - contributions(model, torch.eye(8), look, target).sum(1)
    assert torch.allclose(parts.sum(1) + rest, lead, atol=1e-5)


def test_contributions_of_a_head_without_bias_are_all_there_is() -> None:
    plain = Pretrained().build(tiny_cnn())
    model = replace(plain, head=Head(Normalise(0.5, True), plain.head.weight))
    look = model.encoder.encode(noise(4))
    target = Target(torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 0]))
    parts = contributions(model, random_rotation(8, 3), look, target)
    assert torch.allclose(parts.sum(1), target(model.head(look.pooled)), atol=1e-6)


def test_a_head_that_is_no_mean_is_refused_and_says_so() -> None:
    model = Pretrained().build(tiny_tokens())
    with pytest.raises(InputError) as caught:
        cells_of(model, model.encoder.encode(noise(2)).features)
    assert str(caught.value) == (
        "EPIC needs an encoder that pools by the mean, with or without a layer norm, got Mixing of 'tiny'. Use --like "
        "nearest."
    )


def test_a_head_that_cannot_be_folded_is_refused() -> None:
    model = Pretrained().build(tiny_cnn())
    look = model.encoder.encode(noise(2))
    cells = cells_of(model, look.features).flatten(2).transpose(1, 2)
    broken = 1.1 * torch.eye(8)
    with pytest.raises(ModelError, match="The rotation must change the logits by at most"):
        check_fold(model.head, broken, look.pooled, cells)


def test_polar_is_the_best_orthogonal_matrix() -> None:
    wanted = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    best = polar(wanted)
    assert torch.allclose(best @ best.T, torch.eye(6), atol=1e-5)
    scores = [float((random_rotation(6, seed) * wanted).sum()) for seed in range(200)]
    assert float((best * wanted).sum()) > max(scores)
    assert float((best * wanted).sum()) == pytest.approx(float(torch.linalg.svdvals(wanted).sum()), abs=1e-4)


def test_a_random_rotation_is_orthogonal_and_seeded() -> None:
    rotation = random_rotation(16, 4)
    assert torch.allclose(rotation @ rotation.T, torch.eye(16), atol=1e-5)
    assert torch.equal(rotation, random_rotation(16, 4))
    assert not torch.equal(rotation, random_rotation(16, 5))
