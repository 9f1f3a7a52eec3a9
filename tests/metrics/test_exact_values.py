"""A perfect, a worst and a random case of every further metric, on models whose answer is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import InputError
from seewhy.heads.head import Target
from seewhy.metrics import metrics
from seewhy.metrics.base import Case, _falling
from seewhy.metrics.controls import centred_gaussian, random_map, sobel_edges, uniform_map
from seewhy.metrics.localisation import largest_boxes, mosaic, overlaps
from seewhy.metrics.randomised import forget, forgetful, layers, twin
from seewhy.metrics.removal import filled, impute, superpixels
from seewhy.metrics.similarity import mean_ranks, pearson, spearman, ssim
from seewhy.types import Transform
from tiny import noise, tiny_cnn, tiny_tokens

SIDE = 8
N = SIDE * SIDE
WEIGHT = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
PIXELS = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
EVIDENCE = WEIGHT * PIXELS.sum(0)
RAW = Transform((SIDE, SIDE), SIDE, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def logits(pixels: Tensor) -> Tensor:
    """Linear: each pixel's part of the first logit is its weight times the sum of its channels."""
    return torch.stack([(pixels.sum(1) * WEIGHT).sum((1, 2)), torch.zeros(len(pixels))], 1)


def linear(**given: Any) -> Case:
    return Case(lambda x: logits(x).softmax(1), PIXELS, 0, logits=logits, transform=RAW, **given)


def values(name: str, case: Case, *maps: Tensor, **parameters: Any) -> list[float]:
    return [s.value for s in metrics[name](**parameters).measure(case, torch.stack(maps))]


def test_sensitivity_n_is_1_for_the_parts_of_a_linear_model_and_minus_1_for_their_negative() -> None:
    scores = metrics["sensitivity_n"](n_sets=20).measure(linear(), torch.stack([EVIDENCE, -EVIDENCE, 3 * EVIDENCE]))
    for score, sign in zip(scores, (1, -1, 1), strict=True):
        assert score.parts["curve"] == pytest.approx([sign] * 6, abs=1e-4)
    (random,) = values("sensitivity_n", linear(), torch.rand(SIDE, SIDE), n_sets=400, fractions=(0.2,))
    assert abs(random) < 0.6


@pytest.mark.parametrize("correlation", ["pearson", "spearman"])
def test_faithfulness_correlation_of_a_linear_model(correlation: str) -> None:
    settings = {"size": 0.2, "fill": "mean", "of": "logit", "correlation": correlation}
    found = values("faithfulness_correlation", linear(), EVIDENCE, -EVIDENCE, torch.ones(SIDE, SIDE), **settings)
    assert found == pytest.approx([1, -1, 0], abs=1e-3)


def test_faithfulness_correlation_refuses_sets_as_large_as_the_picture() -> None:
    with pytest.raises(InputError) as caught:
        values("faithfulness_correlation", linear(), EVIDENCE, size=64)
    assert str(caught.value) == "`size` must be less than the 64 pixels or grid cells of the picture, got 64."


def test_infidelity_of_a_linear_model_is_0() -> None:
    """The gradient for local changes, the parts for removed squares; without the scale, twice the map is far off."""
    gradient = values("infidelity", linear(), WEIGHT, perturbation="gaussian", normalised=False)
    parts = values("infidelity", linear(), EVIDENCE, normalised=False)
    assert [*gradient, *parts] == pytest.approx([0, 0], abs=1e-8)
    (plain,) = values("infidelity", linear(), 2 * EVIDENCE, normalised=False)
    (fitted,) = values("infidelity", linear(), 2 * EVIDENCE)
    assert plain > 0.1
    assert fitted == pytest.approx(0, abs=1e-8)


def test_infidelity_of_a_map_of_zeros_is_the_mean_square_of_what_is_lost() -> None:
    score = metrics["infidelity"]().measure(linear(), torch.stack([torch.zeros(SIDE, SIDE), EVIDENCE]))
    # Of the perfect map, scale 2 errs by exactly what is lost.
    (double,) = values("infidelity", linear(), 2 * EVIDENCE, normalised=False)
    assert score[0].value == pytest.approx(double, rel=1e-5)


