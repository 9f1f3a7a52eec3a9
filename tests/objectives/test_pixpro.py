"""PixPro: against the authors' numbers, by hand, crops mirrored and apart, and what must not change it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.learning.objectives.regional import PixPro, Propagation, apart

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pixpro.json").read_text("utf-8"))
FIRST, SECOND = torch.tensor(GOLDEN["first"]), torch.tensor(GOLDEN["second"])
FLIPPED = torch.tensor(GOLDEN["flipped"]).T
TOLERANCE = GOLDEN["tolerance"]
WHOLE = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]] * 2)
UPRIGHT = torch.zeros(2, 1).bool()


def own_boxes() -> Tensor:
    """From edge to edge, as a batch of the training has them."""
    crops, (width, height) = torch.tensor(GOLDEN["crops"]).transpose(0, 1), GOLDEN["size"]
    left, top, wide, high = crops.unbind(2)
    return torch.stack([left / width, top / height, (left + wide) / width, (top + high) / height], 2)


def as_theirs(boxes: Tensor) -> Tensor:
    """From the first pixel's place to the last one's, where the picture's last pixel is at 1."""
    size = torch.tensor(GOLDEN["size"] * 2)
    pixels = boxes * size
    pixels[..., 2:] -= 1
    return pixels / (size - 1)


def learnt(run: dict[str, Any]) -> Propagation:
    made = Propagation(4, run["gamma"])
    weight, bias = torch.tensor(GOLDEN["weight"]), torch.tensor(GOLDEN["bias"])
    made.transform.weight.data = (weight if run["transform"] else torch.eye(4))[:, :, None, None]
    made.transform.bias.data = bias if run["transform"] else torch.zeros(4)
    return made.requires_grad_(False)


def test_our_boxes_are_the_authors_upright() -> None:
    """Where a view is mirrored, theirs has left and right exchanged."""
    theirs, mirrored = torch.tensor(GOLDEN["boxes"]), FLIPPED[..., None]
    upright = torch.where(mirrored, theirs[..., [2, 1, 0, 3]], theirs)
    assert (theirs[..., 0] > theirs[..., 2]).tolist() == FLIPPED.tolist()
    torch.testing.assert_close(as_theirs(own_boxes()), upright)


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda r: f"{r['gamma']}-{r['transform']}")
def test_against_the_authors(run: dict[str, Any]) -> None:
    state, boxes = learnt(run), as_theirs(own_boxes())
    if run["propagated"] is not None:
        torch.testing.assert_close(state(FIRST), torch.tensor(run["propagated"]), rtol=1e-5, atol=TOLERANCE)
    for threshold, (forth, back) in run["losses"].items():
        objective = PixPro(threshold=float(threshold), gamma=run["gamma"])
        assert float(objective(FIRST, SECOND, boxes, FLIPPED, state)) == pytest.approx(forth, abs=TOLERANCE)
        other = objective(SECOND, FIRST, boxes.flip(0), FLIPPED.flip(0), state)
        assert float(other) == pytest.approx(back, abs=TOLERANCE)


def test_each_picture_against_the_authors() -> None:
    """Among them: mirrored once, mirrored twice, partly overlapping, apart."""
    state = learnt({"gamma": None, "transform": False})
    for i, (wanted,) in enumerate(GOLDEN["plain"]):
        one = slice(i, i + 1)
        found = PixPro(form="plain")(FIRST[one], SECOND[one], as_theirs(own_boxes())[:, one], FLIPPED[:, one], state)
        assert float(found) == pytest.approx(wanted, abs=TOLERANCE)


def test_edge_to_edge_or_pixel_to_pixel_finds_the_same_pairs_but_for_those_on_the_threshold() -> None:
    ours, theirs = (apart(boxes, FLIPPED, 3, 5) for boxes in (own_boxes(), as_theirs(own_boxes())))
    other = (ours < 0.7) != (theirs < 0.7)
    assert (int(other.sum()), int((theirs < 0.7).sum())) == (2, 150)
    assert ours[other].tolist() == pytest.approx([0.6975] * 2, abs=1e-4)
    assert theirs[other].tolist() == pytest.approx([0.7123] * 2, abs=1e-4)


def test_whole_views_against_the_authors() -> None:
    found = PixPro().whole(3 * FIRST.mean((2, 3)), SECOND.mean((2, 3)))
    assert float(found) == pytest.approx(GOLDEN["instance"], abs=TOLERANCE)


def test_a_mirrored_crop_is_the_crop_with_its_columns_turned() -> None:
    boxes = torch.tensor([[[0.1, 0.2, 0.7, 0.9]]] * 2)
    mirrored = apart(boxes, torch.tensor([[False], [True]]), 3, 4)[0] < 1e-4
    turned = torch.arange(12).view(3, 4).flip(1).flatten()
    assert torch.equal(mirrored, torch.eye(12).bool()[turned])


def test_exchanged_views_give_the_transposed_distances_in_the_larger_cell() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.2, 0.2]], [[0.0, 0.0, 0.8, 0.6]]])
    flipped = torch.tensor([[True], [False]])
    forth, back = apart(boxes, flipped, 2, 2), apart(boxes.flip(0), flipped.flip(0), 2, 2)
    torch.testing.assert_close(forth, back.transpose(1, 2))
    near = math.hypot(0.2 - 0.15, 0.15 - 0.05) / math.hypot(0.4, 0.3)
    assert float(forth[0, 0, 0]) == pytest.approx(near, rel=1e-5), "its first column shows the crop's right half"


