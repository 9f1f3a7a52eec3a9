"""Each term by its closed form or finite differences, a world whose optimum is known, and what walks must keep."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.errors import InputError
from seewhy.generation.conditions import Condition, Judge, of_class, of_neuron, of_picture, of_text
from seewhy.generation.generator import Generator, Reader
from seewhy.generation.sampler import PPGN, PixelAscent, at_picture, facets, noise
from seewhy.types import Transform
from tiny import tiny_cnn

SIDE = 8
PLAIN = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.5,) * 3, (0.5,) * 3)


class Paint(nn.Module):
    """Codes of three units → a picture of that colour, ``0.5 + gain · h / 2``, unbounded: linear."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, codes: Tensor) -> Tensor:
        return (0.5 + self.gain * codes / 2)[:, :, None, None].expand(-1, 3, SIDE, SIDE)


def colours(weight: Tensor, name: str = "colours") -> Encoder:
    """Its code is ``weight`` times the mean colour, of -1…1."""
    trunk = nn.Conv2d(3, len(weight), 1, bias=False)
    trunk.weight = nn.Parameter(weight[:, :, None, None], requires_grad=False)
    return Encoder(
        name=name,
        transform=PLAIN,
        trunk=lambda: trunk,
        head=GlobalAverage(),
        layout=Layout(),
        fingerprint=name,
        classifier=nn.Linear(len(weight), 3).requires_grad_(False),
        classes=("a", "b", "c"),
        engine="torch",
    )


def world(gain: float = 1.0) -> Generator:
    codes = torch.randn(64, 3, generator=torch.Generator().manual_seed(3)) / 3
    return Generator(Paint(gain), Reader(colours(torch.eye(3))), (-1.0, 1.0), codes, {"side": SIDE})


def towards(wanted: Tensor) -> Condition:
    """``log p = -½ Σ (mean colour - wanted)²``: the best picture is known."""

    def scores(pictures: Tensor) -> Tensor:
        return -(2 * (pictures.mean((2, 3)) - 0.5) - wanted).square().sum(1, keepdim=True) / 2

    return Condition("class", "probability", cast(Any, None), "a colour", scores, lambda x: scores(x)[:, 0], alone=True)