def test_no_order_deletes_a_linear_logit_faster_than_its_parts() -> None:
    rng = torch.Generator().manual_seed(0)
    orders = [torch.randperm(N, generator=rng).float().reshape(SIDE, SIDE) for _ in range(1000)]
    best, worst, *others = values(
        "pixel_flipping", linear(), EVIDENCE, -EVIDENCE, *orders, n_steps=N, of="logit", fill="mean", batch_size=4096
    )
    assert best > max(others)
    assert worst < min(others)
    ordered = EVIDENCE.flatten().sort(descending=True).values
    assert best == pytest.approx(float(ordered.cumsum(0).sum() / (N + 1)), rel=1e-4)


def confident(pixels: Tensor) -> Tensor:
    """Probability: mean of red where it is in 0…1."""
    p = pixels[:, 0].mean((1, 2)).clamp(0, 1)
    return torch.stack([p, 1 - p], 1)


def test_average_drop_increase_and_gain_by_hand() -> None:
    case = Case(confident, torch.full((3, SIDE, SIDE), 0.8), 0)
    half, whole = torch.zeros(SIDE, SIDE), torch.ones(SIDE, SIDE)
    half[: SIDE // 2] = 1
    assert values("average_drop", case, half, whole) == pytest.approx([50, 0], abs=1e-4)
    assert values("average_increase", case, half, whole) == [0, 0]
    assert values("average_gain", case, half, whole) == [0, 0]
    other = Case(confident, torch.full((3, SIDE, SIDE), 0.8), 1)
    assert values("average_drop", other, half, whole) == [0, 0]
    assert values("average_increase", other, half, whole) == [100, 0]
    assert values("average_gain", other, half, whole) == pytest.approx([100 * 0.4 / 0.8, 0], abs=1e-4)
    (score,) = metrics["average_drop"]().measure(case, half[None])
    assert score.parts == {"whole": pytest.approx(0.8), "masked": pytest.approx(0.4), "mean_map": 0.5}


def test_the_t_tame_variant_keeps_the_upper_part_and_works_on_raw_pixels() -> None:
    ramp = torch.arange(N).reshape(SIDE, SIDE) / (N - 1)
    case = Case(confident, torch.full((3, SIDE, SIDE), 0.8), 0, transform=RAW)
    kept = torch.where(ramp >= ramp.flatten().quantile(0.5), ramp, 0)
    (normalised,) = metrics["average_drop"](keep=0.5).measure(case, ramp[None])
    assert normalised.parts["masked"] == pytest.approx(float(0.8 * kept.mean()), abs=1e-5)
    (raw,) = metrics["average_drop"](keep=0.5, space="raw").measure(case, ramp[None])
    by_hand = (((0.8 * 0.25 + 0.5) * kept - 0.5) / 0.25).mean().clamp(0, 1)
    assert raw.parts["masked"] == pytest.approx(float(by_hand), abs=1e-5)
    with pytest.raises(InputError) as caught:
        values("average_drop", case, ramp, keep=0)
    assert str(caught.value) == (
        "`keep` of average_drop must be a number above 0 and at most 1, got 0. Leave it out to use 1.0."
    )


def test_imputation_of_a_linear_picture_is_the_picture() -> None:
    """A plane solves the neighbour equations, so missing pixels inside come back exactly; known ones never change."""
    ramp = torch.arange(24.0)[:, None] / 24 + torch.arange(20.0) / 20
    pixels = torch.stack([ramp, 1 - ramp, 0.5 * ramp])
    missing = torch.zeros(2, 24, 20, dtype=torch.bool)
    missing[0, 5:18, 3:15] = True
    found = impute(pixels, missing, tolerance=1e-6)
    torch.testing.assert_close(found[0], pixels, atol=1e-4, rtol=0)
    assert torch.equal(found[1], pixels)


@pytest.mark.parametrize("size", [(24, 20), (33, 17)])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_imputed_pixels_solve_the_neighbour_equations(size: tuple[int, int], part: float) -> None:
    """Against a dense solver that is given nothing but the definition, borders and odd sides included."""
    rng = torch.Generator().manual_seed(int(100 * part))
    pixels, missing = torch.randn(3, *size, generator=rng), torch.rand(size, generator=rng) < part
    n = size[0] * size[1]
    place = torch.arange(n).reshape(size)
    weights = torch.zeros(n, n, dtype=torch.double)
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        if dy or dx:
            here = place[max(0, -dy) : size[0] - max(0, dy), max(0, -dx) : size[1] - max(0, dx)].flatten()
            weights[here, here + dy * size[1] + dx] = 1 / 12 if dy and dx else 1 / 6
    system = torch.where(missing.flatten()[:, None], weights.sum(1).diag() - weights, torch.eye(n, dtype=torch.double))
    known = torch.where(missing, 0, pixels).flatten(1).double()
    expected = torch.linalg.solve(system, known.T).T.reshape(3, *size).float()
    found = impute(pixels, missing[None], tolerance=1e-6, max_iterations=2000)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_road_of_a_planted_patch() -> None:
    """On a constant picture imputation changes nothing, so no map can win; on a spot the right map does."""
    flat = Case(confident, torch.full((3, 32, 32), 0.5), 0)
    (nothing,) = values("road", flat, torch.rand(32, 32), noise=0.0)
    assert nothing == pytest.approx(0, abs=1e-5)
    pixels = torch.zeros(3, 32, 32)
    pixels[0, 12:16, 12:16] = 0.9 * 64
    y = torch.arange(32.0)
    spot = -torch.hypot(y[:, None] - 13.5, y - 13.5)  # the least relevant pixels are far from the spot
    case = Case(confident, pixels, 0)
    right, wrong = values("road", case, spot, -spot, noise=0.0, fractions=(0.1, 0.3))
    assert right == pytest.approx(0.45, abs=1e-3)
    assert wrong == pytest.approx(-0.45, abs=1e-3)


def test_random_maps_have_road_0_on_average() -> None:
    rng = torch.Generator().manual_seed(0)
    maps = [torch.rand(SIDE, SIDE, generator=rng) for _ in range(60)]
    found = torch.tensor(values("road", linear(), *maps, fractions=(0.3, 0.7)))
    assert abs(float(found.mean())) < 3 * float(found.std()) / math.sqrt(60)


def test_irof_perfect_and_constant() -> None:
    constant = Case(lambda x: torch.full((len(x), 2), 0.5), PIXELS, 0)
    assert values("irof", constant, EVIDENCE, n_segments=9) == [0]
    pixels = torch.zeros(3, 32, 32)
    pixels[0, :16, :16] = 0.8 * 4
    spot = torch.zeros(32, 32)
    spot[:16, :16] = 1
    right, wrong = values("irof", Case(confident, pixels, 0), spot, -spot, n_segments=4)
    # Four segments: the whole evidence is gone after the first, or only after the last.
    assert right == pytest.approx(1 - 1 / 5, abs=1e-5)
    assert wrong == pytest.approx(1 - 4 / 5, abs=1e-5)


def test_superpixels_are_numbered_without_gaps_and_follow_colour() -> None:
    pixels = torch.zeros(3, 32, 32)
    pixels[:, :, 13:] = 5
    segments = superpixels(pixels, 16, compactness=0.1)
    assert segments.unique().tolist() == list(range(int(segments.max()) + 1))
    assert not set(segments[:, :13].flatten().tolist()) & set(segments[:, 13:].flatten().tolist())


MASK = torch.zeros(16, 16, dtype=torch.bool)
MASK[4:8, 4:12] = True
OBJECT = Case(confident, torch.zeros(3, 16, 16), 0, mask=MASK)


def test_localisation_perfect_worst_and_uniform() -> None:
    perfect, worst, uniform = MASK.float(), 1 - MASK.float(), torch.ones(16, 16)
    share = float(MASK.float().mean())
    for name in ("pointing_game", "energy_pointing_game", "mosaic_focus"):
        assert values(name, OBJECT, perfect, worst, uniform) == pytest.approx([1, 0, share], abs=1e-6)
    assert values("pixel_ap", OBJECT, perfect, uniform) == pytest.approx([1, share], abs=1e-6)
    assert values("iou_localisation", OBJECT, perfect, worst) == [1, 0]
    assert values("max_box_acc", OBJECT, perfect, worst) == [1, 0]
    assert values("energy_pointing_game", OBJECT, torch.zeros(16, 16), -perfect) == [0, 0]


def test_pointing_game_with_tolerance() -> None:
    near = torch.zeros(16, 16)
    near[2, 5] = 1
    assert values("pointing_game", OBJECT, near) == [0]
    assert values("pointing_game", OBJECT, near, tolerance=2) == [1]


def test_pixel_ap_is_scikit_learns_on_binned_maps() -> None:
    heat = torch.randint(0, 20, (16, 16), generator=torch.Generator().manual_seed(0)) / 20
    heat[0, 0], heat[0, 1] = 0, 1
    expected = average_precision_score(MASK.flatten().numpy(), (heat.flatten() * 100).floor().clamp(max=99).numpy())
    assert values("pixel_ap", OBJECT, heat) == pytest.approx([expected], abs=1e-6)


def test_boxes_by_hand() -> None:
    inside = torch.zeros(3, 6, 7, dtype=torch.bool)
    inside[0, 0, 0] = inside[0, 2:4, 3:6] = True
    inside[1, [0, 1, 2], [0, 1, 2]] = True
    boxes = largest_boxes(inside)
    assert boxes.tolist() == [[3, 2, 6, 4], [0, 0, 3, 3], [0, 0, 0, 0]]
    assert overlaps(boxes, torch.tensor([3, 2, 6, 5])).tolist() == pytest.approx([6 / 9, 0, 0])


def test_max_box_acc_takes_one_threshold_for_the_set() -> None:
    """Two pictures whose boxes are right at different thresholds only: one in two is found."""
    metric = metrics["max_box_acc"](n_thresholds=4)
    high, low = torch.full((16, 16), 0.3), torch.full((16, 16), 0.0)
    high[0, 0], low[0, 0] = 0.0, 0.0
    high[MASK], low[MASK] = 1.0, 0.3
    low[12:15, :] = 1.0
    low[4:8, 4:12] = 0.3
    sums = torch.tensor([s.sums for s in metric.measure(OBJECT, torch.stack([high, low]))])
    assert sums.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert float(metric.combine(sums.mean(0))) == 0.5


def test_an_empty_mask_is_refused() -> None:
    for name in ("pointing_game", "pixel_ap"):
        with pytest.raises(InputError) as caught:
            values(name, Case(confident, torch.zeros(3, 4, 4), 0, mask=torch.zeros(4, 4).bool()), torch.ones(4, 4))
        assert str(caught.value) == "`mask` must not be empty. Leave out pictures without the object."


def test_mosaic() -> None:
    pictures = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8).contiguous()
    canvas, mask = mosaic(pictures, [True, False, False, True])
    assert canvas[0, [0, 0, 7, 7], [0, 7, 0, 7]].tolist() == [0, 1, 2, 3]
    assert mask[[0, 0, 7, 7], [0, 7, 0, 7]].tolist() == [True, False, False, True]
    with pytest.raises(InputError) as caught:
        mosaic(pictures, [True] * 4)
    assert (
        str(caught.value)
        == "A mosaic needs four pictures, one to three of the target class, got 4 pictures, 4 of the target class."
    )


