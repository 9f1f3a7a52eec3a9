"""Metrics against closed forms: a perfect, a worst and a random case each, with exact values."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest, spearmanr
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from seewhy.evidence.explain import rank_correlation
from seewhy.metrics.base import Metric, block_side, ranks, shuffled, upsampled
from seewhy.metrics.calibration import Bin, accuracy_interval, calibration_error, reliability
from seewhy.metrics.removal import Deletion, Insertion, blurred, blurred_reflected

SIDE = 16
N = SIDE * SIDE


def linear(weight: Tensor) -> object:
    """A 'probability' that is linear in the pixels."""
    return lambda pixels: torch.stack([(pixels[:, 0] * weight).sum((1, 2)), pixels[:, 0].mean((1, 2))], 1)


def order(seed: int = 0) -> Tensor:
    """Distinct values at the picture's own size, so that no upsampling blurs the order."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randperm(N, generator=rng).float().reshape(SIDE, SIDE)


def area(metric: Metric, weight: Tensor, heat: Tensor) -> float:
    pixels = torch.ones(3, SIDE, SIDE)
    return metric(linear(weight), pixels, heat[None], 0)[0].value


@pytest.mark.parametrize("n_steps", [16, N])
def test_deletion_of_a_linear_model(n_steps: int) -> None:
    """After ``m`` of ``N`` pixels the score is the weight of those that are left: a sum, a trapezoid."""
    weight = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    heat = order()
    left = weight.flatten()[heat.flatten().argsort(descending=True)].flip(0).cumsum(0).flip(0)
    left = torch.cat([left, torch.zeros(1)])[:: N // n_steps]
    expected = float(torch.trapezoid(left, dx=1 / n_steps))
    assert area(Deletion(n_steps=n_steps), weight, heat) == pytest.approx(expected, rel=1e-5)


def test_perfect_worst_and_random_deletion() -> None:
    """Half the pixels weigh 2 / N each: gone first the area is 1/4, gone last 3/4, evenly mixed 1/2."""
    weight = torch.zeros(SIDE, SIDE)
    weight[:, : SIDE // 2] = 2 / N
    columns = torch.arange(N).reshape(SIDE, SIDE).T.float()
    assert area(Deletion(), weight, -columns) == pytest.approx(0.25, abs=1e-6)
    assert area(Deletion(), weight, columns) == pytest.approx(0.75, abs=1e-6)
    mixed = torch.where(weight > 0, 2 * (columns % (N / 2)), 2 * (columns % (N / 2)) + 1)
    assert area(Deletion(), weight, mixed) == pytest.approx(0.5, abs=1e-6)


def test_insertion_is_deletion_turned_round_where_blur_is_blank() -> None:
    """On a picture with values in every second pixel, blur is a constant; the areas follow from the ends."""
    weight = torch.full((SIDE, SIDE), 1 / N)
    weight[:, SIDE // 2 :] = 0
    pixels = torch.ones(3, SIDE, SIDE)
    curve = Insertion(fill="blur_reflected")(linear(weight), pixels, order()[None], 0)[0]
    torch.testing.assert_close(torch.tensor(curve.parts["values"]), torch.full((17,), 0.5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("metric", [Deletion(), Insertion()], ids=["deletion", "insertion"])
def test_a_constant_model_has_area_p(metric: Metric) -> None:
    for p in (0.0, 0.3, 1.0):
        constant = lambda x, p=p: torch.full((len(x), 2), p)  # noqa: E731
        curve = metric(constant, torch.randn(3, SIDE, SIDE), order()[None], 1)[0]
        assert curve.value == pytest.approx(p, abs=1e-6)
        assert len(curve.parts["steps"]) == 17


@pytest.mark.parametrize(("edge", "most"), [(0.3, 34), (0.71, 34)])
def test_a_curve_with_one_step_is_looked_at_where_the_step_is(edge: float, most: int) -> None:
    """Halving finds the step to within one of 256, in a tenth of the looks; a second map needs its own."""
    seen = [0]

    def model(pixels: Tensor) -> Tensor:
        seen[0] += len(pixels)
        gone = (pixels[:, 0] == 0).double().mean((1, 2))
        return (gone < edge).float()[:, None]

    curves = Deletion(n_steps=N, tolerance=0.01)(model, torch.ones(3, SIDE, SIDE), order()[None], 0)
    assert curves[0].value == pytest.approx(edge, abs=1.01 / N)
    assert seen[0] <= most
    every = Deletion(n_steps=N)(model, torch.ones(3, SIDE, SIDE), order()[None], 0)
    assert curves[0].parts["values"] == every[0].parts["values"]


def test_a_tolerance_bounds_what_is_missed_and_0_misses_nothing() -> None:
    weight = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 / N
    pixels, maps = torch.ones(3, SIDE, SIDE), torch.stack([order(0), order(1), -weight, weight])
    exact = Insertion(n_steps=200, fill="mean")(linear(weight), pixels, maps, 0)
    for tolerance in (1e-9, 0.003):
        rough = Insertion(n_steps=200, fill="mean", tolerance=tolerance)(linear(weight), pixels, maps, 0)
        for a, b in zip(exact, rough, strict=True):
            assert a.parts["steps"] == b.parts["steps"]
            assert a.value == pytest.approx(b.value, abs=tolerance + 1e-6)
    assert Deletion(n_steps=2, tolerance=0.1)(linear(weight), pixels, maps[:1], 0)[0].parts["steps"] == [0.0, 0.5, 1.0]
    assert len(Deletion(n_steps=1, tolerance=0.1)(linear(weight), pixels, maps, 0)) == 4


def test_ends() -> None:
    pixels = torch.randn(3, SIDE, SIDE)
    first, last = Deletion().ends(pixels)
    assert torch.equal(first, pixels)
    assert not last.any()
    first, last = Insertion().ends(pixels)
    assert torch.equal(first, blurred(pixels))
    assert torch.equal(last, pixels)


def test_the_blur_with_reflected_borders_is_torchvisions() -> None:
    pixels = torch.randn(3, 40, 33, generator=torch.Generator().manual_seed(0))
    theirs = gaussian_blur(pixels, [11, 11], [5.0, 5.0])
    torch.testing.assert_close(blurred_reflected(pixels), theirs, atol=1e-6, rtol=1e-5)


def test_changed_pixels_are_counted_exactly() -> None:
    seen: list[int] = []

    def watch(pixels: Tensor) -> Tensor:
        seen.extend((pixels[:, 0] == 0).sum((1, 2)).tolist())
        return torch.zeros(len(pixels), 1)

    Deletion(n_steps=8)(watch, torch.ones(3, SIDE, SIDE), order()[None], 0)
    assert sorted(seen) == [i * N // 8 for i in range(9)]


def test_ties_are_in_random_order_and_favour_no_row() -> None:
    size = torch.Size((SIDE, SIDE))
    flat = torch.zeros(1, 2, 2)
    places = ranks(flat, size, 0)[0]
    assert sorted(places.flatten().tolist()) == list(range(N))
    assert torch.equal(places, ranks(flat, size, 0)[0])
    assert not torch.equal(places, ranks(flat, size, 1)[0])
    assert abs(float(places[: SIDE // 2].float().mean()) - (N - 1) / 2) < N / 10
    heat = torch.zeros(1, SIDE, SIDE)
    heat[0, 3, 5] = 1
    assert ranks(heat, size, 0)[0, 3, 5] == 0


def test_shuffled_maps_hold_the_same_values() -> None:
    heat = torch.randn(5, 7)
    maps = shuffled(heat, 3, seed=0)
    for one in maps:
        assert torch.equal(one.flatten().sort().values, heat.flatten().sort().values)
        assert not torch.equal(one, heat)
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(maps, shuffled(heat, 3, seed=0))


def test_a_map_of_pixels_is_shuffled_in_blocks_as_large_as_its_spots() -> None:
    """Whole blocks move, none is cut, and so the control has the map's own texture; grain stays grain."""
    heat = upsampled(torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)), (224, 224))[0]
    rows, columns = block_side(heat)
    assert 14 <= rows <= 32
    assert 14 <= columns <= 32
    (moved,) = shuffled(heat, 1, seed=0)

    def blocks(one: Tensor) -> list[Tensor]:
        return list(one.unfold(0, rows, rows).unfold(1, columns, columns).flatten(0, 1))

    assert not torch.equal(moved, heat)
    left = {tuple(b.flatten().tolist()) for b in blocks(heat)}
    assert {tuple(b.flatten().tolist()) for b in blocks(moved)} == left
    rough = [
        float((m[1:] - m[:-1]).abs().mean())
        for m in (heat, moved, heat.flatten()[torch.randperm(224**2)].view_as(heat))
    ]
    assert rough[1] < 3 * rough[0] < 0.2 * rough[2]
    noise = torch.rand(128, 96, generator=torch.Generator().manual_seed(1))
    assert block_side(noise) == (1, 1)
    assert block_side(torch.ones(224, 224)) == (1, 1)
    # A feature map's cells are shuffled one by one, however alike neighbours are.
    assert block_side(upsampled(torch.rand(1, 3, 3), (64, 64))[0]) == (1, 1)


def test_a_map_with_a_prime_side_is_shuffled_in_blocks_too() -> None:
    heat = upsampled(torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)), (331, 331))[0]
    rows, columns = block_side(heat)
    assert min(rows, columns) > 20
    first, second = shuffled(heat, 2, seed=0)
    for one in (first, second):
        assert torch.equal(one.flatten().sort().values, heat.flatten().sort().values)
        assert float((one[1:] - one[:-1]).abs().mean()) < 4 * float((heat[1:] - heat[:-1]).abs().mean())
    assert not torch.equal(first, second)


def test_calibration_error_by_hand() -> None:
    sure = torch.tensor([0.9, 0.9, 0.9, 0.9])
    assert calibration_error(reliability(sure, torch.ones(4, dtype=torch.bool))) == pytest.approx(0.1, abs=1e-6)
    half = torch.tensor([True, True, False, False])
    assert calibration_error(reliability(sure, half)) == pytest.approx(0.4, abs=1e-6)
    certain = torch.ones(3)
    assert calibration_error(reliability(certain, torch.tensor([True] * 3))) == 0
    assert calibration_error(reliability(certain, torch.tensor([False] * 3))) == 1
    mixed = reliability(torch.tensor([0.25, 0.75, 0.75, 0.75]), torch.tensor([False, True, True, False]), n_bins=2)
    assert mixed == [Bin(0.25, 0.0, 1), Bin(0.75, pytest.approx(2 / 3), 3)]
    assert calibration_error(mixed) == pytest.approx(0.25 / 4 + 3 / 4 * (0.75 - 2 / 3))
    assert calibration_error([]) == 0


def test_accuracy_interval() -> None:
    # Wilson's for all of nine: n / (n + z²) to 1; for none it is the mirror image.
    low, high = accuracy_interval(torch.ones(9, dtype=torch.bool))
    assert (low, high) == (pytest.approx(9 / (9 + 1.959964**2)), pytest.approx(1))
    assert accuracy_interval(torch.zeros(9, dtype=torch.bool)) == (pytest.approx(0), pytest.approx(1 - low))
    theirs = binomtest(300, 400).proportion_ci(method="wilson")
    assert accuracy_interval(torch.arange(400) % 4 > 0) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_rank_correlation() -> None:
    heat = torch.randn(4, 5)
    assert rank_correlation(heat, heat.exp()) == pytest.approx(1)
    assert rank_correlation(heat, -heat) == pytest.approx(-1)
    one, other = torch.zeros(7, 7), torch.zeros(7, 7)
    one[0, 0] = other[6, 6] = 1
    theirs = spearmanr(one.flatten(), other.flatten()).statistic
    assert rank_correlation(one, other) == pytest.approx(theirs) == pytest.approx(-1 / 48)
    assert rank_correlation(torch.zeros(7, 7), heat) is None