def test_opposite_cells_give_nothing_to_one_another() -> None:
    """Without the ReLU an even exponent would make them alike."""
    cells = torch.tensor([[[[1.0, -1.0, 0.6]], [[0.0, 0.0, 0.8]]]])
    state = learnt({"gamma": 2.0, "transform": False})
    state.transform.weight.data, state.transform.bias.data = torch.eye(2)[:, :, None, None], torch.zeros(2)
    found = state(cells)[0, :, 0]
    torch.testing.assert_close(found[:, 0], torch.tensor([1 + 0.36 * 0.6, 0.36 * 0.8]))
    torch.testing.assert_close(found[:, 1], torch.tensor([-1.0, 0.0]))


def test_no_exponent_makes_every_cell_the_whole_crop() -> None:
    found = Propagation(4, 0.0)(FIRST).flatten(2)
    torch.testing.assert_close(found, found[:, :, :1].expand_as(found))


def test_views_that_agree_in_all_spots_are_at_the_optimum() -> None:
    same = torch.ones(1, 4, 3, 3)
    objective, state = PixPro(form="plain"), learnt({"gamma": None, "transform": False})
    both = objective(same, 5 * same, WHOLE, UPRIGHT, state) + objective(same, same, WHOLE, UPRIGHT, state)
    assert float(both) == pytest.approx(-4.0, abs=1e-5)


@pytest.mark.parametrize("form", ["propagation", "plain", "contrast"])
def test_views_apart_cost_nothing_and_teach_nothing(form: Any) -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.2, 0.2]], [[0.8, 0.8, 1.0, 1.0]]])
    x = FIRST[:1].clone().requires_grad_()
    loss = PixPro(form=form)(x, SECOND[:1], boxes, UPRIGHT)
    (slope,) = torch.autograd.grad(loss, x)
    assert (loss.item(), slope.abs().max().item()) == (0.0, 0.0)


def test_contrast_by_hand() -> None:
    """The left half against the whole, in cells of a half and a quarter: of two cells, both have one and the same."""
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0]], [[0.0, 0.0, 1.0, 1.0]]])
    x, y = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[[[3.0, 3.0]], [[0.0, 4.0]]]])
    assert (apart(boxes, UPRIGHT, 1, 2) < 0.2).tolist() == [[[True, False], [True, False]]]

    def share(own: float, other: float) -> float:
        return -math.log(math.exp(own / 0.5) / (math.exp(own / 0.5) + math.exp(other / 0.5)))

    wanted = (share(1.0, 0.6) + share(0.0, 0.8)) / 2
    found = PixPro(form="contrast", threshold=0.2, temperature=0.5)(x, y, boxes, UPRIGHT)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_contrast_counts_only_cells_that_have_a_pair_and_every_picture_alike() -> None:
    """The second view of the first picture shows its right end: the left cell has no pair there."""
    whole = [0.0, 0.0, 1.0, 1.0]
    boxes, flipped = torch.tensor([[whole, whole], [[0.8, 0.0, 1.0, 1.0], whole]]), torch.zeros(2, 2).bool()
    assert (apart(boxes[:, :1], UPRIGHT, 1, 2) < 0.12).tolist() == [[[False, False], [True, False]]]
    x, y, objective = FIRST[:2, :, :1, :2], SECOND[:2, :, :1, :2], PixPro(form="contrast", threshold=0.12)
    cosine = torch.cosine_similarity(x[:, :, 0, :, None], y[:, :, 0, None], dim=1) / 0.3
    costs = -cosine.log_softmax(2)
    wanted = (costs[0, 1, 0] + (costs[1, 0, 0] + costs[1, 1, 1]) / 2) / 2
    assert float(objective(x, y, boxes, flipped)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("objective", [PixPro(), PixPro(gamma=0.5), PixPro(form="contrast")], ids=str)
def test_order_and_length_change_nothing_and_slopes_are_finite(objective: PixPro) -> None:
    state = learnt(GOLDEN["runs"][0]) if objective.form != "contrast" else None
    x, order = FIRST.clone().requires_grad_(), torch.tensor([3, 5, 0, 1, 4, 2])
    loss = objective(x, SECOND, own_boxes(), FLIPPED, state)
    (slope,) = torch.autograd.grad(loss, x)
    assert bool(slope.isfinite().all())
    turned = objective(FIRST[order], SECOND[order], own_boxes()[:, order], FLIPPED[:, order], state)
    assert float(turned) == pytest.approx(loss.item(), rel=1e-5)
    assert float(objective(FIRST, 7 * SECOND, own_boxes(), FLIPPED, state)) == pytest.approx(loss.item(), rel=1e-5)
    wrong = objective(FIRST, SECOND, own_boxes(), ~FLIPPED, state)
    assert float(wrong) != pytest.approx(loss.item(), rel=1e-3)


def test_half_precision_counts_in_single() -> None:
    found = PixPro(form="contrast")(FIRST.bfloat16(), SECOND.bfloat16(), own_boxes(), FLIPPED)
    assert found.dtype == torch.float32