def test_sparsity_and_complexity() -> None:
    uniform, single = torch.full((SIDE, SIDE), 0.3), torch.zeros(SIDE, SIDE)
    single[2, 3] = -5
    case = linear()
    assert values("sparsity", case, uniform, single) == pytest.approx([0, 1 - 1 / N], abs=1e-6)
    assert values("complexity", case, uniform, single) == pytest.approx([math.log(N), 0], abs=1e-6)
    assert values("sparsity", case, torch.zeros(SIDE, SIDE)) == [0]
    assert values("complexity", case, torch.zeros(SIDE, SIDE)) == pytest.approx([math.log(N)])


MODEL = Pretrained().build(tiny_cnn())


def explained(*methods: Any) -> tuple[Case, Tensor]:
    pixels = noise(1)
    case = Case.of(MODEL, pixels[0], 1, methods=methods)
    return case, case.explain(pixels)[:, 0]


def test_edges_fail_the_randomisation_test_and_the_gradient_passes() -> None:
    case, maps = explained(sobel_edges, GradCAM(), uniform_map)
    for name, parameters in (("model_randomisation", {}), ("smooth_model_randomisation", {"n_samples": 3})):
        edges, cam, uniform = metrics[name](**parameters).measure(case, maps)
        assert edges.value == pytest.approx(1, abs=1e-5)
        assert edges.parts["absolute"] == pytest.approx(1, abs=1e-5)
        assert uniform.value == 1
        assert cam.value < 0.6
    assert values_of("efficient_model_randomisation", case, maps)[0] == 0