class Inner(nn.Module):
    """A generator that is no line: what finite differences are for."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3 * SIDE * SIDE)).double()

    def forward(self, codes: Tensor) -> Tensor:
        return self.net(codes).sigmoid().unflatten(1, (3, SIDE, SIDE))


def curved() -> tuple[Generator, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Inner().requires_grad_(False)
        on = tiny_cnn()
        on.trunk.double()
        assert on.classifier is not None
        on.classifier.double()
    model = seewhy.pretrained(on)
    model.head.double()
    codes = torch.randn(16, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    return Generator(network, Reader(on), (-4.0, 4.0), codes, {"side": SIDE}), model


def slope(of: Any, codes: Tensor, step: float = 1e-5) -> Tensor:
    """By central differences, one unit at a time."""
    rows = []
    for i in range(codes.shape[1]):
        move = torch.zeros_like(codes)
        move[:, i] = step
        rows.append((of(codes + move) - of(codes - move)) / (2 * step))
    return torch.stack(rows, 1)


def test_the_prior_pulls_to_what_the_encoder_reads() -> None:
    generator = world(gain=0.4)
    codes = torch.tensor([[0.5, -1.0, 0.0], [0.1, 0.2, 0.3]])
    terms = PPGN().terms(generator, None, codes)
    torch.testing.assert_close(terms.prior, generator.read(generator.network(codes)) - codes)
    torch.testing.assert_close(terms.prior, -0.6 * codes)  # E(G(h)) = 0.4 h
    assert not terms.condition.any()


def test_the_condition_is_the_slope_of_log_p() -> None:
    generator, model = curved()
    condition, codes = of_class(model, "rust"), generator.codes[:3]
    found = PPGN(eps1=0).terms(generator, condition, codes).condition

    def log_p(h: Tensor) -> Tensor:
        pooled = model.encoder.trunk(generator.read.pixels(generator.network(h))).mean((2, 3))
        return model.head(pooled).log_softmax(1)[:, 1]

    torch.testing.assert_close(found, slope(log_p, codes), rtol=1e-6, atol=1e-10)


def test_the_released_gradient_leaves_out_the_other_classes() -> None:
    generator, model = curved()
    condition, codes = of_class(model, "rust"), generator.codes[:3]
    found = PPGN(eps1=0, gradient="own_logit").terms(generator, condition, codes).condition

    def scores(h: Tensor) -> Tensor:
        return model.head(model.encoder.trunk(generator.read.pixels(generator.network(h))).mean((2, 3)))

    p = scores(codes).softmax(1)[:, 1:2]
    own = slope(lambda h: scores(h)[:, 1], codes)
    torch.testing.assert_close(found, (1 - p) * own, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(("eps1", "gain", "part"), [(0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 0.5, 2 / 3)])
def test_a_walk_ends_where_the_pulls_are_equal(eps1: float, gain: float, part: float) -> None:
    """At ``ε1 (gain - 1) h + gain (wanted - gain h) = 0``, so ``h = gain · wanted / (ε1 (1 - gain) + gain²)``."""
    wanted = torch.tensor([0.6, -0.3, 0.0])
    how = PPGN(eps1=0.1 * eps1, eps2=0.1, n_steps=400, normalise=False)
    end = how.sample(world(gain), towards(wanted), torch.zeros(1, 3))
    torch.testing.assert_close(end.codes[0], part * wanted, atol=1e-4, rtol=1e-4)


def test_steps_have_the_length_that_is_asked_for() -> None:
    start, wanted = torch.zeros(2, 3), torch.tensor([0.9, 0.9, -0.9])
    for n, length in ((1, 0.2), (3, 0.2 + 0.1 + 0.0)):
        how = PPGN(eps1=0, lr=0.1, lr_end=0.0, n_steps=n)
        end = how.sample(world(), towards(wanted), start)
        torch.testing.assert_close(end.codes.abs().mean(1), torch.full((2,), length))  # of a range of 2
    raw = PPGN(eps1=0, n_steps=1, normalise=False).sample(world(), towards(wanted), start)
    torch.testing.assert_close(raw.codes[0], wanted)


def test_codes_stay_within_their_bounds_unless_told() -> None:
    far = towards(torch.tensor([9.0, -9.0, 9.0]))
    how = {"eps1": 0.0, "n_steps": 50, "lr": 0.1}
    assert PPGN(**how).sample(world(), far, torch.zeros(1, 3)).codes.abs().max() == 1.0
    assert PPGN(**how, clip=False).sample(world(), far, torch.zeros(1, 3)).codes.abs().max() > 2


def test_noise_is_what_it_says_only_in_steps_as_they_stand() -> None:
    still = PPGN(eps1=0, eps2=0, eps3=0.05, n_steps=1, normalise=False, clip=False)
    codes = still.sample(world(), None, torch.zeros(400, 3), seed=1).codes
    assert abs(float(codes.std()) - 0.05) < 0.004
    climb = PPGN(eps1=0, eps3=1e-17, n_steps=20)
    calm = PPGN(eps1=0, eps3=0, n_steps=20)
    wanted = towards(torch.tensor([0.6, -0.3, 0.1]))
    released, silent = (one.sample(world(), wanted, torch.zeros(1, 3)).codes for one in (climb, calm))
    assert torch.equal(released, silent)


def test_a_chain_is_the_same_in_any_company_and_by_its_seed() -> None:
    how, wanted = PPGN(eps3=0.3, n_steps=12), towards(torch.tensor([0.6, -0.3, 0.1]))
    starts = noise(world(), 3, 0)
    together = how.sample(world(0.7), wanted, starts, seed=5)
    again = how.sample(world(0.7), wanted, starts, seed=5)
    other = how.sample(world(0.7), wanted, starts, seed=6)
    assert torch.equal(together.codes, again.codes)
    assert not torch.equal(together.codes, other.codes)
    alone = how.sample(world(0.7), wanted, starts[:1], seed=5)
    torch.testing.assert_close(alone.codes, together.codes[:1])


def test_the_kept_pictures_are_evenly_spread_and_told() -> None:
    found = PPGN(n_steps=10, n_shown=4).sample(world(), towards(torch.ones(3) / 2), torch.zeros(2, 3))
    assert found.steps == (0, 2, 5, 8, 10)
    assert found.pictures.shape == (5, 2, 3, SIDE, SIDE)
    assert (found.values[-1] > found.values[0]).all()
    torch.testing.assert_close(found.values[-1], towards(torch.ones(3) / 2).value(found.pictures[-1]))


def test_the_unit_of_eps1_makes_both_pull_alike() -> None:
    generator, wanted = world(0.5), towards(torch.tensor([0.8, 0.8, 0.8]))
    start = torch.full((1, 3), 0.4)
    scale = PPGN()._scale(generator, wanted, start)
    terms = PPGN().terms(generator, wanted, start)
    assert float(scale) * float(terms.prior.abs().mean()) == pytest.approx(float(terms.condition.abs().mean()))


def test_pixels_climb_without_any_generator() -> None:
    start = torch.full((1, 3, SIDE, SIDE), 0.5)
    found = PixelAscent(PPGN(n_steps=40), lr=0.02).sample(towards(torch.tensor([9.0, -9.0, 0.0])), start)
    ends = found.pictures[-1].mean((0, 2, 3))
    assert (float(ends[0]), float(ends[1])) == (1.0, 0.0)
    assert found.prior_error is None


def test_a_condition_is_exchanged_and_the_generator_untouched() -> None:
    generator = world()
    before = [p.clone() for p in generator.network.parameters()]
    ends = []
    for weight in (torch.eye(3), -torch.eye(3)):
        unit = of_neuron(colours(weight, f"c{weight[0, 0]}"), 0, 3)
        ends.append(PPGN(eps1=0, n_steps=30).sample(generator, unit, torch.zeros(1, 3)).codes[0, 0])
    assert ends[0] > 0.5
    assert ends[1] < -0.5
    assert all(torch.equal(a, b) for a, b in zip(before, generator.network.parameters(), strict=True))
    assert all(p.grad is None for p in generator.network.parameters())


def test_every_condition_goes_up() -> None:
    on = tiny_cnn()
    generator = Generator(Paint(), Reader(colours(torch.eye(3))), (-1.0, 1.0), world().codes, {"side": SIDE})
    photo = torch.tensor([0.9, 0.2, 0.1])[None, :, None, None].expand(1, 3, SIDE, SIDE)
    for condition in (
        of_class(seewhy.pretrained(on), 2),
        of_text(on, "red"),
        of_neuron(on, 3, 8),
        of_picture(on, photo, "x"),
    ):
        found = PPGN(eps1=0.0, n_steps=20, lr=0.05).sample(generator, condition, torch.zeros(1, 3))
        assert found.values[-1] > found.values[0], condition.kind


def test_facets_are_different_and_fit() -> None:
    codes = torch.cat([torch.tensor([[0.9, s * 0.8, 0.0]]) + 0.01 * torch.randn(20, 3) for s in (1, -1)])
    codes = torch.cat([codes, -torch.rand(280, 3)])
    generator = Generator(Paint(), Reader(colours(torch.eye(3))), (-1.0, 1.0), codes, {"side": SIDE})
    first = of_neuron(colours(torch.diag(torch.tensor([1.0, 0.0, 0.0]))), 0, 3)
    found = facets(generator, first, 2, seed=0)
    assert (found[:, 0] > 0.8).all()
    assert sorted(found[:, 1].sign().tolist()) == [-1.0, 1.0]
    assert torch.equal(found, facets(generator, first, 2, seed=0))


def test_chains_at_a_picture_start_at_its_code_and_around() -> None:
    photo = torch.full((1, 3, SIDE, SIDE), 0.75)
    found = at_picture(world(), photo, 3, 0)
    torch.testing.assert_close(found[0], torch.full((3,), 0.5))
    assert not torch.allclose(found[1], found[2])


def test_the_judge_is_never_the_network_that_is_climbed() -> None:
    on, other = tiny_cnn(), tiny_cnn(seed=1)
    model = seewhy.pretrained(on)
    condition = of_class(model, "rust")
    for same in (model, on, seewhy.zero_shot(["rust", "moss"], on)):
        with pytest.raises(InputError, match=r"The judge, .* must not use 'tiny'"):
            Judge.of(same, condition, model.classes)
    judge = Judge.of(seewhy.pretrained(other), condition, model.classes)
    verdicts, features = judge.look(torch.rand(3, 3, 16, 16))
    assert [v.agrees for v in verdicts] == [v.label == "rust" for v in verdicts]
    assert features.shape == (3, 8)
    by_name = Judge.of(other, of_text(on, "a red thing"), model.classes)
    assert by_name.classifier.classes == (*model.classes, "a red thing")
    unnamed = Judge.of(other, of_neuron(on, 3, 8), model.classes)
    assert unnamed.classifier.classes == model.classes
    assert [v.agrees for v in unnamed.look(torch.rand(2, 3, 16, 16))[0]] == [None, None]
    with pytest.raises(InputError, match="The judge must have class names"):
        Judge.of(other, of_text(on, "a red thing"), ())
    assert np.isfinite([v.probability for v in by_name.look(torch.rand(1, 3, 16, 16))[0]]).all()


def test_an_encoder_reads_a_made_picture_as_it_does_the_file() -> None:
    on = tiny_cnn()
    image = (torch.rand(1, 3, 32, 32) * 255).round() / 255
    whole = (image * 255).byte().permute(0, 2, 3, 1).numpy()
    torch.testing.assert_close(Reader(on)(image), on.encode(on.pixels(list(whole))).pooled, atol=1e-5, rtol=1e-5)
    assert Reader(on, 16)(image).shape == (1, 8)