def values_of(name: str, case: Case, maps: Tensor, **parameters: Any) -> list[float]:
    return [s.value for s in metrics[name](**parameters).measure(case, maps)]


@pytest.mark.parametrize("reset", ["initialise", "shuffle"])
def test_the_output_forgets_first_and_the_user_s_model_never(reset: Any) -> None:
    case, _ = explained(GradCAM())
    weights = {k: v.clone() for k, v in MODEL.encoder.module.state_dict().items()}
    head = MODEL.head.weight.clone()
    first, *_ = forgetful(case, 3, reset, 0)
    steps = []
    for copy in forgetful(case, 3, reset, 0):
        trunk = copy.encoder.trunk
        steps.append(
            (
                torch.equal(copy.head.weight, head),
                torch.equal(trunk[2].weight, MODEL.encoder.trunk[2].weight),
                torch.equal(trunk[0].weight, MODEL.encoder.trunk[0].weight),
            )
        )
    assert steps == [(False, True, True), (False, False, True), (False, False, False)]
    assert torch.equal(MODEL.head.weight, head)
    assert all(torch.equal(v, weights[k]) for k, v in MODEL.encoder.module.state_dict().items())
    assert first is not None


def test_what_has_no_reset_of_its_own_is_drawn_with_its_old_mean_and_spread() -> None:
    before = 3 + 0.5 * torch.randn(100, 100, generator=torch.Generator().manual_seed(4))
    plain = nn.ParameterList([before.clone()])
    forget(plain, "initialise", 0)
    after = plain[0].detach()
    # Five standard errors of 10,000 numbers: 5 · 0.5 / 100 of the mean, 1/√2 of that of the spread.
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=0.025)
    assert float(after.std()) == pytest.approx(float(before.std()), abs=0.018)
    assert abs(float(pearson(before.reshape(1, -1), after.reshape(1, -1)))) < 0.05


def test_layers_are_the_output_then_the_pooling_head_and_the_trunk_from_above() -> None:
    copy = twin(Pretrained().build(tiny_tokens()))
    pool, trunk = copy.encoder.head, copy.encoder.trunk
    assert layers(copy) == [copy.head, pool.weigh, pool.mix, trunk.patches, trunk]


def test_random_logit_of_a_map_that_knows_no_class_is_1() -> None:
    case, maps = explained(sobel_edges, GradCAM())
    edges, cam = values_of("random_logit", case, maps)
    assert edges == pytest.approx(1, abs=1e-6)
    assert cam < 0.9


def test_max_sensitivity() -> None:
    case, maps = explained(uniform_map, GradCAM(), random_map)
    constant, cam, random = values_of("max_sensitivity", case, maps)
    assert constant == 0
    assert 0 < cam < random
    (still,) = values_of("max_sensitivity", *explained(GradCAM()), radius=0.0)
    assert still == pytest.approx(0, abs=1e-6)


def test_similarities() -> None:
    a = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    assert float(pearson(a, 2 * a + 1)) == pytest.approx(1, abs=1e-6)
    assert float(spearman(a, a.exp())) == pytest.approx(1, abs=1e-6)
    assert float(pearson(a, torch.ones(1, 40))) == 0
    assert mean_ranks(torch.tensor([[3.0, 1.0, 3.0, 0.0]])).tolist() == [[2.5, 1.0, 2.5, 0.0]]
    x, y = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(ssim(x[None], y[None])) == pytest.approx(
        structural_similarity(x.numpy(), y.numpy(), data_range=1.0), abs=1e-5
    )


def test_fills() -> None:
    assert not filled(PIXELS, "mean").any()
    assert torch.equal(filled(PIXELS, "black", RAW), torch.full_like(PIXELS, -2.0))
    with pytest.raises(InputError) as caught:
        filled(PIXELS, "black")
    assert str(caught.value) == ("fill='black' needs the normalisation of the model. Pass transform=… to Case.")


def test_controls() -> None:
    look, target = MODEL.encoder.encode(noise(2)), Target(torch.tensor([0, 1]))
    for control in (random_map, centred_gaussian, sobel_edges, uniform_map):
        maps = control(MODEL, look, target)
        assert len(maps) == 2
        assert torch.equal(maps, control(MODEL, look, target))
    assert not torch.equal(*random_map(MODEL, look, target))
    middle = centred_gaussian(MODEL, look, target)[0]
    assert middle[16, 16] == middle.max()
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 1
    edges = sobel_edges(MODEL, MODEL.encoder.encode(step), Target(torch.tensor([0])))[0]
    assert set(edges.mean(0).nonzero().flatten().tolist()) == set(range(11, 21))


def test_falling_order_is_the_stable_one() -> None:
    draw = torch.Generator().manual_seed(0)
    values = (torch.randn(4, 3000, generator=draw) * 4).round() / 4
    values[0, :40], values[1, 7], values[1, 9], values[2, 5] = -0.0, 3e38, -3e38, -1e-40
    values[3] = 0.5
    assert torch.equal(_falling(values), values.argsort(dim=1, descending=True, stable=True))
